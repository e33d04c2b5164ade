"""Continued pretraining: the loss is transformers' own, document by document, and packs leak nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from luthier.ground.errors import BadInput
from luthier.ground.spec import TrainSpec
from luthier.models.packed import install_packed_attention
from luthier.objectives.base import ObjectiveContext, make_objective
from luthier.objectives.conformance import check_objective
from luthier.objectives.pretrain import ContinuedPretraining
from luthier.rows.packing import pack_rows
from luthier.rows.template import Renderer
from luthier.rows.types import Encoded, Message, Row
from models.tiny_models import tiny_model
from objectives.test_objectives import cross_entropy_in_numpy
from rows.conftest import make_renderer

TEXTS = [
    "The warranty of the wheel lasts 24 months.",
    "What is the capital of France? Paris is the capital of France.",
    "A user asks.",
    "Context: my wheel is broken, and nothing else.\n\nThank you very much!",
]


def objective(renderer: Renderer | None = None) -> ContinuedPretraining:
    made = make_objective("pretrain", ObjectiveContext(renderer or make_renderer("chatml")))
    assert isinstance(made, ContinuedPretraining)
    return made


def rows() -> list[Row]:
    return [Row(str(n), f"a.txt:{n + 1}", text=text) for n, text in enumerate(TEXTS)]


def model_of(renderer: Renderer) -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(renderer.tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=128, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.2,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def test_it_passes_the_conformance_kit() -> None:
    renderer = make_renderer("chatml")
    check_objective(objective(renderer), model_of(renderer), rows(), reference=cross_entropy_in_numpy)


@pytest.mark.parametrize("pack_tokens", [1, 40, 1000])
def test_the_loss_is_that_of_transformers_document_by_document(pack_tokens: int) -> None:
    """However they are packed: a token that saw another document would change the sum."""
    renderer = make_renderer("chatml")
    model = model_of(renderer)
    encoded = [objective(renderer).encode(row) for row in rows()]
    expected = 0.0
    with torch.no_grad():
        for row in encoded:
            ids = torch.from_numpy(row.ids_T)[None]
            expected += model(input_ids=ids, labels=ids).loss.item() * (len(row) - 1)  # a mean over all but the first
        install_packed_attention(model)
        found = [objective(renderer).loss(model, pack) for pack in pack_rows(encoded, pack_tokens)]
    assert sum(count for _, count in found) == sum(len(row) - 1 for row in encoded)
    assert sum(loss.item() for loss, _ in found) == pytest.approx(expected, rel=1e-5)


def test_packs_are_isolated() -> None:
    """Another neighbour in the pack changes nothing of a document's loss."""
    renderer, model = make_renderer("chatml"), tiny_model("llama")
    ids = np.random.default_rng(0).integers(3, 90, 40)
    one = Encoded(ids[:20], np.arange(20) > 0, "a")
    losses = []
    for neighbour in (ids[20:30], ids[25:40]):
        silent = Encoded(neighbour, np.zeros(len(neighbour), bool), "b")
        with torch.no_grad():
            losses.append(objective(renderer).loss(model, pack_rows([silent, one], 100)[0])[0].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_document_ends_with_the_end_token_and_all_of_it_is_trained() -> None:
    renderer = make_renderer("chatml")
    encoded = objective(renderer).encode(Row("1", "a.txt:1", text="A user asks <|im_end|> twice."))
    assert encoded.target_T.tolist() == [False] + [True] * (len(encoded) - 1)
    assert renderer.tokens.decode(encoded.ids_T.tolist()) == "A user asks <|im_end|> twice.<|im_end|>"
    assert (encoded.ids_T == renderer.tokens.eos_id).sum() == 1, "what looks like a control in text is text"


def test_a_conversation_is_trained_as_the_text_that_it_renders_to() -> None:
    renderer = make_renderer("chatml")
    messages = (Message("user", "What is it?"), Message("assistant", "A wheel."))
    encoded = objective(renderer).encode(Row("1", "a:1", messages=messages))
    assert renderer.tokens.decode(encoded.ids_T.tolist()) == renderer.render(messages)
    assert encoded.target_T[1:].all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "encoder-decoder"}, "only decodes"),
        ({"train": TrainSpec(objective="pretrain", passages=2)}, "no prompt to put passages into"),
        ({"train": TrainSpec(objective="pretrain", best_by="metric")}, "no answers to score"),
    ],
)
def test_what_does_not_go_together_is_told(change: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make_objective("pretrain", ObjectiveContext(make_renderer("chatml"), **change))  # type: ignore[arg-type]


def test_a_document_with_a_weight_is_refused() -> None:
    with pytest.raises(BadInput, match="weigh its source"):
        objective().encode(Row("1", "a:1", text="a", weight=2.0))
