"""The textbook's cases, to the digit that textbooks give, and the rules against the tools that they come from."""

from __future__ import annotations

import math

import pytest
from accelerate.commands.estimate import estimate_training_usage

from luthier.ground.errors import BadInput
from luthier.planning.textbook import (
    accelerate_bytes,
    adapter_finetune_bytes,
    full_finetune_bytes,
    inference_bytes,
    korthikanti_bytes,
    rules,
    weights_bytes,
)

B = 10**9


def test_13b_in_fp16_needs_about_31_gb_for_inference() -> None:
    assert weights_bytes(13 * B, "fp16") == 26e9
    assert inference_bytes(13 * B, "fp16") == 31.2e9


def test_full_finetuning_of_13b_needs_over_100_gb_and_adapters_bring_it_down() -> None:
    adapter = 62_600_000  # rank 16 on all linear layers of Llama-2-13B
    full = full_finetune_bytes(13 * B)
    lora = adapter_finetune_bytes(13 * B, adapter, "bf16")
    qlora = adapter_finetune_bytes(13 * B, adapter, "nf4")
    assert full == 208e9
    assert full_finetune_bytes(13 * B, gradient_bits=32) == 234e9
    assert lora == pytest.approx(27e9, rel=0.001)
    assert qlora == pytest.approx(7.7e9, rel=0.01)


@pytest.mark.parametrize(("precision", "gigabytes"), [("fp32", 40.0), ("fp16", 20.0), ("bf16", 20.0), ("int8", 10.0)])
def test_10b_by_precision(precision: str, gigabytes: float) -> None:
    assert weights_bytes(10 * B, precision) == gigabytes * 1e9


def test_10b_in_four_bits_is_5_gb_and_its_scales() -> None:
    assert weights_bytes(10 * B, "int4") == 5e9 + 10 * B // 128 * 2  # 5.16 GB
    assert weights_bytes(10 * B, "int4", group=32) == 5e9 + 10 * B / 32 * 2  # as in Q4_0: 4.5 bits
    assert weights_bytes(10 * B, "nf4") == pytest.approx(5e9 + 10 * B * (0.127 / 8), rel=1e-4)


@pytest.mark.parametrize(("precision", "name"), [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")])
def test_weights_times_four_is_what_accelerate_says(precision: str, name: str) -> None:
    """Its largest stage; it is given the float32 bytes of the model, whatever the precision."""
    assert accelerate_bytes(B, precision) == max(estimate_training_usage(4 * B, name).values())


def test_activations_of_gpt3_are_those_of_the_paper() -> None:
    """175B: a = 96, s = 2048, h = 12288, so 5 a s / h = 80; a block at b = 1 is 34 + 80 times s b h."""
    sbh = 2048 * 12288
    assert korthikanti_bytes(1, 2048, 1, 12288, 96) == (34 + 80) * sbh
    assert korthikanti_bytes(96, 2048, 4, 12288, 96, "selective") == 96 * 34 * 4 * sbh
    assert korthikanti_bytes(96, 2048, 1, 12288, 96, "full") == 96 * 2 * sbh


def test_the_34_is_the_sum_of_what_a_gpt_block_keeps() -> None:
    """Bytes for each token and hidden unit, as in section 4 of the paper."""
    attention = 2 + 4 + 2 + 2 + 1  # input of q, k, v; q and k; v; input of the output product; dropout mask
    mlp = 2 + 8 + 8 + 1  # inputs of both products and of GELU; dropout mask
    norms = 4
    assert korthikanti_bytes(1, 1, 1, 1, 0) == attention + mlp + norms == 34


def test_rules_by_method() -> None:
    assert rules(7 * B, "bf16", "inference") == {"weights × 1.2": 16.8e9}
    assert rules(7 * B, "bf16", "full") == {
        "weights × 1.2": 16.8e9,
        "16 bytes per parameter": 112e9,
        "accelerate: weights × 4": 56e9,
    }
    qlora = rules(7 * B, "bf16", "qlora", adapter_parameters=40_000_000)
    assert qlora["weights × 1.2"] == pytest.approx(4.2e9)
    assert qlora["frozen weights + 16 bytes per trained parameter"] == pytest.approx(
        7 * B * 4.127 / 8 + 0.64e9, rel=1e-4
    )
    assert math.isclose(rules(7 * B, "bf16", "lora", base="fp32")["weights × 1.2"], 33.6e9)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(BadInput, match="not a precision"):
        weights_bytes(1, "int3")
