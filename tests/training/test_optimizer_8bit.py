"""Block-wise 8-bit state: the codes against NumPy's nearest, the optimizer against float32 AdamW."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import tiny_run, tiny_spec
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from luthier.ground.spec import TrainSpec
from luthier.training.optimizers import adamw8bit
from luthier.training.optimizers.adamw8bit import AdamW8bit
from luthier.training.optimizers.blockwise import BLOCK, dequantize, dynamic_map, quantize
from luthier.training.optimizers.updates import Updates


def _nearest_in_numpy(values: np.ndarray, signed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest values that a code can stand for, and how far they are apart there."""
    codes, padded = dynamic_map(signed).astype(np.float64), np.zeros(-(-len(values) // BLOCK) * BLOCK)
    padded[: len(values)] = values
    scale = np.abs(padded.reshape(-1, BLOCK)).max(axis=1).repeat(BLOCK)[: len(values)]
    unit = values / np.maximum(scale, 1e-38)
    place = np.abs(unit[:, None] - codes).argmin(axis=1)
    return codes[place] * scale, scale


@given(seed=st.integers(0, 999), size=st.integers(1, 700), signed=st.booleans(), power=st.integers(1, 6))
def test_codes_are_the_nearest_in_numpy(seed: int, size: int, signed: bool, power: int) -> None:
    values = np.random.default_rng(seed).standard_normal(size).astype(np.float32) ** power
    values = values if signed else np.abs(values)
    codes, scales = quantize(torch.from_numpy(values), signed=signed)
    found = dequantize(codes, scales, signed=signed).numpy()
    nearest, scale = _nearest_in_numpy(values.astype(np.float64), signed)
    slack = 0.002 * np.abs(values) + 1e-6 * scale
    assert (np.abs(found - values) <= np.abs(nearest - values) + slack).all()
    assert codes.dtype == torch.uint8 and len(scales) == -(-size // BLOCK)


@pytest.mark.parametrize("signed", [True, False])
def test_what_is_coded_once_is_coded_the_same_again(signed: bool) -> None:
    codes = torch.arange(256).to(torch.uint8)
    values = dequantize(codes, torch.tensor([3.0]), signed=signed)
    assert torch.equal(quantize(values, signed=signed)[0], codes)
    assert torch.equal(dequantize(codes[:7], torch.tensor([0.0]), signed=signed), torch.zeros(7)), "fresh state is zero"


@pytest.mark.parametrize("signed", [True, False])
def test_the_map_is_that_of_the_paper(signed: bool) -> None:
    values = dynamic_map(signed)
    assert len(set(values.tolist())) == 256 and values.max() == 1.0 and 0.0 in values
    top = values[(values > 0.1) & (values < 1.0)]
    assert len(top) == (64 if signed else 128)
    if importlib.util.find_spec("bitsandbytes"):
        from bitsandbytes.functional import create_dynamic_map

        np.testing.assert_allclose(values, np.sort(create_dynamic_map(signed=signed).numpy()), atol=1e-7)


def test_it_follows_float32_adamw_on_a_regression() -> None:
    """After 200 steps both have the same loss within 5 %, and weights apart by less than 5 % of the way they went."""
    generator = torch.Generator().manual_seed(0)
    inputs, wanted = torch.randn(256, 96, generator=generator), torch.randn(96, 64, generator=generator)
    start = torch.randn(96, 64, generator=generator)
    losses, weights = {}, {}
    for name in ("adamw", "adamw8bit"):
        weight = nn.Parameter(start.clone())
        updates = Updates({"w": weight}, TrainSpec(optimizer=name))
        for step in range(200):
            loss = (inputs @ (weight - wanted)).square().mean()
            loss.backward()
            updates.step(1e-2 * (1 - step / 200), 1.0)
            weight.grad = None
        losses[name], weights[name] = loss.item(), weight.detach()
    assert losses["adamw8bit"] == pytest.approx(losses["adamw"], rel=0.05)
    assert (weights["adamw8bit"] - weights["adamw"]).norm() < 0.05 * (weights["adamw"] - start).norm()


def test_it_follows_float32_adamw_on_a_language_model(tmp_path: object) -> None:
    runs = {
        name: tiny_run(tmp_path / name, tiny_spec(optimizer=name, epochs=6), model=_model(), dev=[])  # type: ignore[operator]
        for name in ("adamw", "adamw8bit")
    }
    exact, coded = (np.array([record.loss for record in runs[name].history]) for name in runs)
    assert not np.array_equal(exact, coded)
    np.testing.assert_allclose(coded, exact, rtol=0.03)
    assert coded[-1] < 0.8 * coded[0]


def test_a_step_equals_adamw_with_coded_state_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight, three steps, in pieces of two blocks: what a plain loop over whole arrays gives."""
    monkeypatch.setattr(adamw8bit, "PIECE", 2 * BLOCK)
    generator = torch.Generator().manual_seed(1)
    weight = nn.Parameter(torch.randn(67, 71, generator=generator))
    expected, first, root = weight.detach().flatten().clone(), _zeros(weight), _zeros(weight)
    optimizer = AdamW8bit([{"params": [weight]}], lr=0.01, weight_decay=0.1)
    for step in (1, 2, 3):
        weight.grad = torch.randn(67, 71, generator=generator)
        gradient = weight.grad.flatten()
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * root**2 + 0.001 * gradient**2
        expected = expected * (1 - 0.001)
        expected -= 0.01 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        first = dequantize(*quantize(first, signed=True), signed=True)
        codes, scales = quantize(second.sqrt(), signed=False)
        root = dequantize(codes.clamp(min=1), scales, signed=False)
        optimizer.step()
        torch.testing.assert_close(weight.detach().flatten(), expected, rtol=1e-5, atol=1e-6)


def test_state_takes_two_bytes_and_small_weights_stay_float32() -> None:
    weights = [nn.Parameter(torch.ones(64, 64)), nn.Parameter(torch.ones(64, 63))]
    optimizer = AdamW8bit([{"params": weights}], lr=0.01)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    bytes_of = [sum(t.nbytes for t in optimizer.state[weight].values()) / weight.numel() for weight in weights]
    assert bytes_of[0] < 2.05 and bytes_of[1] > 8


def test_a_gradient_of_zero_and_one_of_great_range_move_nothing_far() -> None:
    weight = nn.Parameter(torch.zeros(64, 64))
    optimizer = AdamW8bit([{"params": [weight]}], lr=0.01)
    scales = torch.logspace(-18, 0, 4096).view(64, 64)
    for _ in range(30):
        weight.grad = scales * torch.randn(64, 64, generator=torch.Generator().manual_seed(3)).sign()
        optimizer.step()
    assert weight.isfinite().all() and weight.abs().max() < 30 * 0.011, "no update is larger than AdamW's"


def _zeros(weight: Tensor) -> Tensor:
    return torch.zeros(weight.numel())


def _model() -> LlamaForCausalLM:
    """A model whose matrices are large enough for 8-bit state."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=80, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2)
    )
