"""Tiny encoder-decoder models of several families, and complete tiny model folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    MBartConfig,
    MT5Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
)

from models.tiny_models import VOCABULARY, tiny_tokenizer

_T5 = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
       "dropout_rate": 0.0, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0,
       "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20}  # fmt: skip
_BART = {"vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
         "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
         "max_position_embeddings": 64, "dropout": 0.0, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
         "decoder_start_token_id": 2, "forced_eos_token_id": None}  # fmt: skip

SEQ2SEQ: dict[str, Callable[[], PretrainedConfig]] = {
    "t5": lambda: T5Config(**_T5),
    "flan": lambda: T5Config(**_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "mt5": lambda: MT5Config(**_T5),
    "bart": lambda: BartConfig(**_BART),
    "mbart": lambda: MBartConfig(**_BART),
}


def tiny_seq2seq(family: str = "t5", *, seed: int = 0) -> PreTrainedModel:
    """A model with random weights large enough that every layer matters; the same seed gives the same weights."""
    torch.manual_seed(seed)
    model = AutoModelForSeq2SeqLM.from_config(SEQ2SEQ[family]()).to(torch.float32)
    if family in ("flan", "mt5"):
        head = model.get_output_embeddings()
        head.weight = nn.Parameter(torch.randn_like(head.weight))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    return model.eval()


def tiny_seq2seq_folder(path: Path, family: str = "t5", *, seed: int = 0) -> Path:
    """A complete model folder."""
    tiny_seq2seq(family, seed=seed).save_pretrained(path)
    seq2seq_tokenizer().save_pretrained(path)
    return path


def seq2seq_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer without a chat template, as encoder-decoders have them."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    return tokenizer
