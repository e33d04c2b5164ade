"""Tiny models for the adapters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

_SIZE = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_SIZE, **_TOKENS, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**_SIZE, **_TOKENS, num_key_value_heads=2),
    "gpt_neox": lambda: GPTNeoXConfig(**_SIZE, bos_token_id=1, eos_token_id=2),
    "gpt2": lambda: GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=4, n_positions=32),
}
MakeModel = Callable[..., PreTrainedModel]


@pytest.fixture
def make_model() -> MakeModel:
    """A model by family; each call gives a new one with the same weights, frozen as `load_model` leaves it."""

    def make(family: str = "llama", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(FAMILIES[family]())
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * 0.1)
        return model.to(dtype).eval().requires_grad_(False)

    return make


@pytest.fixture
def ids_BT() -> Tensor:
    return torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model_folder(tmp_path: Path, make_model: MakeModel) -> Path:
    """A complete model folder."""
    make_model().save_pretrained(tmp_path / "base")
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, **{chr(97 + n): n + 3 for n in range(26)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", bos_token="<s>")
    fast.chat_template = "{{ messages[0]['content'] }}"
    fast.save_pretrained(tmp_path / "base")
    return tmp_path / "base"
