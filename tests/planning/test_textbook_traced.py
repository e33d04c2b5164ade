"""The textbook's cases, traced: 13 billion weights, and the activations of Korthikanti et al. 2022."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.planning.small import some_packs
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from luthier.ground.spec import TrainSpec
from luthier.models.planned import planned_for
from luthier.planning.config import read_config
from luthier.planning.fused import fused_attention
from luthier.planning.predict import Prediction, predict_training
from luthier.planning.predict_inference import predict_inference
from luthier.planning.scaled import predict_scaled
from luthier.planning.textbook import Recomputation, inference_bytes, korthikanti_bytes

CONFIGS = Path(__file__).parent / "configs"


@pytest.fixture(scope="module")
def llama_13b() -> PretrainedConfig:
    return read_config("llama-2-13b.json", CONFIGS)[0]


def test_13b_in_16_bits_is_26_gb_and_the_textbook_adds_a_fifth(llama_13b: PretrainedConfig) -> None:
    predicted = predict_inference(
        llama_13b, precision="fp16", base=None, seq=128, batch=1, baseline_bytes=0, device="cuda"
    )
    assert predicted.terms.weights_bytes == pytest.approx(26e9, rel=0.01)
    assert inference_bytes(predicted.parameters, "fp16") == pytest.approx(31.2e9, rel=0.01)
    assert predicted.peak_bytes < inference_bytes(predicted.parameters, "fp16")  # a short prompt needs less than 20 %


def train(config: PretrainedConfig, **spec: Any) -> Prediction:
    packs = [some_packs(4, 1024)] * 2  # 4,096 tokens
    return predict_scaled(
        lambda shallow: predict_training(shallow, TrainSpec(**spec), packs, baseline_bytes=0, device="cuda"), config
    )


def test_13b_trained_in_full_needs_over_100_gb_and_every_lever_brings_it_down(llama_13b: PretrainedConfig) -> None:
    full = train(llama_13b, adapter={"kind": "full"})
    lora = train(llama_13b)
    nf4 = train(llama_13b, base="nf4")
    least = train(llama_13b, base="nf4", checkpointing="full")
    assert full.peak_bytes > 100e9
    assert full.peak_bytes > 2 * lora.peak_bytes > 2 * nf4.peak_bytes > 2 * least.peak_bytes
    assert lora.peak_bytes > train(llama_13b, checkpointing="full").peak_bytes
    assert least.peak_bytes < 11e9


@pytest.mark.parametrize("recomputation", ["none", "selective", "full"])
def test_activations_agree_with_korthikanti(recomputation: Recomputation) -> None:
    """They hold for GPT-2's block with plain (eager) attention, dropout in three places, GELU as one operator, 16 bits.

    One thing differs: torch on a CPU keeps a dropout mask in 16 bits where the paper counts one byte, so that the trace
    has one byte more for each element that may be dropped: s b h twice and a s² b once in a block. Selective is fused
    attention here, which has no dropout inside. Embedding, last norm, logits and loss are kept out by comparing two
    depths.
    """
    batch, seq, hidden, heads = 4, 256, 256, 8
    four, two = (_kept(layers, recomputation, batch, seq, hidden, heads) for layers in (4, 2))
    wider = {"none": 2 * seq * batch * hidden + heads * seq * seq * batch, "selective": 2 * seq * batch * hidden}
    expected = korthikanti_bytes(1, seq, batch, hidden, heads, recomputation) + wider.get(recomputation, 0)
    assert (four - two) / 2 == pytest.approx(expected, rel=0.03)


def _kept(layers: int, recomputation: Recomputation, batch: int, seq: int, hidden: int, heads: int) -> int:
    """Return the bytes that are there after the forward and were not before."""
    from luthier.planning.trace import MemoryTrace

    config = AutoConfig.for_model(
        "gpt2", n_layer=layers, n_embd=hidden, n_head=heads, vocab_size=512, activation_function="gelu",
        attn_pdrop=0.0 if recomputation == "selective" else 0.1, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    attention = "sdpa" if recomputation == "selective" else "eager"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=attention)
    model.train()
    if recomputation == "full":
        model.activation_checkpointing_enable({"use_reentrant": False})
    with planned_for("cpu"), fused_attention(), MemoryTrace() as trace:
        trace.adopt(model.parameters(), "weights")
        trace.adopt(model.buffers(), "weights")
        hidden_states = model.transformer(torch.zeros(batch, seq, dtype=torch.int64), use_cache=False)[0]
        kept = sum(block.bytes for block in trace.blocks if block.freed is None and not block.label)
    assert hidden_states.shape == (batch, seq, hidden)
    return kept
