"""Small byte-level tokenizers, trained on the fly, with the special tokens of each template family."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from luthier.rows.template import Renderer
from rows.families import FAMILIES, Family

CORPUS = [
    "The user asks a question and the assistant writes a short answer about the weather.",
    "What is the capital of France? Paris is the capital of France.\n\nThank you very much!",
    'Return {"category": "order", "priority": "high"} as one JSON object, and nothing else.',
    "Context:\nThe warranty of the wheel lasts 24 months.\n\nInput: my wheel is broken",
    "system user assistant model [INST] [/INST] <<SYS>> <</SYS>> User: Assistant: Grüße, naïve café 日本語",
] * 4


@cache
def trained() -> str:
    """Return a byte-level BPE tokenizer as JSON."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return str(tokenizer.to_str())


def make_tokenizer(family: Family, **special: Any) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a family; `special` are flags of its special tokens (rstrip …)."""
    backend = Tokenizer.from_str(trained())
    backend.add_special_tokens(
        [AddedToken(text, normalized=False, special=True, **special) for text in family.specials]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=family.eos, bos_token=family.bos)
    tokenizer.chat_template = family.template
    return tokenizer


def make_sentencepiece(family: Family, style: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer that writes spaces as ▁ and puts one before a text, in the newer or the older way."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>", *byte_tokens], show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    if style == "prepend":
        backend.pre_tokenizer = None
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in family.specials])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=family.eos, bos_token=family.bos, unk_token="<unk>"
    )
    tokenizer.chat_template = family.template
    return tokenizer


@cache
def make_renderer(name: str) -> Renderer:
    return Renderer(make_tokenizer(FAMILIES[name]))


@pytest.fixture(params=sorted(FAMILIES))
def family_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)
