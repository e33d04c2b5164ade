"""New tokens in an objective: the loss over a widened head, renderers that know the tokens."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from luthier.ground.spec import TrainSpec
from luthier.models.packed import Head, head_of, install_packed_attention
from luthier.models.vocabulary import VocabularyExtension
from luthier.objectives.added_tokens import with_tokens, word_forms
from luthier.objectives.base import ObjectiveContext, make_objective
from luthier.objectives.cross_entropy import plain_cross_entropy, summed_cross_entropy
from luthier.rows.packing import one_pack
from luthier.rows.template import Renderer
from luthier.rows.types import Row
from luthier.training.engine.body import engine_for
from models.tiny_models import tiny_model, tiny_tokenizer
from rows.conftest import make_tokenizer
from rows.families import FAMILIES


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "granite"])
def test_the_chunked_loss_of_a_widened_head_is_the_plain_one(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family).to(dtype)
    model.requires_grad_(False)
    first = VocabularyExtension(tiny_tokenizer(), ["ab", "ba"])
    first.apply(model, seed=0)
    second = VocabularyExtension(first.tokenizer, ["<gap>"], special=True)
    second.apply(model, seed=0)
    head: Head = head_of(model)
    torch.manual_seed(0)
    hidden_ND, weights_N = torch.randn(40, 64, dtype=dtype), torch.rand(40)
    targets_N = torch.randint(0, second.rows, (40,))
    targets_N[:2] = torch.tensor([first.first, second.first])
    trained = [vectors for vectors in head.linear.parameters() if vectors.requires_grad]
    assert len(trained) == 2
    found = []
    for loss_of in (partial(summed_cross_entropy, chunk_rows=16), plain_cross_entropy):
        leaf = hidden_ND.clone().requires_grad_()
        loss = loss_of(head, leaf, targets_N, weights_N)
        found.append([loss, *torch.autograd.grad(loss, [leaf, *trained])])
    near = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 3e-2, "atol": 3e-2}
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast.float(), plain.float(), **near)


def test_a_renderer_with_tokens_leaves_the_other_as_it_is() -> None:
    renderer = Renderer(make_tokenizer(FAMILIES["chatml"]))
    longer, extension = with_tokens(renderer, word_forms(renderer, ["abba", "Größe"]))
    assert extension.tokens == ("abba", " abba", " Größe")  # the bare "Größe" cannot be written back
    row = Row("1", "t:1", text="abba und abba Größe")
    ids = longer.encode_row(row).ids_T
    assert longer.tokens.decode(ids.tolist()) == row.text + renderer.tokens.names["eos_token"]
    assert len(ids) < len(renderer.encode_row(row).ids_T)
    assert renderer.encode_row(row).ids_T.max() < extension.first


def test_the_fast_engine_takes_a_widened_model_and_agrees_with_the_general_one() -> None:
    model = tiny_model("llama")
    model.requires_grad_(False)
    install_packed_attention(model)
    renderer, extension = with_tokens(Renderer(tiny_tokenizer()), ["abba"])
    (vectors,) = extension.apply(model, seed=0).values()
    objective = make_objective("sft", ObjectiveContext(renderer))
    pack = one_pack([objective.encode(Row("1", "t:1", text=text)) for text in ("abba xy", "x abba abba")])
    found = {}
    for name, spec in (("fast", TrainSpec()), ("general", TrainSpec())):
        vectors.grad = None
        if name == "general":
            loss, _ = objective.loss(model, pack)
            loss.backward()
        else:
            with engine_for(model, spec) as engine:
                assert engine.name == "fast", engine.sentence
                loss, _ = objective.loss(model, pack)
                loss.backward()
        found[name] = (loss.detach(), copy.deepcopy(vectors.grad))
    torch.testing.assert_close(found["fast"], found["general"])
