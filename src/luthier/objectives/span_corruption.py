"""Span corruption for encoder-decoder models: spans of tokens become sentinels, and the decoder writes the spans.

The procedure is T5's (Raffel et al. 2020, `random_spans_noise_mask` of their code): the number of
masked tokens and of spans follow from length, density and mean span length; spans alternate, beginning with kept text;
given that, all masks are equally likely. Spans never touch, so each has a sentinel of its own:

    text      Thank you for inviting me to your party last week
    encoder   Thank you <0> me to your party <1> week </s>
    decoder   <0> for inviting <1> last </s>

It knows tokens only, not text.

>>> mask = noise_mask(12, 0.25, 1.5, seed=0)
>>> int(mask.sum()), bool(mask[0]), bool(mask[-1])
(3, False, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from luthier.rows.types import BoolArray


@dataclass(frozen=True)
class Corrupted:
    """What the encoder reads and what the decoder writes, without start and end tokens."""

    encoder: list[int]
    decoder: list[int]


def noise_mask(length: int, density: float, mean_span: float, seed: int) -> BoolArray:
    """Return which of `length` tokens are masked, shape [length]; the same seed gives the same mask.

    Raises:
        ValueError: fewer than two tokens, of which none could be masked and none kept.
    """
    if length < 2:
        raise ValueError("a text of fewer than two tokens has nothing to mask")
    chance = np.random.default_rng(seed)
    masked, spans = noise_counts(length, density, mean_span)
    of_noise = _segments(masked, spans, chance)
    of_kept = _segments(length - masked, spans, chance)
    lengths = np.stack([of_kept, of_noise], axis=1).reshape(-1)  # kept, masked, kept, masked …
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def noise_counts(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """Return how many of `length` tokens are masked, and in how many spans."""
    masked = min(max(round(length * density), 1), length - 1)
    spans = min(max(round(masked / mean_span), 1), length - masked)
    return masked, spans


def corrupted(ids: Sequence[int], mask: Sequence[bool] | BoolArray, sentinels: Sequence[int]) -> Corrupted:
    """Return the encoder's and the decoder's tokens for masked spans that begin behind kept text.

    A text that ends with kept tokens ends the decoder's with one more sentinel, as in the paper's figure.

    Raises:
        ValueError: there are more spans than sentinels.
    """
    marked = zip(mask, ids, strict=True)
    runs = [(noise, [token for _, token in run]) for noise, run in groupby(marked, lambda pair: bool(pair[0]))]
    return corrupted_runs(runs, sentinels)


def corrupted_runs(runs: Sequence[tuple[bool, Sequence[int]]], sentinels: Sequence[int]) -> Corrupted:
    """As `corrupted`, for stretches of text (masked or not, their tokens) that alternate; an empty gap is a stretch."""
    encoder: list[int] = []
    decoder: list[int] = []
    number = 0
    for noise, run in runs:
        if not noise:
            encoder += run
            continue
        if number >= len(sentinels):
            raise ValueError(f"there are more masked spans than the {len(sentinels)} sentinels of the tokenizer")
        encoder.append(sentinels[number])
        decoder += [sentinels[number], *run]
        number += 1
    if runs and not runs[-1][0] and 0 < number < len(sentinels):
        decoder.append(sentinels[number])
    return Corrupted(encoder, decoder)


def read_spans(decoder: Sequence[int], sentinels: Sequence[int]) -> dict[int, list[int]]:
    """Return what stands behind each sentinel in a decoder's tokens, by the sentinel's id; the first of each counts."""
    known = set(sentinels)
    spans: dict[int, list[int]] = {}
    current: list[int] = []
    for token in decoder:
        if token in known:
            current = []
            spans.setdefault(token, current)
        else:
            current.append(token)
    return spans


def _segments(items: int, segments: int, chance: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the lengths of `segments` non-empty stretches that `items` fall into; all ways are equally likely."""
    first_T = np.arange(items - 1) < segments - 1
    chance.shuffle(first_T)
    return np.bincount(np.cumsum(np.concatenate([[False], first_T])), minlength=segments)
