"""The fast body, family by family, against plain transformers and PEFT running one row at a time.

One table of families, one of what is trained, one of ways to compute. Losses and gradients agree to 1e-5 in float32. In
bfloat16 both the fast body and transformers' modules are measured from float32 arithmetic on the same rounded weights:
the loss is within 0.1 %, and the gradient within 3 % and not farther than that of the modules, which round more often.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from engine_training import LORA, Gradients, loss_and_gradients, rows, shared_pack, training
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from luthier.adapters.base import get_kind
from luthier.adapters.lora import lora_layers
from luthier.rows.packing import one_pack
from luthier.training.engine.body import fast_body
from luthier.training.engine.families import FAMILIES
from models.tiny_models import tiny_model

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)
WAYS = {
    "as it is": {},
    "gate and up again": {"checkpointing": "selective"},
    "blocks again": {"checkpointing": "full"},
    "tiles": {"tile": 7},
    "tiles, blocks again": {"checkpointing": "full", "tile": 7},
}


# -- references ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def reference(family: str, trained: str, rounded: bool = False) -> tuple[float, Gradients]:
    """Loss and gradients of plain transformers with PEFT: eager attention, float32, one row at a time.

    Args:
        rounded: weights are first rounded to bfloat16.
    """
    model = tiny_model(family, attention="eager")
    if rounded:
        model = model.bfloat16().float()
    if "lora" in trained:
        return peft_reference(model, family, trained)
    model.requires_grad_(False)
    for weight in model.parameters():
        weight.requires_grad_(trained == "full" or weight.ndim == 1)
    return summed_rows(model, dict(model.named_parameters()))


def peft_reference(model: PreTrainedModel, family: str, trained: str) -> tuple[float, Gradients]:
    with training(family, trained) as (ours, weights):
        paths = list(lora_layers(ours))
        values = {name: weight.detach().clone() for name, weight in get_kind("lora").trainable(ours).items()}
    peft = get_peft_model(model, LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, target_modules=paths))
    theirs = dict(peft.named_parameters())
    named = {name: theirs[f"base_model.model.{name}.default.weight"] for name in values}
    with torch.no_grad():
        for name, value in values.items():
            named[name].copy_(value)
    return summed_rows(peft, {name: weight for name, weight in named.items() if name in weights})


def summed_rows(model: nn.Module, weights: dict[str, nn.Parameter]) -> tuple[float, Gradients]:
    total = torch.zeros(())
    for row in rows():
        ids_T, places = torch.from_numpy(row.ids_T), torch.from_numpy(np.flatnonzero(row.target_T))
        logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0]
        total = total + functional.cross_entropy(logits_TV[places - 1], ids_T[places], reduction="sum")
    total.backward()
    return total.item(), {name: weight.grad for name, weight in weights.items() if weight.grad is not None}


def assert_same(found: tuple[float, Gradients], wanted: tuple[float, Gradients], way: str, rtol: float = 1e-5) -> None:
    """The loss, and each gradient in norm; what is far below the others counts as a hundredth of the mean one."""
    assert found[0] == pytest.approx(wanted[0], rel=rtol), way
    assert found[1].keys() == wanted[1].keys()
    typical = float(torch.stack([gradient.norm() for gradient in wanted[1].values()]).mean())
    for name, gradient in wanted[1].items():
        assert found[1][name].shape == gradient.shape
        apart = float((found[1][name] - gradient).norm())
        assert apart <= rtol * max(float(gradient.norm()), typical / 100), (
            f"{way}, {name}: {apart / float(gradient.norm())}"
        )


def apart(found: Gradients, wanted: Gradients) -> float:
    """Return the distance of all gradients together, relative."""
    one, other = (torch.cat([x[name].float().flatten() for name in wanted]) for x in (found, wanted))
    return float((one - other).norm() / other.norm())


# -- families --------------------------------------------------------------------------------------------------------


@EVERY_FAMILY
@pytest.mark.parametrize("trained", ["lora", "lora of the last layer", "full", "norms and biases"])
def test_losses_and_gradients_are_those_of_transformers_and_peft(family: str, trained: str) -> None:
    wanted = reference(family, trained)
    with training(family, trained) as (model, weights):
        for name, way in WAYS.items():
            with fast_body(model, **way) as engine:  # type: ignore[arg-type]
                assert engine.name == "fast", engine.sentence
                for pack in (one_pack(rows()), shared_pack()):
                    assert_same(loss_and_gradients(model, weights, pack), wanted, name)


@EVERY_FAMILY
@pytest.mark.parametrize("trained", ["lora", "full"])
def test_bfloat16_is_as_near_to_float32_as_transformers_is(family: str, trained: str) -> None:
    wanted = reference(family, trained, rounded=True)
    with training(family, trained, torch.bfloat16) as (model, weights):
        general = loss_and_gradients(model, weights, one_pack(rows()))
        for way in ({}, {"checkpointing": "full", "tile": 7}):
            with fast_body(model, **way) as engine:  # type: ignore[arg-type]
                assert engine.name == "fast", engine.sentence
                for pack in (one_pack(rows()), shared_pack()):
                    found = loss_and_gradients(model, weights, pack)
                    assert found[0] == pytest.approx(wanted[0], rel=1e-3)
                    assert {gradient.dtype for gradient in found[1].values()} == {torch.float32}
                    assert apart(found[1], wanted[1]) <= min(0.03, 1.1 * apart(general[1], wanted[1]))
