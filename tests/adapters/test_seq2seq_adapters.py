"""Adapters in encoder-decoders: which layers, PEFT's reading of them, and all weights with their heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from luthier.adapters.base import load_adapter, remove_adapter
from luthier.adapters.full import FULL
from luthier.adapters.lora import LORA
from luthier.adapters.targets import choose_targets
from luthier.ground.errors import BadInput
from luthier.ground.spec import AdapterSpec
from luthier.models.find import find_model
from luthier.models.load import load_model
from models.seq2seq_models import SEQ2SEQ, tiny_seq2seq, tiny_seq2seq_folder

T5_ATTENTION, BART_ATTENTION = {"q", "k", "v", "o"}, {"q_proj", "k_proj", "v_proj", "out_proj"}


@pytest.mark.parametrize(
    ("family", "group", "leaves", "count"),
    [
        ("t5", "all-linear", T5_ATTENTION | {"wi", "wo"}, 2 * 6 + 2 * 10),
        ("t5", "attention", T5_ATTENTION, 2 * 4 + 2 * 8),
        ("t5", "mlp", {"wi", "wo"}, 8),
        ("flan", "mlp", {"wi_0", "wi_1", "wo"}, 12),
        ("mt5", "attention", T5_ATTENTION, 24),
        ("bart", "all-linear", BART_ATTENTION | {"fc1", "fc2"}, 32),
        ("bart", "attention", BART_ATTENTION, 24),
        ("bart", "mlp", {"fc1", "fc2"}, 8),
    ],
)
def test_groups_cover_both_sides(family: str, group: str, leaves: set[str], count: int) -> None:
    paths = choose_targets(tiny_seq2seq(family), group)
    assert {path.rsplit(".", 1)[-1] for path in paths} == leaves
    assert len(paths) == count


def test_last_layers_are_of_each_side() -> None:
    model = tiny_seq2seq("t5")
    paths = choose_targets(model, "all-linear", 1)
    assert {path.rsplit(".layer.", 1)[0] for path in paths} == {"encoder.block.1", "decoder.block.1"}
    with pytest.raises(BadInput, match="the model has 2 layers, not 3"):
        choose_targets(model, "all-linear", 3)


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_peft_reads_the_adapter_to_the_same_scores(tmp_path: Path, family: str) -> None:
    model, spec = tiny_seq2seq(family).requires_grad_(False), AdapterSpec(rank=4, alpha=12)
    LORA.inject(model, spec, seed=0)
    generator = torch.Generator().manual_seed(5)
    for weight in LORA.trainable(model).values():
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    ours = _logits(model)
    LORA.save(model, tmp_path / "adapter", spec, None)
    theirs = PeftModel.from_pretrained(tiny_seq2seq(family), str(tmp_path / "adapter"))
    assert theirs.peft_config["default"].task_type == "SEQ_2_SEQ_LM"
    assert (_logits(theirs) - ours).abs().max() < 1e-4
    remove_adapter(model)
    assert torch.equal(_logits(model), _logits(tiny_seq2seq(family)))
    load_adapter(model, tmp_path / "adapter")
    assert torch.equal(_logits(model), ours)


@pytest.mark.parametrize("family", SEQ2SEQ)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_weights_are_saved_loaded_and_given_back(tmp_path: Path, family: str, precision: str) -> None:
    loaded = load_model(find_model(str(tiny_seq2seq_folder(tmp_path / "base", family))), precision)  # type: ignore[arg-type]
    model, before = loaded.model, _logits(loaded.model)
    FULL.inject(model, AdapterSpec(kind="full"), seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in FULL.trainable(model).values():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    trained = _logits(model)
    FULL.save(model, tmp_path / "full", AdapterSpec(kind="full"), loaded.provenance)
    assert not torch.equal(trained, before)
    remove_adapter(model)
    assert torch.equal(_logits(model), before)
    load_adapter(model, tmp_path / "full")
    assert torch.equal(_logits(model), trained)
    again = load_model(find_model(str(tmp_path / "full")), precision)  # type: ignore[arg-type]
    # not to the bit: BART's bias of the logits, a buffer, has the precision of its file
    assert torch.allclose(_logits(again.model).float(), trained.float(), atol=0 if precision == "fp32" else 0.02)


def _logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        ids = {"input_ids": torch.tensor([[7, 8, 9, 2]]), "decoder_input_ids": torch.tensor([[0, 11, 12]])}
        out: Tensor = model(**ids).logits
    return out
