"""How many bits a model needs for a text: the sum of −log₂ p over its tokens, read in windows that overlap.

Bits are told by the bytes of the text in UTF-8 (bits per byte), so that models with different tokens can be compared.
Every token of the text counts once, the first one too: it is predicted from the token that begins or ends documents.
That token itself, and the end of the text, are not counted. A text longer than the window is read in windows that begin
`stride` tokens apart, and each token is counted in the first window that has it, so that (but for the beginning of the
text) at least `window − stride` tokens stand before it. Statistics are in `luthier.evaluation.language`.

    scores = score_texts(model, renderer.tokens, [Text("a", "The weather …")], window=2048)
    sum(score.bits for score in scores) / sum(score.bytes for score in scores)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from luthier.evaluation.token_losses import token_losses
from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.rows.packing import one_pack
from luthier.rows.tokens import Tokens
from luthier.rows.types import Encoded, Pack

PACK_TOKENS = 1536


@dataclass(frozen=True)
class Text:
    """A text, and what it belongs to: texts of one group are resampled together."""

    id: str
    text: str
    group: str | None = None


@dataclass(frozen=True)
class TextScore:
    """What a model needs for a text."""

    id: str
    group: str | None
    bits: float
    bytes: int
    tokens: int


def score_texts(
    model: PreTrainedModel,
    tokens: Tokens,
    texts: Sequence[Text],
    *,
    window: int,
    stride: int | None = None,
    tell: Tell = silent,
) -> list[TextScore]:
    """Return what the model, as it stands, needs for each text.

    Args:
        tokens: the model's tokenizer.
        window: the most tokens that are read at once.
        stride: tokens from one window's beginning to the next one's (default: half a window).

    Raises:
        BadInput: the tokenizer has neither a token that begins documents nor one that ends them.
    """
    stride = min(stride or max(1, window // 2), window - 1)
    ids = [ids_of(tokens, text.text) for text in texts]
    rows = [(n, row) for n, ids_T in enumerate(ids) for row in windows(ids_T, window, stride)]
    bits = np.zeros(len(texts))
    was_training = model.training
    model.eval()
    done = 0
    for part in _packed(rows):
        pack = one_pack([row for _, row in part])
        for (number, _), nats in zip(part, _nats_by_row(model, pack), strict=True):
            bits[number] += nats / math.log(2)
        done += len(part)
        tell({"kind": "progress", "done": done, "total": len(rows)})
    model.train(was_training)
    return [
        TextScore(text.id, text.group, float(bits[n]), len(text.text.encode()), len(ids[n]) - 1)
        for n, text in enumerate(texts)
    ]


def ids_of(tokens: Tokens, text: str) -> list[int]:
    """Return the text's tokens behind the one that stands before a document, without the one that ends it."""
    ids = tokens.encode_document(text)
    if ids and ids[-1] == tokens.eos_id:
        ids = ids[:-1]
    if tokens.adds_bos:
        return ids
    before = tokens.eos_id if tokens.eos_id is not None else tokens.bos_id
    if before is None:
        raise BadInput("the tokenizer has no token that ends or begins a text", fix="choose another model")
    return [before, *ids]


def windows(ids: Sequence[int], window: int, stride: int) -> Iterator[Encoded]:
    """Yield the windows of a text, in which every token but the first of all is a target of exactly one.

    >>> [row.ids_T[row.target_T].tolist() for row in windows([0, 1, 2, 3, 4, 5, 6], 4, 2)]
    [[1, 2, 3], [4, 5], [6]]
    """
    ids_T = np.array(ids, dtype=np.int64)
    counted = begin = 0
    while counted < len(ids_T) - 1:
        end = min(begin + window, len(ids_T))
        places = np.arange(begin, end)
        yield Encoded(ids_T[begin:end], places > max(counted, begin), f"{begin}")
        counted, begin = end - 1, begin + stride


def _packed(rows: Sequence[tuple[int, Encoded]]) -> Iterator[list[tuple[int, Encoded]]]:
    """Yield rows in runs of at most `PACK_TOKENS` tokens, or one."""
    part: list[tuple[int, Encoded]] = []
    tokens = 0
    for row in rows:
        if part and tokens + len(row[1]) > PACK_TOKENS:
            yield part
            part, tokens = [], 0
        part.append(row)
        tokens += len(row[1])
    if part:
        yield part


def _nats_by_row(model: PreTrainedModel, pack: Pack) -> list[float]:
    row_N = np.searchsorted(np.cumsum(pack.lengths), np.flatnonzero(pack.target_T), side="right")
    sums: list[float] = np.bincount(row_N, weights=token_losses(model, pack), minlength=len(pack.lengths)).tolist()
    return sums
