"""Schedules agree with NumPy; AdamW's state survives being named and put back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from luthier.ground.errors import BadInput
from luthier.ground.spec import TrainSpec
from luthier.training.optimizer import make_adamw, optimizer_tensors, rate_at, restore_optimizer, warmup_steps


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


def _train(trainable: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in trainable.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def _parameters() -> dict[str, nn.Parameter]:
    return {"w": nn.Parameter(torch.ones(3, 2)), "b": nn.Parameter(torch.ones(3))}


def test_state_put_back_goes_on_bit_equal() -> None:
    spec = TrainSpec(weight_decay=0.1)
    whole, part, rest = _parameters(), _parameters(), _parameters()
    optimizer = make_adamw(whole, spec)
    _train(whole, optimizer, 3, seed=0)
    _train(whole, optimizer, 2, seed=1)
    optimizer = make_adamw(part, spec)
    _train(part, optimizer, 3, seed=0)
    tensors = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer, part).items()}
    assert set(tensors) == {f"{key}/{name}" for key in ("exp_avg", "exp_avg_sq", "step") for name in ("w", "b")}
    for name, parameter in rest.items():
        parameter.data.copy_(part[name].data)
    optimizer = make_adamw(rest, spec)
    restore_optimizer(optimizer, rest, tensors)
    _train(rest, optimizer, 2, seed=1)
    assert all(torch.equal(whole[name], rest[name]) for name in whole)


def test_weight_decay_acts_on_matrices_only() -> None:
    parameters = _parameters()
    optimizer = make_adamw(parameters, TrainSpec(weight_decay=0.5, learning_rate=0.1))
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(parameters["w"], torch.tensor(0.95))
    assert torch.equal(parameters["b"], torch.ones(3))


def test_state_of_another_shape_is_refused() -> None:
    parameters = _parameters()
    with pytest.raises(BadInput, match='"w" has another shape'):
        restore_optimizer(make_adamw(parameters, TrainSpec()), parameters, {"exp_avg/w": torch.zeros(2, 2)})
