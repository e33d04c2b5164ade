"""Pack rows end to end into flat token batches, without padding, and with common beginnings once.

Positions restart at each row, and a row's first token is never a target. Which rows see each other is the model's
affair (`lengths` and `parents` say where each row begins and ends). What rows have in common at their beginning (a
system prompt, an instruction, worked examples, earlier turns) is computed once per pack where that saves enough: the
rows of a pack then form trees of segments. Only what stands before the first target of every row is shared, so targets
and their number stay the same.

    >>> import numpy as np
    >>> row = Encoded(np.array([5, 6]), np.array([False, True]), "t:1")
    >>> [pack.lengths for pack in pack_rows([row, row, row], max_tokens=4)]
    [(2, 2), (2,)]
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luthier.ground.errors import BadInput
from luthier.rows.types import BoolArray, Encoded, FloatArray, Pack

FEWEST_SHARED = 16  # a shorter common beginning costs more in segments than it saves in tokens
WORTH_SHARING = 1.05  # tokens of the rows over tokens to compute


def pack_rows(rows: Sequence[Encoded], max_tokens: int, share: bool = False) -> list[Pack]:
    """Return packs of at most `max_tokens` tokens, of about the same size; a longer row gets its own pack.

    Args:
        share: compute common beginnings once, if that saves enough; rows then come in the order of their ids.
            Otherwise they stay in order.
    """
    if share and rows and rows[0].encoder_S is None:  # an encoder's rows differ where the decoder's begin alike
        ordered = sorted(rows, key=lambda row: tuple(row.ids_T.tolist()))
        packs = [tree_pack(part) for part in _cut(_own_tokens(ordered), max_tokens, ordered)]
        if sum(map(len, rows)) >= WORTH_SHARING * sum(map(len, packs)):
            return packs
    return [one_pack(part) for part in _cut([len(row) for row in rows], max_tokens, rows)]


def one_pack(rows: Sequence[Encoded]) -> Pack:
    """Return all rows as one pack that shares nothing."""
    _refuse_empty(rows)
    return _pack(rows, [_Part(row, 0, len(row.ids_T), -1, row.place) for row in rows])


def tree_pack(rows: Sequence[Encoded]) -> Pack:
    """Return rows, which are in the order of their ids, as one pack with common beginnings once."""
    _refuse_empty(rows)
    tree = _Tree(rows, [_common(a, b) for a, b in itertools.pairwise(rows)])
    tree.grow(0, len(rows), 0, -1)
    return _pack(rows, tree.parts)


def single_rows(pack: Pack) -> list[Pack]:
    """Return each row of a pack as a pack of its own, a shared beginning in each that begins with it."""
    starts = np.cumsum([0, *pack.lengths])
    encoder_starts = np.cumsum([0, *pack.encoder_lengths])
    rows: list[Pack] = []
    for number, place in enumerate(pack.places):
        if not place:
            continue
        spans = [np.arange(starts[link], starts[link + 1]) for link in _chain(pack.parents, number)]
        tokens_L, nth = np.concatenate(spans), len(rows)
        own = slice(*encoder_starts[nth : nth + 2]) if pack.encoder_lengths else slice(0)
        alone = Pack(
            ids_T=pack.ids_T[tokens_L],
            positions_T=pack.positions_T[tokens_L],
            target_T=pack.target_T[tokens_L],
            lengths=(len(tokens_L),),
            places=(place,),
            weight_T=None if pack.weight_T is None else pack.weight_T[tokens_L],
            encoder_S=None if pack.encoder_S is None else pack.encoder_S[own],
            encoder_lengths=pack.encoder_lengths[nth : nth + 1],
            label_RL=None if pack.label_RL is None else pack.label_RL[nth : nth + 1],
        )
        rows.append(alone)
    return rows


def _chain(parents: Sequence[int], segment: int) -> list[int]:
    """Return the segments that a row consists of, the first first."""
    links = [segment]
    while parents and parents[links[-1]] >= 0:
        links.append(parents[links[-1]])
    return links[::-1]


@dataclass(frozen=True)
class _Part:
    """A segment: tokens `start` to `end` − 1 of a row, which continue the segment `parent`."""

    row: Encoded
    start: int
    end: int
    parent: int
    place: str


class _Tree:
    """Segments of rows that come in order; `common[n]` tokens begin both row n and the next."""

    def __init__(self, rows: Sequence[Encoded], common: Sequence[int]) -> None:
        self._rows, self._common = rows, common
        self.parts: list[_Part] = []

    def grow(self, first: int, end: int, depth: int, parent: int) -> None:
        """Add rows `first` to `end` − 1, whose first `depth` tokens are those that `parent` ends with."""
        if end - first == 1:
            row = self._rows[first]
            self.parts.append(_Part(row, depth, len(row), parent, row.place))
            return
        least = min(self._common[first : end - 1])
        if least >= depth + FEWEST_SHARED:
            self.parts.append(_Part(self._rows[first], depth, least, parent, ""))
            depth, parent = least, len(self.parts) - 1
        forks = [n + 1 for n in range(first, end - 1) if self._common[n] < depth + FEWEST_SHARED]
        for start, stop in itertools.pairwise([first, *forks, end]):
            self.grow(start, stop, depth, parent)


def _common(a: Encoded, b: Encoded) -> int:
    """Return how many tokens two rows share at their beginning, before any target of theirs; 0 if too few."""
    most = min(_first_target(a), _first_target(b))
    different = np.flatnonzero(a.ids_T[:most] != b.ids_T[:most])
    shared = int(different[0]) if len(different) else most
    return shared if shared >= FEWEST_SHARED else 0


def _first_target(row: Encoded) -> int:
    targets = np.flatnonzero(row.target_T[1:])
    return int(targets[0]) + 1 if len(targets) else len(row) - 1


def _own_tokens(rows: Sequence[Encoded]) -> list[int]:
    """Return what each row, in order, adds to a pack in which the one before it is."""
    return [len(row) - (_common(rows[n - 1], row) if n else 0) for n, row in enumerate(rows)]


def _cut(costs: Sequence[int], max_tokens: int, rows: Sequence[Encoded]) -> list[list[Encoded]]:
    """Cut rows into the fewest runs of at most `max_tokens` that keeping their order allows, of about the same size."""
    fewest = len(_greedy(costs, max_tokens))
    limit = max_tokens
    for eighths in range(8):
        even = math.ceil(sum(costs) / max(1, fewest) * (1 + eighths / 8))
        if even <= max_tokens and len(_greedy(costs, even)) <= fewest:
            limit = even
            break
    return [[rows[n] for n in run] for run in _greedy(costs, limit)]


def _greedy(costs: Sequence[int], limit: int) -> list[list[int]]:
    runs: list[list[int]] = []
    tokens = 0
    for n, cost in enumerate(costs):
        if not runs or tokens + cost > limit:
            runs.append([])
            tokens = 0
        runs[-1].append(n)
        tokens += cost
    return runs


def _pack(rows: Sequence[Encoded], parts: Sequence[_Part]) -> Pack:
    parents = tuple(part.parent for part in parts)
    weighted = any(row.weight_T is not None for row in rows)
    encoders = [row.encoder_S for row in rows if row.encoder_S is not None]
    labels = [row.label_L for row in rows if row.label_L is not None]
    return Pack(
        ids_T=np.concatenate([part.row.ids_T[part.start : part.end] for part in parts]),
        positions_T=np.concatenate([np.arange(part.start, part.end, dtype=np.int64) for part in parts]),
        target_T=np.concatenate([_targets(part) for part in parts]),
        lengths=tuple(part.end - part.start for part in parts),
        places=tuple(part.place for part in parts),
        parents=parents if max(parents) >= 0 else (),
        weight_T=np.concatenate([_weights(part) for part in parts]) if weighted else None,
        encoder_S=np.concatenate(encoders) if encoders else None,
        encoder_lengths=tuple(len(encoder_S) for encoder_S in encoders),
        label_RL=np.stack(labels) if labels else None,
    )


def _targets(part: _Part) -> BoolArray:
    """Return the targets of a part; a row's first token is none, unless it carries the row's label."""
    target_T = part.row.target_T[part.start : part.end]
    if part.start == 0 and target_T[0] and part.row.label_L is None:
        target_T = np.concatenate([[False], target_T[1:]])
    return target_T


def _weights(part: _Part) -> FloatArray:
    if part.row.weight_T is None:
        return np.ones(part.end - part.start, dtype=np.float32)
    return part.row.weight_T[part.start : part.end]


def _refuse_empty(rows: Sequence[Encoded]) -> None:
    if not rows or not all(len(row.ids_T) for row in rows):
        raise BadInput("a pack needs at least one row, and no row without tokens", fix="leave empty rows out")
