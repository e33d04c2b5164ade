"""Supervised finetuning of encoder-decoders: the kit, and transformers' own loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from luthier.ground.errors import BadInput
from luthier.ground.spec import TrainSpec
from luthier.models.seq2seq import start_ids
from luthier.objectives.base import ObjectiveContext, make_objective
from luthier.objectives.conformance import check_objective
from luthier.objectives.sft_seq2seq import Seq2SeqFinetuning
from luthier.rows.packing import one_pack
from luthier.rows.source import SourceRenderer
from luthier.rows.template import RowRefused
from luthier.rows.types import Message, Row
from models.seq2seq_models import SEQ2SEQ, seq2seq_tokenizer, tiny_seq2seq
from objectives.test_objectives import cross_entropy_in_numpy

ROWS = [
    Row(id=str(i), place=f"t:{i + 1}", weight=weight, messages=(Message("user", ask), Message("assistant", answer)))
    for i, (ask, answer, weight) in enumerate(
        [("abc", "de", 1.0), ("fghij klm", "k", 1.0), ("l", "mnopq", 1.0), ("rs", "", 1.0), ("tu v", "tuv", 1.0)]
    )
]


def sft(model: PreTrainedModel, **train: object) -> Seq2SeqFinetuning:
    renderer = SourceRenderer(seq2seq_tokenizer(), start_ids=start_ids(model.config))
    spec = TrainSpec.model_validate(train)
    made = make_objective("sft", ObjectiveContext(renderer, spec, architecture="encoder-decoder", config=model.config))
    assert isinstance(made, Seq2SeqFinetuning)
    return made


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_it_passes_the_kit(family: str) -> None:
    model = _in_float64(tiny_seq2seq(family))
    check_objective(sft(model), model, ROWS, reference=cross_entropy_in_numpy)


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_it_is_the_loss_of_transformers(family: str) -> None:
    model = tiny_seq2seq(family)
    objective = sft(model)
    encoded = [objective.encode(row) for row in ROWS]
    labels = [torch.from_numpy(row.ids_T[1:])[None] for row in encoded]
    with torch.no_grad():
        sources = [torch.from_numpy(row.encoder_S)[None] for row in encoded]
        losses = [model(input_ids=s, labels=y).loss.item() * y.numel() for s, y in zip(sources, labels, strict=True)]
        loss, count = objective.loss(model, one_pack(encoded))
    assert count == sum(y.numel() for y in labels)
    assert loss.item() == pytest.approx(sum(losses), rel=1e-5)


def test_weights_count_as_rows() -> None:
    model = tiny_seq2seq("t5")
    objective = sft(model)
    twice = [objective.encode(row) for row in [*ROWS, ROWS[1]]]
    weighted = [objective.encode(row) for row in ROWS]
    heavy = Row(id="1", place="t:2", messages=ROWS[1].messages, weight=2.0)
    weighted[1] = objective.encode(heavy)
    a, b = objective.loss(model, one_pack(twice)), objective.loss(model, one_pack(weighted))
    assert a[1] == b[1]
    assert a[0].item() == pytest.approx(b[0].item(), rel=1e-6)


def test_a_prompt_loss_has_no_meaning() -> None:
    with pytest.raises(BadInput, match=r"train.prompt_loss_weight.*the encoder reads the prompt"):
        sft(tiny_seq2seq("t5"), prompt_loss_weight=0.1)


def test_an_answer_that_is_not_trained_has_no_target() -> None:
    row = Row("1", "t:1", (Message("user", "a"), Message("assistant", "b", train=False)))
    encoded = sft(tiny_seq2seq("t5")).encode(row)
    assert not encoded.target_T.any()
    assert np.array_equal(encoded.ids_T[:1], [0])


def test_a_side_beyond_learned_positions_is_refused_by_its_row() -> None:
    row = Row("1", "t:9", (Message("user", "a"), Message("assistant", "b" * 70)))
    with pytest.raises(RowRefused, match="t:9: the answer has 72 tokens and the model's positions end at 64"):
        sft(tiny_seq2seq("bart")).encode(row)
    assert sft(tiny_seq2seq("t5")).encode(row).target_tokens == 71


def _in_float64(model: PreTrainedModel) -> PreTrainedModel:
    """Give the model norms that do not round to float32, in which no finite difference says anything."""
    for path, module in list(model.named_modules()):
        if type(module).__name__ in ("T5LayerNorm", "MT5LayerNorm"):
            norm = nn.RMSNorm(module.weight.shape[0], eps=module.variance_epsilon)
            norm.weight = module.weight
            model.set_submodule(path, norm)
    return model
