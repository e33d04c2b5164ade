"""Tiny models of several families, random and in float32, and a tokenizer that needs no files."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 97
CONTEXT = 160
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": None,
    "eos_token_id": None,
}


def build(family: str, seed: int = 0) -> PreTrainedModel:
    """Return a random model whose next token depends on everything before it."""
    torch.manual_seed(seed)
    model = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**_SIZES)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_SIZES, head_dim=16)),
        "mistral-window": lambda: MistralForCausalLM(MistralConfig(**_SIZES, sliding_window=8)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_positions=CONTEXT,
                n_embd=48,
                n_layer=3,
                n_head=4,
                bos_token_id=0,
                eos_token_id=0,
            )
        ),
    }[family]()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


class Words:
    """A tokenizer that writes each id as a word: `w7 w12`."""

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(f" w{token}" for token in ids)


def reference_ids(model: PreTrainedModel, prompt: list[int], new_tokens: int, ends: set[int]) -> tuple[int, ...]:
    """Return what transformers' own greedy `generate` writes for one prompt, without the end token."""
    with torch.inference_mode():
        ids = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=sorted(ends) or None,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
    return tuple(ids[:-1] if ids and ids[-1] in ends else ids)
