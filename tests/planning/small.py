"""Small configs, rows and packs for the tests of predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import AutoConfig, PretrainedConfig

from luthier.rows.packing import pack_rows
from luthier.rows.types import Encoded, Pack

_BASE = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "num_hidden_layers": 12, "max_position_embeddings": 512, "tie_word_embeddings": True,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
_MORE: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {},
    "gemma2": {"sliding_window": 32, "query_pre_attn_scalar": 16},
    "gemma3_text": {"sliding_window": 32},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "mlp_only_layers": [0]},
    "deepseek_v3": {
        "n_routed_experts": 8, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "kv_lora_rank": 16, "q_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
        "first_k_dense_replace": 2, "num_key_value_heads": 4, "head_dim": 8,
    },
    "llama4_text": {"num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 160},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
}  # fmt: skip


def small_config(model_type: str, **more: Any) -> PretrainedConfig:
    return AutoConfig.for_model(model_type, **{**_BASE, **_MORE.get(model_type, {}), **more})


def some_packs(rows: int = 4, length: int = 48) -> list[Pack]:
    random = np.random.default_rng(0)
    encoded = [
        Encoded(random.integers(3, 500, length), np.arange(length) >= length // 2, f"row {n}") for n in range(rows)
    ]
    return pack_rows(encoded, 4096)
