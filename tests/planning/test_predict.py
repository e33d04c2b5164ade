"""Predictions of training: each term beside a formula by hand, what saves what, and one real training beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from luthier.ground.spec import TrainSpec
from luthier.planning.predict import Prediction, predict_training
from luthier.rows.packing import pack_rows
from luthier.rows.types import Encoded, Pack
from models.tiny_models import tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2]
D, KV, F, LAYERS, V, RANK = 128, 64, 320, 8, 1000, 16  # width, of keys and values, of the MLP, …
BLOCK = 2 * D * D + 2 * D * KV + 3 * D * F + 2 * D
N = V * D + LAYERS * BLOCK + D
LORA_A = RANK * (6 * D + F) * LAYERS  # q, k, v, o, gate, up read D, down reads F
LORA_B = RANK * (3 * D + 2 * KV + 2 * F) * LAYERS
FULL: dict[str, Any] = {"adapter": {"kind": "full"}}
BARE: dict[str, Any] = {"adapter": {"kind": "full", "masters": "none"}}


def _config(**more: Any) -> LlamaConfig:
    facts = {
        "vocab_size": V, "hidden_size": D, "intermediate_size": F, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    return LlamaConfig(**{**facts, **more})


def _packs(rows: int, length: int) -> list[Pack]:
    """Rows whose second half are targets, all in one pack."""
    ids_L, target_L = np.arange(length) % (V - 3) + 3, np.arange(length) >= length // 2
    return pack_rows([Encoded(ids_L, target_L, f"row {n}") for n in range(rows)], 1 << 20)


@cache
def _predicted(settings: str = "{}", rows: int = 8, length: int = 128, device: str = "cpu") -> Prediction:
    spec, steps = TrainSpec(**json.loads(settings)), [_packs(rows, length)] * 3
    return predict_training(_config(), spec, steps, baseline_bytes=0, device=device)


def _plan(rows: int = 8, length: int = 128, device: str = "cpu", **settings: Any) -> Prediction:
    return _predicted(json.dumps(settings), rows, length, device)


# -- terms ---------------------------------------------------------------------------------------------------------

_SETTINGS: Sequence[dict[str, Any]] = (
    {}, FULL, BARE, {"checkpointing": "full"}, {"base": "nf4"}, {"base": "int8"}, {"precision": "fp32"},
    {**FULL, "optimizer": "adamw8bit"}, {**FULL, "optimizer": "adafactor"},
)  # fmt: skip


@pytest.mark.parametrize("settings", _SETTINGS, ids=str)
def test_terms_are_not_negative_and_sum_to_the_peak(settings: dict[str, Any]) -> None:
    plan = _plan(**settings)
    terms = plan.terms.model_dump()
    assert sum(terms.values()) == plan.peak_bytes
    assert all(size >= 0 for size in terms.values())
    assert terms["weights_bytes"] > 0 and terms["activations_bytes"] > 0 and terms["kv_cache_bytes"] == 0
    tensors = plan.peak_bytes - terms["overhead_bytes"]
    assert tensors <= plan.live_bytes <= plan.peak_bytes
    assert tensors >= 0.9 * plan.live_bytes, "the allocator's peak is near that of the tensors"
    assert plan.parameters == N
    assert plan.peak_at


def test_the_baseline_is_added_as_it_is() -> None:
    config, spec, steps = _config(), TrainSpec(), [_packs(8, 128)] * 3
    above = predict_training(config, spec, steps, baseline_bytes=345_678_901)
    assert above.peak_bytes - _plan().peak_bytes == pytest.approx(345_678_901, abs=1e6)
    assert above.terms.overhead_bytes - _plan().terms.overhead_bytes == pytest.approx(345_678_901, abs=1e6)


def test_the_process_is_there_beside_its_tensors_on_a_cpu_alone() -> None:
    assert 50e6 < _plan().terms.overhead_bytes < 200e6
    assert _plan(device="cuda").terms.overhead_bytes < 1e6, "rounding of blocks to 512 bytes"


@pytest.mark.parametrize(("precision", "size"), [("bf16", 2), ("fp32", 4)])
def test_weights_and_adapters_of_lora(precision: str, size: int) -> None:
    plan = _plan(precision=precision)
    assert plan.trainable_parameters == LORA_A + LORA_B
    whole = plan.terms.weights_bytes + plan.terms.adapters_bytes
    least = size * N + 4 * (LORA_A + LORA_B)
    # The engine has A once more in the precision of the arithmetic, and B joined to the weights beside zeros: q, k and
    # v, and gate and up, are one product each.
    joined = LAYERS * RANK * (3 * (D + 2 * KV) + D + 2 * (2 * F) + D)
    most = least + size * (LORA_A + joined)
    assert least <= whole <= most + 4096
    assert plan.terms.adapters_bytes >= 4 * plan.trainable_parameters
    assert plan.terms.weights_bytes >= size * N


def test_weights_of_full_finetuning_are_there_once() -> None:
    assert _plan(**FULL).terms.weights_bytes == pytest.approx(2 * N, rel=1e-3)
    assert _plan(**BARE).terms.weights_bytes == pytest.approx(2 * N, rel=1e-3)
    assert _plan(**FULL, precision="fp32").terms.weights_bytes == pytest.approx(4 * N, rel=1e-3)
    assert _plan(**FULL).terms.adapters_bytes == _plan(**BARE).terms.adapters_bytes == 0
    assert _plan(**FULL).trainable_parameters == N


@pytest.mark.parametrize(
    ("settings", "trained", "bytes_each"),
    [
        ({}, LORA_A + LORA_B, 8),
        ({"base": "nf4"}, LORA_A + LORA_B, 8),
        (FULL, N, 12),  # two moments, and the float32 master
        (BARE, N, 8),
        ({**FULL, "precision": "fp32"}, N, 8),
    ],
    ids=str,
)
def test_adamw_keeps_eight_bytes_for_each_trained_weight(
    settings: dict[str, Any], trained: int, bytes_each: int
) -> None:
    assert _plan(**settings).terms.optimizer_bytes == pytest.approx(bytes_each * trained, rel=1e-3)


def test_without_masters_four_bytes_for_each_weight_are_saved() -> None:
    with_masters, bare = _plan(**FULL), _plan(**BARE)
    saved = with_masters.terms.optimizer_bytes - bare.terms.optimizer_bytes
    assert saved == pytest.approx(4 * N, rel=1e-3)
    assert bare.peak_bytes < with_masters.peak_bytes


def test_smaller_optimizers_are_smaller() -> None:
    adamw, eight_bits, adafactor = (
        _plan(**FULL, optimizer=name).terms.optimizer_bytes - 4 * N for name in ("adamw", "adamw8bit", "adafactor")
    )
    assert adafactor < 0.1 * eight_bits
    assert 2 * N <= eight_bits <= 2.3 * N + 4 * 4096 * (4 * LAYERS)  # small tensors stay float32
    assert eight_bits < 0.4 * adamw


@pytest.mark.parametrize("settings", [{}, FULL], ids=str)
def test_activations_are_the_smallest_set_and_hardly_more(settings: dict[str, Any]) -> None:
    """In each block: input, queries, keys, values, what attention gives, the MLP's input, gate and up.

    The last block computes queries and what follows for targets alone, which are half of the tokens.
    """
    tokens = 8 * 128
    of_all = 2 * (D + 2 * KV)
    of_some = 2 * (D + D + D + 2 * F)
    smallest = tokens * ((LAYERS - 1) * (of_all + of_some) + of_all + of_some / 2)
    terms = _plan(**settings).terms
    kept = terms.activations_bytes + terms.attention_bytes
    assert smallest * 0.9 <= kept <= 1.2 * smallest  # backward has let go of a part of the last block at the peak


# -- what saves what -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, FULL], ids=str)
def test_checkpointing_saves_activations_and_bytes(settings: dict[str, Any]) -> None:
    full, selective, none = (_plan(**settings, checkpointing=kind) for kind in ("full", "selective", "none"))
    assert full.terms.activations_bytes < selective.terms.activations_bytes < none.terms.activations_bytes
    assert full.peak_bytes < selective.peak_bytes < none.peak_bytes
    kept = 2 * D * 8 * 128 * LAYERS  # the input of each block; at the peak backward may have let go of most
    assert full.terms.activations_bytes <= 1.3 * kept
    assert full.work.flops > selective.work.flops > none.work.flops


def test_a_quantised_base_saves_weights() -> None:
    nf4, int8, bf16 = (_plan(base=base) for base in ("nf4", "int8", "bf16"))
    assert nf4.terms.weights_bytes < int8.terms.weights_bytes < bf16.terms.weights_bytes
    assert nf4.peak_bytes < int8.peak_bytes < bf16.peak_bytes
    linear = LAYERS * (BLOCK - 2 * D)
    beside = 2 * (N - linear)
    assert int8.terms.weights_bytes - beside == pytest.approx(linear, rel=0.05)
    assert nf4.terms.weights_bytes - beside == pytest.approx(linear * 4.127 / 8, rel=0.05)


def test_training_all_weights_needs_more_than_lora() -> None:
    assert _plan(**FULL).peak_bytes > _plan().peak_bytes + 8 * N
    assert _plan(**FULL).work.flops > _plan().work.flops


def test_activations_are_linear_in_tokens() -> None:
    short, double, triple = (_plan(rows=rows).terms for rows in (8, 16, 24))
    first, second = (b.activations_bytes - a.activations_bytes for a, b in ((short, double), (double, triple)))
    assert first > 0
    assert second == pytest.approx(first, rel=0.03)
    assert double.activations_bytes == pytest.approx(2 * short.activations_bytes, rel=0.05)
    assert [terms.optimizer_bytes for terms in (short, double, triple)] == [short.optimizer_bytes] * 3


def test_attention_never_keeps_all_pairs() -> None:
    """Scores of one head of a row of 2,048 in bfloat16 would be 8 MB, and there are four heads in each block."""
    long = _plan(rows=1, length=2048, checkpointing="full")
    assert long.terms.attention_bytes + long.terms.temporary_bytes < 30e6


def test_moments_of_every_stage_are_told_and_none_is_above_the_peak() -> None:
    plan = _plan()
    moments = {moment.stage: moment.peak_bytes for moment in plan.moments}
    assert {"forward", "loss", "backward", "update"} <= set(moments)
    assert max(moments.values()) == pytest.approx(plan.peak_bytes, rel=0.02)


def test_the_work_of_a_step_is_its_products() -> None:
    """A weight costs two operations in the forward, two for its input's gradient and two for its own."""
    linear, head, tokens = LAYERS * (BLOCK - 2 * D), V * D, 8 * 128
    full = 6 * linear * tokens + 6 * head * tokens / 2
    last = 6 * tokens / 2 * (2 * D * D + 3 * D * F)  # of the last block, what targets do not need
    assert _plan(**FULL).work.flops == pytest.approx(full - last, rel=0.02)


def test_nothing_of_the_process_is_changed() -> None:
    attention = torch.nn.functional.scaled_dot_product_attention
    state = torch.get_rng_state()
    predict_training(_config(), TrainSpec(), [_packs(2, 32)] * 2, baseline_bytes=0)
    assert torch.nn.functional.scaled_dot_product_attention is attention
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.ones(2, 2).mm(torch.ones(2, 2)).sum() == 8


# -- a real training -----------------------------------------------------------------------------------------------

_REAL = """
import json, sys
from pathlib import Path
from benchmarks.plan_accuracy import measure

print(json.dumps(measure(json.loads(sys.argv[1]), Path(sys.argv[2]))))
"""
_LARGER = {
    "vocab_size": 40_960, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 10,
    "num_attention_heads": 8, "num_key_value_heads": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def model_of_50_million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(_config(**_LARGER), dtype=torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system tells no exact peak")
@pytest.mark.parametrize(
    ("settings", "rows", "length"), [({"pack_tokens": 4096}, 16, 180), (FULL, 8, 60)], ids=["lora", "full"]
)
def test_a_real_training_takes_what_was_predicted(
    settings: dict[str, Any], rows: int, length: int, model_of_50_million: Path
) -> None:
    from benchmarks.plan_accuracy import rows_of, spec_of

    cell = {"spec": settings, "rows": rows, "length": length}
    done = subprocess.run(
        [sys.executable, "-c", _REAL, json.dumps(cell), str(model_of_50_million)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, capture_output=True, check=True,
    )  # fmt: skip
    real = json.loads(done.stdout.splitlines()[-1])["peak_bytes"]
    packs = pack_rows(rows_of(cell), settings.get("pack_tokens", 1536))
    said = predict_training(_config(**_LARGER), spec_of(cell), [packs] * 3, baseline_bytes=0).peak_bytes
    assert said == pytest.approx(real, rel=0.1), f"predicted {said / 1e6:.0f} MB, really {real / 1e6:.0f} MB"
