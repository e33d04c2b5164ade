"""The tokens that mark prefix, suffix and middle: a model's own where it has them, by their known spellings.

Families of models spell them differently and mean the same. A model that was trained with its own knows them already;
others get `ADDED`. Nothing is added here.

    sentinels = find_sentinels(tokenizer)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spelling:
    """How a family writes them; `end` ends the middle where that is not the end-of-text token, `stop` ends it too."""

    prefix: str
    suffix: str
    middle: str
    end: str | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sentinels:
    """Their token ids. `stop_ids` are tokens that no filling contains."""

    prefix: int
    suffix: int
    middle: int
    end: int | None
    stop_ids: frozenset[int]
    spelling: Spelling


KNOWN = (
    # StarCoder, StableCode, Granite Code
    Spelling("<fim_prefix>", "<fim_suffix>", "<fim_middle>", stop=("<file_sep>", "<filename>", "<repo_name>")),
    # Qwen 2.5 and 3, Qwen Coder, CodeGemma, Llama 4
    Spelling(
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|fim_middle|>",
        stop=("<|file_sep|>", "<|repo_name|>", "<|file_separator|>"),
    ),
    Spelling("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    Spelling("▁<PRE>", "▁<SUF>", "▁<MID>", end="▁<EOT>"),  # Code Llama
    Spelling("<PRE>", "<SUF>", "<MID>", end="<EOT>"),  # as the paper writes them
    Spelling("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek Coder: the hole stands before the suffix
)
ADDED = KNOWN[0]

_SPAN = re.compile(r"<extra_id_(\d+)>")


def find_sentinels(tokenizer: Any) -> Sentinels | None:
    """Return the sentinels of a tokenizer of `transformers`, or None if it has none of the known spellings."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    for spelling in KNOWN:
        if {spelling.prefix, spelling.suffix, spelling.middle} <= vocabulary.keys():
            return _sentinels(spelling, vocabulary)
    return None


def find_span_sentinels(tokenizer: Any) -> list[int]:
    """Return the ids of `<extra_id_0>`, `<extra_id_1>` … in their order, as T5 has them; empty if there are none."""
    found = {int(match[1]): index for word, index in tokenizer.get_vocab().items() if (match := _SPAN.fullmatch(word))}
    return [found[number] for number in range(len(found)) if number in found] if 0 in found else []


def _sentinels(spelling: Spelling, vocabulary: dict[str, int]) -> Sentinels:
    prefix, suffix, middle = (vocabulary[word] for word in (spelling.prefix, spelling.suffix, spelling.middle))
    end = vocabulary.get(spelling.end) if spelling.end else None
    others = [vocabulary[word] for word in spelling.stop if word in vocabulary]
    stop_ids = {prefix, suffix, middle, *others, *([] if end is None else [end])}
    return Sentinels(prefix, suffix, middle, end, frozenset(stop_ids), spelling)
