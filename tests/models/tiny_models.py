"""Tiny models of several families, made on the fly, and complete tiny model folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

VOCABULARY = 96
_SIZE = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_SIZE, **_HEADS, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**_SIZE, **_HEADS),
    "qwen3": lambda: Qwen3Config(**_SIZE, **_HEADS, head_dim=16),
    "mistral": lambda: MistralConfig(**_SIZE, **_HEADS, sliding_window=4),
    "gemma2": lambda: Gemma2Config(**_SIZE, **_HEADS, head_dim=16, sliding_window=4, query_pre_attn_scalar=8),
    "gemma3_text": lambda: Gemma3TextConfig(
        **_SIZE,
        **_HEADS,
        head_dim=16,
        sliding_window=4,
        query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
        },
    ),
    "olmo2": lambda: Olmo2Config(**_SIZE, **_HEADS),
    "phi3": lambda: Phi3Config(
        **_SIZE, **_HEADS, rope_parameters={"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5}
    ),
    "granite": lambda: GraniteConfig(
        **_SIZE,
        **_HEADS,
        embedding_multiplier=3.0,
        attention_multiplier=0.2,
        residual_multiplier=0.6,
        logits_scaling=2.0,
        mlp_bias=True,
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**_SIZE, num_attention_heads=4, bos_token_id=1, eos_token_id=2),
}


def tiny_model(family: str = "llama", *, attention: str | None = None, seed: int = 0) -> PreTrainedModel:
    """A model with random weights large enough that every layer matters; the same seed gives the same weights."""
    torch.manual_seed(seed)
    config = FAMILIES[family]()
    if attention is not None:
        config._attn_implementation = attention
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).to(torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model.eval()


def tiny_tokenizer(size: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Byte pairs without merges over printable characters, with a small chat template."""
    words = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())][:size]
    tokenizer = Tokenizer(models.BPE(vocab={word: n for n, word in enumerate(words)}, merges=[], unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.chat_template = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}"
    return fast


def tiny_folder(path: Path, family: str = "llama", *, seed: int = 0) -> Path:
    """A complete model folder."""
    tiny_model(family, seed=seed).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path
