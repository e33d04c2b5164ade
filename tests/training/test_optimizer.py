"""Schedules agree with NumPy; every optimizer's state survives being named and put back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from luthier.ground.errors import BadInput
from luthier.ground.spec import TrainSpec
from luthier.training.optimizers.base import OPTIMIZERS
from luthier.training.optimizers.schedule import rate_at, warmup_steps
from luthier.training.optimizers.updates import Updates


def _rates_in_numpy(total: int, warmup: int, peak: float, schedule: str) -> np.ndarray:
    steps = np.arange(total)
    progress = np.clip((steps - warmup) / max(1, total - warmup), 0, None)
    shape = {"linear": 1 - progress, "cosine": (1 + np.cos(np.pi * progress)) / 2, "constant": np.ones(total)}[schedule]
    return np.where(steps < warmup, peak * (steps + 1) / (warmup + 1), peak * shape)


@given(
    total=st.integers(1, 200),
    warmup=st.one_of(st.sampled_from([0.0, 0.1, 0.37, 0.99]), st.integers(1, 300).map(float)),
    schedule=st.sampled_from(["linear", "cosine", "constant"]),
)
def test_rates_agree_with_numpy(total: int, warmup: float, schedule: str) -> None:
    spec = TrainSpec(learning_rate=0.02, warmup=warmup, schedule=schedule)
    rates = [rate_at(step, total, spec) for step in range(total)]
    np.testing.assert_allclose(rates, _rates_in_numpy(total, warmup_steps(total, spec), 0.02, schedule), rtol=1e-12)
    assert min(rates) > 0, "no step is wasted at rate zero"
    assert max(rates) <= 0.02


def test_the_shapes_by_hand() -> None:
    linear = TrainSpec(learning_rate=1.0, schedule="linear", warmup=0.2)
    assert [rate_at(step, 10, linear) for step in range(10)] == pytest.approx(
        [1 / 3, 2 / 3, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    long_warmup = TrainSpec(learning_rate=1.0, schedule="cosine", warmup=9)
    assert [rate_at(step, 3, long_warmup) for step in range(3)] == pytest.approx([0.1, 0.2, 0.3])
    assert rate_at(0, 1, TrainSpec(learning_rate=0.0)) == 0.0


@pytest.mark.parametrize(("warmup", "total", "steps"), [(0.1, 30, 3), (0.0, 30, 0), (1.0, 30, 1), (50.0, 30, 50)])
def test_warmup_is_a_share_or_a_number(warmup: float, total: int, steps: int) -> None:
    assert warmup_steps(total, TrainSpec(warmup=warmup)) == steps


NAMES = ["adamw", "adamw8bit", "adafactor"]


def _train(trainable: dict[str, nn.Parameter], updates: Updates, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in trainable.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        updates.step(1e-2, 0.5)


def _parameters(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(5)
    shapes = {"w": (70, 61), "b": (3,), "small": (3, 2)}  # w is large enough for 8 bit, and not a multiple of a block
    return {name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for name, shape in shapes.items()}


def test_the_listed_optimizers_are_all_tested() -> None:
    assert OPTIMIZERS.names() == sorted(NAMES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_state_put_back_goes_on_bit_equal(name: str, dtype: torch.dtype) -> None:
    spec = TrainSpec(weight_decay=0.1, optimizer=name)
    whole, part, rest = _parameters(dtype), _parameters(dtype), _parameters(dtype)
    updates = Updates(whole, spec)
    _train(whole, updates, 3, seed=0)
    _train(whole, updates, 2, seed=1)
    updates = Updates(part, spec)
    _train(part, updates, 3, seed=0)
    tensors = {name: tensor.clone() for name, tensor in updates.tensors().items()}
    fresh = {
        f"{key}/{n}": t for n, p in part.items() for key, t in OPTIMIZERS.get(name).fresh(p.shape, p.device).items()
    }
    assert {n: (t.shape, t.dtype) for n, t in fresh.items()} == {n: (t.shape, t.dtype) for n, t in tensors.items()}
    for key, parameter in rest.items():
        parameter.data.copy_(part[key].data)
    updates = Updates(rest, spec)
    updates.restore(tensors)
    _train(rest, updates, 2, seed=1)
    assert all(torch.equal(whole[key], rest[key]) for key in whole)
    assert not any(torch.equal(whole[key], start) for key, start in _parameters(dtype).items())


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_acts_on_matrices_only(name: str) -> None:
    parameters = {"w": nn.Parameter(torch.ones(3, 2)), "b": nn.Parameter(torch.ones(3))}
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    Updates(parameters, TrainSpec(weight_decay=0.5, optimizer=name)).step(0.1, 1.0)
    assert torch.allclose(parameters["w"], torch.tensor(0.95))
    assert torch.equal(parameters["b"], torch.ones(3))


@pytest.mark.parametrize(
    ("name", "key"), [("adamw", "exp_avg"), ("adamw8bit", "exp_avg_scale"), ("adafactor", "row_var")]
)
def test_state_of_another_shape_is_refused(name: str, key: str) -> None:
    with pytest.raises(BadInput, match='"w" has another shape'):
        Updates(_parameters(), TrainSpec(optimizer=name)).restore({f"{key}/w": torch.zeros(2, 2)})


def test_an_unknown_optimizer_is_named_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r'no optimizer called "adamw4bit".*adamw8bit'):
        Updates(_parameters(), TrainSpec(optimizer="adamw4bit"))
