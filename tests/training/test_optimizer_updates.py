"""Stochastic rounding, and updates in backward: the same numbers as the plain step, and no silent torn state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_training import tiny_model, tiny_objective, tiny_rows, tiny_run, tiny_spec, trainable_of
from torch import Tensor, nn

from luthier.adapters.base import get_kind
from luthier.ground.errors import Refused
from luthier.ground.spec import AdapterSpec, TrainSpec
from luthier.objectives.base import ObjectiveContext
from luthier.objectives.sft import SupervisedFinetuning
from luthier.rows.packing import one_pack, pack_rows
from luthier.rows.types import Encoded, Pack
from luthier.training.checkpoint import saved_steps
from luthier.training.optimizers.rounding import round_stochastically
from luthier.training.optimizers.updates import Updates
from luthier.training.step import TorchStep


def _rounded(exact: Tensor, seed: int) -> Tensor:
    into = torch.empty_like(exact, dtype=torch.bfloat16)
    round_stochastically(into, exact.clone(), torch.Generator().manual_seed(seed))
    return into


def test_rounding_is_to_a_neighbour_unbiased_and_seeded() -> None:
    exact = torch.randn(7, 13, generator=torch.Generator().manual_seed(0))
    drawn = torch.stack([_rounded(exact, seed) for seed in range(4000)]).float()
    spacing = 2.0 ** (exact.abs().log2().floor() - 7)
    assert ((drawn - exact).abs() < spacing).all(), "one of the two neighbours"
    error = (drawn.mean(dim=0) - exact).abs() / spacing
    assert error.max() < 5 * 0.5 / 4000**0.5, "five standard errors of the most uncertain coin"
    assert torch.equal(_rounded(exact, 1), _rounded(exact, 1)) and not torch.equal(
        _rounded(exact, 1), _rounded(exact, 2)
    )


def test_rounding_keeps_what_bfloat16_can_say() -> None:
    exact = torch.tensor([0.0, -0.0, 1.0, -2.5, 3.3895313892515355e38, 1e-40]).bfloat16().float()
    assert torch.equal(_rounded(exact, 0).float(), exact)


def test_updates_too_small_for_nearest_rounding_move_weights_on_average() -> None:
    """A thousand updates of 1/2000 of a weight near 1 are half of it, and nothing by rounding to nearest."""
    weight = nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
    nearest = torch.ones(4096, dtype=torch.bfloat16)
    updates = Updates({"w": weight}, TrainSpec())
    for _ in range(1000):
        weight.grad = torch.ones_like(weight)
        updates.step(5e-4, 1.0)
        nearest -= 5e-4
    assert torch.equal(nearest, torch.ones_like(nearest))
    assert weight.float().mean().item() == pytest.approx(0.5, abs=0.01)


def _full(masters: str, dtype: torch.dtype, **changes: Any) -> tuple[nn.Module, TorchStep, Any]:
    model, kind, spec = tiny_model().to(dtype), get_kind("full"), AdapterSpec(kind="full", masters=masters)
    kind.inject(model, spec, seed=0)
    trained = kind.trainable(model)
    changes = {"max_grad_norm": None, "adapter": spec, "precision": "bf16", **changes}
    return model, TorchStep(model, tiny_objective(), trained, tiny_spec(**changes)), kind


@pytest.mark.parametrize("tokens", [24, 999], ids=["several packs", "one pack"])
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
@pytest.mark.parametrize(
    ("masters", "dtype"), [("fp32", torch.float32), ("fp32", torch.bfloat16), ("none", torch.bfloat16)]
)
def test_updates_in_backward_are_bit_equal_to_the_plain_step(
    masters: str, dtype: torch.dtype, optimizer: str, tokens: int
) -> None:
    ends = []
    for in_backward in (False, True):
        model, step, kind = _full(masters, dtype, optimizer_in_backward=in_backward, optimizer=optimizer)
        outcomes = [step.run(pack_rows(tiny_rows(6, seed), tokens), 1e-2) for seed in range(4)]
        assert all(weight.grad is None for weight in [*model.parameters(), *kind.trainable(model).values()])
        ends.append((outcomes, {name: tensor.clone() for name, tensor in step.tensors().items()}))
        kind.remove(model)
    (plain, plain_tensors), (early, early_tensors) = ends
    assert plain == early
    assert plain_tensors.keys() == early_tensors.keys()
    assert all(torch.equal(plain_tensors[name], early_tensors[name]) for name in plain_tensors)


def test_only_one_gradient_is_there_at_a_time() -> None:
    model = tiny_model()
    step = TorchStep(
        model, tiny_objective(), trainable_of(model), tiny_spec(optimizer_in_backward=True, max_grad_norm=None)
    )
    alive: list[int] = []
    for weight in model.parameters():
        weight.register_hook(lambda _: alive.append(sum(p.grad is not None for p in model.parameters())))
    step.run([one_pack(tiny_rows(4))], 1e-2)
    assert len(alive) >= len(list(model.parameters())) and max(alive) <= 1


class _BrokenGradient(SupervisedFinetuning):
    """The gradient of the first layer is not a number for rows that hold the token 29; backward gets there last."""

    def __init__(self) -> None:
        super().__init__(ObjectiveContext(None))

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        loss, count = super().loss(model, pack)
        if 29 not in pack.ids_T:
            return loss, count
        weight = model.get_parameter("model.layers.0.input_layernorm.weight")
        return loss + torch.sqrt((weight[0] - weight[0].detach()).clamp(min=0)), count


def test_a_torn_step_names_the_row_and_is_not_saved(tmp_path: Path) -> None:
    rows = [Encoded(row.ids_T % 29, row.target_T, row.place) for row in tiny_rows(16)]
    rows[3].ids_T[-1] = 29
    spec = tiny_spec(optimizer_in_backward=True, max_grad_norm=None, rows_per_step=1, save_every=2)
    with pytest.raises(Refused, match=r"train.jsonl:4 is not finite.*had changed weights already.*in .*step-0") as at:
        tiny_run(tmp_path, spec, objective=_BrokenGradient(), train=rows, dev=[], pack_tokens=99)
    failed = int(str(at.value).split("step ")[1].split(":")[0])
    assert max(saved_steps(tmp_path)) == 2 * ((failed - 1) // 2) < failed
    with pytest.raises(Refused, match="not finite"):  # and what was saved goes on to the very same place
        tiny_run(tmp_path, spec, objective=_BrokenGradient(), train=rows, dev=[], pack_tokens=99, resume=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "max_grad_norm: null"),
        ({"max_grad_norm": None, "precision": "fp16"}, "bf16 or fp32"),
        ({"max_grad_norm": None, "on_spike": "skip"}, "on_spike: ignore"),
    ],
)
def test_what_needs_all_gradients_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainSpec(optimizer_in_backward=True, **changes)


def test_long_steps_are_told_that_nothing_is_saved(tmp_path: Path) -> None:
    told: list[Any] = []
    spec = tiny_spec(optimizer_in_backward=True, max_grad_norm=None, epochs=1)
    tiny_run(tmp_path, spec, pack_tokens=24, tell=told.append)
    assert any("saves no memory" in event.get("text", "") for event in told)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16 without masters"])
@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "adafactor"])
def test_a_resumed_run_is_bit_equal(tmp_path: Path, optimizer: str, in_backward: bool, dtype: torch.dtype) -> None:
    """By the fast body and in the loop, over epochs, as a user would have it."""
    spec = tiny_spec(optimizer=optimizer, optimizer_in_backward=in_backward, max_grad_norm=None, precision="bf16")
    how: dict[str, Any] = {"dev": [], "pack_tokens": 99}
    whole = tiny_run(tmp_path / "whole", spec, model=tiny_model().to(dtype), **how)
    tiny_run(tmp_path / "run", spec, model=tiny_model().to(dtype), deadline_s=0.0, **how)
    resumed = tiny_run(tmp_path / "run", spec, model=tiny_model().to(dtype), resume=True, **how)
    for name in ("training.safetensors", "adapter/weights.safetensors"):
        assert (whole.adapter.parent / name).read_bytes() == (resumed.adapter.parent / name).read_bytes()
    assert whole.history[-1].loss < whole.history[0].loss
    if in_backward:
        plain = spec.model_copy(update={"optimizer_in_backward": False})
        late = tiny_run(tmp_path / "late", plain, model=tiny_model().to(dtype), **how)
        assert [record.loss for record in late.history] == [record.loss for record in whole.history]
