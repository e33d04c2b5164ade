"""Sampling draws from the distribution that temperature, top-k and top-p define."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luthier.generation.sampling import FIRST_CANDIDATES, choose, uniform_numbers
from luthier.generation.settings import Settings
from luthier.ground.spec import GenerationSpec


def allowed_distribution(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """The plain definition, token by token."""
    scaled = logits.astype(np.float64) / temperature
    order = np.argsort(-scaled, kind="stable")
    if top_k:
        order = order[:top_k]
    weights = np.exp(scaled[order] - scaled[order].max())
    weights /= weights.sum()
    before = np.concatenate([[0.0], np.cumsum(weights)[:-1]])
    keep = before < top_p
    keep[0] = True
    probability = np.zeros_like(scaled)
    probability[order[keep]] = weights[keep] / weights[keep].sum()
    return probability


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.5, 0, 1.0), (1.0, 5, 1.0), (1.3, 0, 0.7), (1.0, 9, 0.5)]
)
@pytest.mark.parametrize("vocabulary", [30, FIRST_CANDIDATES + 200])
def test_frequencies_match_the_definition(temperature: float, top_k: int, top_p: float, vocabulary: int) -> None:
    logits = np.random.default_rng(0).normal(size=vocabulary).astype(np.float32) * 3
    expected = allowed_distribution(logits, temperature, top_k, top_p)
    draws = 4000
    uniform = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws  # an even grid: no luck involved
    settings = Settings(temperature=temperature, top_k=top_k, top_p=top_p)
    ids = choose(torch.tensor(logits).expand(draws, -1), settings, uniform)
    seen = np.bincount(ids.numpy(), minlength=vocabulary) / draws
    assert np.abs(seen - expected).max() < 2 / draws
    assert (seen[expected == 0] == 0).all()


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 5))
def test_a_sure_token_is_always_drawn(uniform: float, sure: int) -> None:
    logits = torch.full((1, 6), -1e4)
    logits[0, sure] = 0.0
    drawn = choose(logits, Settings(temperature=1.0), torch.tensor([uniform], dtype=torch.float64))
    assert drawn.item() == sure


def test_a_tiny_nucleus_is_the_likeliest_token() -> None:
    logits = torch.randn(20, 700, generator=torch.Generator().manual_seed(0))
    uniform = torch.linspace(0, 0.999, 20, dtype=torch.float64)
    drawn = choose(logits, Settings(temperature=1.0, top_p=1e-6), uniform)
    assert torch.equal(drawn, logits.argmax(-1))


def test_uniform_numbers_belong_to_rows() -> None:
    together = uniform_numbers(7, [0, 1, 2], 5)
    assert torch.equal(uniform_numbers(7, [2], 5)[0], together[2])
    assert torch.equal(uniform_numbers(7, [1, 0], 3), together[[1, 0], :3])
    assert not torch.equal(uniform_numbers(8, [0], 5)[0], together[0])
    assert together.unique().numel() == 15


def test_settings_come_from_the_spec() -> None:
    spec = GenerationSpec(max_new_tokens=9, temperature=0.5, top_p=0.9, top_k=3, seed=4, batch_size=2)
    assert Settings.from_spec(spec, stop=("\n",)) == Settings(9, 0.5, 0.9, 3, 4, 2, ("\n",))
    assert not Settings.from_spec(spec).greedy and Settings().greedy
