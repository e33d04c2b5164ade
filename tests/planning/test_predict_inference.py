"""Answering: weights, cache and passes, against closed forms and other settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.planning.small import small_config
from tests.planning.test_scaled import small_t5
from transformers import PretrainedConfig

from luthier.planning.config import read_config
from luthier.planning.inference import decode_work, kv_cache_bytes, prompt_work
from luthier.planning.predict_inference import InferencePrediction, predict_inference
from luthier.planning.work import ModelFacts

CONFIGS = Path(__file__).parent / "configs"


def predict(config: PretrainedConfig, **changed: Any) -> InferencePrediction:
    asked = {"precision": "bf16", "base": None, "seq": 256, "batch": 4, "baseline_bytes": 0, **changed}
    return predict_inference(config, **asked)


def test_the_terms_sum_to_the_peak_and_tell_the_baseline() -> None:
    config = small_config("llama")
    one, two = predict(config), predict(config, baseline_bytes=10_000)
    assert one.peak_bytes == one.terms.total
    assert two.peak_bytes - one.peak_bytes == two.terms.overhead_bytes - one.terms.overhead_bytes == 10_000
    assert {moment.stage for moment in one.moments} == {"prompt", "decode"}
    assert one.peak_at in ("reading the prompts", "writing the answers")


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "mixtral"])
def test_the_cache_is_the_closed_form(model_type: str) -> None:
    config = small_config(model_type)
    for device, kv_bytes, itemsize in (("cuda", None, 2), ("cpu", None, 4), ("cpu", 1, 1), ("cuda", 4, 4)):
        predicted = predict(config, device=device, kv_bytes=kv_bytes)
        expected = kv_cache_bytes(12, 2, 16, 256, 4, itemsize)
        assert predicted.cache_bytes == expected
        assert predicted.terms.kv_cache_bytes == pytest.approx(expected, rel=0.01)


def test_slots_grow_with_a_long_answer() -> None:
    config = small_config("llama")
    predicted = predict(config, device="cuda", seq=400, new_tokens=380)
    room = 20 + 96
    while room < 400:
        room = int(room * 1.5)
    assert predicted.cache_bytes == kv_cache_bytes(12, 2, 16, room, 4, 2)
    assert predicted.peak_at == "writing the answers"


def test_windows_keep_the_cache_small() -> None:
    config = small_config("gemma2")  # every second layer sees 32 tokens
    predicted = predict(config, device="cuda", seq=400, new_tokens=200)
    windows = [32 if kind == "sliding_attention" else None for kind in config.layer_types]
    closed = kv_cache_bytes(12, 2, 16, 400, 4, 2, windows=windows)
    assert predicted.cache_bytes == pytest.approx(closed, rel=0.02)


def test_the_work_is_the_closed_form() -> None:
    config = small_config("llama")
    predicted = predict(config, device="cuda")
    block = 12 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 160)
    facts = ModelFacts(block_weights=block, head_weights=512 * 64, layers=12, query_width=64)
    token = decode_work(facts, 256, 4, 0, 0)
    assert predicted.work.flops == pytest.approx(token.flops + token.other_flops, rel=0.02)
    # What the slots multiply above the diagonal is in the trace and not in the closed form.
    prompt = prompt_work(facts, 255, 4, 0)
    assert prompt.flops < predicted.prompt_work.flops <= 1.001 * (prompt.flops + 2 * prompt.other_flops)


def test_a_quantised_base_is_smaller_and_its_numbers_are_temporary() -> None:
    config = small_config("llama")
    weights = {base: predict(config, base=base).terms.weights_bytes for base in ("fp32", "bf16", "int8", "nf4")}
    assert weights["fp32"] > weights["bf16"] > weights["int8"] > weights["nf4"]
    assert weights["fp32"] == pytest.approx(2 * weights["bf16"], rel=0.01)


def test_a_batch_costs_cache_and_activations_alone() -> None:
    config = small_config("llama")
    one, eight = predict(config, batch=1, device="cuda"), predict(config, batch=8, device="cuda")
    assert one.terms.weights_bytes == eight.terms.weights_bytes
    assert eight.terms.kv_cache_bytes == 8 * one.terms.kv_cache_bytes


def test_an_encoder_decoder_caches_its_prompt_once() -> None:
    predicted = predict(small_t5(), seq=128, new_tokens=30, device="cuda")
    cross, own = kv_cache_bytes(12, 4, 16, 128, 4, 2), kv_cache_bytes(12, 4, 16, 30, 4, 2)
    assert predicted.cache_bytes == cross + own
    assert predicted.prompt_work.flops > predicted.work.flops


@pytest.mark.parametrize("model_type", ["deepseek_v3", "gpt_oss", "llama4_text", "olmoe", "qwen3_moe"])
def test_mixtures_of_every_kind_can_be_traced(model_type: str) -> None:
    config = small_config(model_type)
    predicted = predict(config)
    assert predicted.peak_bytes > predicted.terms.weights_bytes > 0


def test_a_token_of_a_mixture_passes_its_own_experts_alone() -> None:
    config, _ = read_config("mixtral-8x7b.json", CONFIGS)
    predicted = predict(config, batch=1, seq=64)
    active = 12.9e9  # of 46.7e9 weights
    assert predicted.work.flops == pytest.approx(2 * active, rel=0.03)
