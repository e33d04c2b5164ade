"""Scaled rotary positions against transformers' own functions and against the papers' formulas in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from luthier.models.rope import Method, pretrained_window, raised_base, scaled_rope

ORIGINAL, FACTOR, SIZE, THETA = 256, 4.0, 32, 10_000.0
PLAIN = {"rope_type": "default", "rope_theta": THETA}
PAIR = np.arange(SIZE // 2)
FREQUENCIES = THETA ** (-2.0 * PAIR / SIZE)
TURNS = ORIGINAL * FREQUENCIES / (2 * math.pi)


def _linear() -> np.ndarray:
    return FREQUENCIES / FACTOR


def _ntk() -> np.ndarray:
    return (THETA * FACTOR ** (SIZE / (SIZE - 2))) ** (-2.0 * PAIR / SIZE)


def _base() -> np.ndarray:
    """The pair that turns once in the old window, extended to real numbers, turns once in the new one."""
    critical = SIZE * math.log(ORIGINAL / (2 * math.pi)) / (2 * math.log(THETA))
    base = (FACTOR * ORIGINAL / (2 * math.pi)) ** (SIZE / (2 * critical))
    return base ** (-2.0 * PAIR / SIZE)


def _yarn() -> np.ndarray:
    """Equation 13 of the paper with its ramp over pairs, the ends rounded outwards as in the authors' code."""

    def pair_that_turns(times: float) -> float:
        return SIZE * math.log(ORIGINAL / (times * 2 * math.pi)) / (2 * math.log(THETA))

    low, high = max(math.floor(pair_that_turns(32)), 0), min(math.ceil(pair_that_turns(1)), SIZE - 1)
    scaled = np.clip((PAIR - low) / (high - low), 0, 1)
    return FREQUENCIES * (1 - scaled) + FREQUENCIES / FACTOR * scaled


def _llama3() -> np.ndarray:
    smooth = np.clip((TURNS - 1) / (4 - 1), 0, 1)
    return (1 - smooth) * FREQUENCIES / FACTOR + smooth * FREQUENCIES


def _longrope() -> np.ndarray:
    ramp = np.clip(1 - np.log(TURNS) / np.log(32), 0, 1)
    return FREQUENCIES / FACTOR**ramp


REFERENCE = {"linear": _linear, "ntk": _ntk, "base": _base, "yarn": _yarn, "llama3": _llama3, "longrope": _longrope}
SHARPENED = {
    "yarn": 0.1 * math.log(FACTOR) + 1,
    "longrope": math.sqrt(1 + math.log(FACTOR) / math.log(ORIGINAL)),
}


def _rope(method: Method, **changes: Any) -> dict[str, Any]:
    return scaled_rope({**PLAIN, **changes}, method, FACTOR, original=ORIGINAL, size=SIZE)


def _config(rope: dict[str, Any]) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=2 * SIZE, num_attention_heads=2, max_position_embeddings=1024, rope_parameters=dict(rope)
    )


@pytest.mark.parametrize("method", REFERENCE)
def test_frequencies_are_those_of_the_papers_as_transformers_reads_them(method: Method) -> None:
    config = _config(_rope(method))
    module = LlamaRotaryEmbedding(config)
    np.testing.assert_allclose(module.inv_freq.numpy(), REFERENCE[method](), rtol=2e-5)
    assert module.attention_scaling == pytest.approx(SHARPENED.get(method, 1.0))


@pytest.mark.parametrize("method", ["linear", "yarn", "llama3", "longrope"])
def test_frequencies_of_long_texts_are_those_of_transformers_functions(method: Method) -> None:
    rope = _rope(method)
    found, sharpening = ROPE_INIT_FUNCTIONS[rope["rope_type"]](_config(rope), seq_len=1024)
    np.testing.assert_allclose(found.numpy(), REFERENCE[method](), rtol=2e-5)
    assert sharpening == pytest.approx(SHARPENED.get(method, 1.0))


def test_ntk_is_what_transformers_dynamic_kind_has_at_the_full_window() -> None:
    dynamic = {**PLAIN, "rope_type": "dynamic", "factor": FACTOR}
    config = LlamaConfig(
        hidden_size=2 * SIZE, num_attention_heads=2, max_position_embeddings=ORIGINAL, rope_parameters=dynamic
    )
    # b · (s·L/T − (s − 1))^(d/(d−2)) is b · s^(d/(d−2)) at L = T · (2s − 1) / s
    length = ORIGINAL * (2 * FACTOR - 1) / FACTOR
    found, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, seq_len=int(length))
    np.testing.assert_allclose(found.numpy(), _ntk(), rtol=2e-5)


def test_slowest_pair_of_ntk_is_divided_by_the_factor_and_the_fastest_stays() -> None:
    np.testing.assert_allclose(_ntk()[[0, -1]] / FREQUENCIES[[0, -1]], [1.0, 1 / FACTOR])


def test_a_base_that_is_given_is_taken() -> None:
    rope = scaled_rope(PLAIN, "base", FACTOR, original=ORIGINAL, size=SIZE, base=500_000.0)
    assert rope == {"rope_type": "default", "rope_theta": 500_000.0}


def test_derived_base_keeps_the_turns_of_the_critical_pair() -> None:
    share = math.log(4096 / (2 * math.pi)) / math.log(THETA)  # of the pairs turn at least once in 4096 tokens
    assert 16384 * raised_base(THETA, 4096, 4.0) ** -share == pytest.approx(2 * math.pi)


def test_another_scaling_is_replaced_and_the_rotated_share_stays() -> None:
    rope = _rope("linear", partial_rotary_factor=0.5, factor=2.0, beta_fast=16, rope_type="yarn", mscale=1.0)
    assert rope == {"rope_type": "linear", "rope_theta": THETA, "factor": FACTOR, "partial_rotary_factor": 0.5}


@pytest.mark.parametrize(
    ("rope", "window", "wanted"),
    [
        (PLAIN, 1024, 1024),
        ({"rope_type": "linear", "factor": 4.0}, 1024, 256),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, 1024, 128),
    ],
)
def test_window_before_the_scaling(rope: dict[str, Any], window: int, wanted: int) -> None:
    assert pretrained_window(rope, window) == wanted
