"""The KV cache, and the work and time of answering."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from luthier.machine.catalogue import find_device
from luthier.planning.inference import decode_work, kv_cache_bytes, prompt_work, request_paces
from luthier.planning.work import ModelFacts

LLAMA2_7B = ModelFacts(6_476_000_000, 131_000_000, 32, 4096)
WEIGHTS = 13.5e9


def test_the_cache_is_that_of_a_real_model() -> None:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    cache = DynamicCache(config=config)
    LlamaForCausalLM(config)(torch.zeros(5, 11, dtype=torch.long), past_key_values=cache)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kv_cache_bytes(3, 2, 8, 11, 5, itemsize=4) == held


def test_the_cache_of_llama_3_8b_is_a_gibibyte_at_8192_tokens() -> None:
    assert kv_cache_bytes(32, 8, 128, 8192, 1) == 2**30


def test_windows_bound_the_cache() -> None:
    assert kv_cache_bytes(2, 1, 4, 100, 1, 2, windows=[10, None]) == 2 * 4 * (10 + 100) * 2
    assert kv_cache_bytes(2, 1, 4, 5, 1, 2, windows=[10, None]) == kv_cache_bytes(2, 1, 4, 5, 1, 2)


def test_work_of_a_prompt_and_of_a_token() -> None:
    reading = prompt_work(LLAMA2_7B, 1000, 2, WEIGHTS)
    assert reading.flops == pytest.approx(2 * (2000 * 6_476_000_000 + 2 * 131_000_000))
    assert reading.other_flops == pytest.approx(2000 * 2 * 1000 * 4096 * 32)
    writing = decode_work(LLAMA2_7B, 1000, 2, WEIGHTS, 1e9)
    assert writing.flops == 2 * (6_476_000_000 + 131_000_000) * 2
    assert writing.other_flops == 2 * 4 * 1000 * 4096 * 32
    assert writing.product_bytes + writing.other_bytes == WEIGHTS + 1e9


@pytest.mark.parametrize(("device", "published_s"), [("A100 80GB", 0.234), ("H100", 0.1538)])
def test_a_published_latency_is_met(device: str, published_s: float) -> None:
    """Llama-2-7B, one row of 128 tokens, 20 out: NVIDIA's NeMo tables."""
    cache = kv_cache_bytes(32, 32, 128, 148, 1)
    reading, writing = request_paces(
        LLAMA2_7B,
        find_device(device),
        "bf16",
        prompt_tokens=128,
        output_tokens=20,
        batch=1,
        weights_bytes=WEIGHTS,
        cache_bytes=cache,
    )
    assert (reading.total_s or 0) + (writing.total_s or 0) == pytest.approx(published_s, rel=0.15)
    assert writing.bound == "bandwidth"


def test_larger_batches_share_the_reading_of_weights() -> None:
    one, many = (
        request_paces(
            LLAMA2_7B,
            find_device("A100 80GB"),
            "bf16",
            prompt_tokens=128,
            output_tokens=20,
            batch=batch,
            weights_bytes=WEIGHTS,
            cache_bytes=kv_cache_bytes(32, 32, 128, 148, batch),
        )[1]
        for batch in (1, 16)
    )
    assert many.tokens_per_s > 10 * one.tokens_per_s
