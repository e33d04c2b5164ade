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

import numpy as np

from luthier.ground.errors import BadInput
from luthier.rows.types import BoolArray, Encoded, IntArray, Pack

FEWEST_SHARED = 16  # a shorter common beginning costs more in segments than it saves in tokens
WORTH_SHARING = 1.05  # tokens of the rows over tokens to compute


def pack_rows(rows: Sequence[Encoded], max_tokens: int, share: bool = False) -> list[Pack]:
    """Return packs of at most `max_tokens` tokens, of about the same size; a longer row gets its own pack.

    Args:
        share: compute common beginnings once, if that saves enough; rows then come in the order of their ids.
            Otherwise they stay in order.
    """
    if share and rows:
        ordered = sorted(rows, key=lambda row: tuple(row.ids_T.tolist()))
        packs = [tree_pack(part) for part in _cut(_own_tokens(ordered), max_tokens, ordered)]
        if sum(map(len, rows)) >= WORTH_SHARING * sum(map(len, packs)):
            return packs
    return [one_pack(part) for part in _cut([len(row) for row in rows], max_tokens, rows)]


def one_pack(rows: Sequence[Encoded]) -> Pack:
    """Return all rows as one pack that shares nothing."""
    _refuse_empty(rows)
    parts = [_part(row, 0, len(row)) for row in rows]
    return _pack(parts, [len(row) for row in rows], [-1] * len(rows), [row.place for row in rows])


def tree_pack(rows: Sequence[Encoded]) -> Pack:
    """Return rows, which are in the order of their ids, as one pack with common beginnings once."""
    _refuse_empty(rows)
    tree = _Tree(rows, [_common(a, b) for a, b in itertools.pairwise(rows)])
    tree.grow(0, len(rows), 0, -1)
    return _pack(tree.parts, tree.lengths, tree.parents, tree.places)


class _Tree:
    """Segments of rows that come in order; `common[n]` tokens begin both row n and the next."""

    def __init__(self, rows: Sequence[Encoded], common: Sequence[int]) -> None:
        self._rows, self._common = rows, common
        self.parts: list[tuple[IntArray, IntArray, BoolArray]] = []
        self.lengths: list[int] = []
        self.parents: list[int] = []
        self.places: list[str] = []

    def grow(self, first: int, end: int, depth: int, parent: int) -> None:
        """Add rows `first` to `end` − 1, whose first `depth` tokens are those that `parent` ends with."""
        if end - first == 1:
            row = self._rows[first]
            self._add(row, depth, len(row), parent, row.place)
            return
        least = min(self._common[first : end - 1])
        if least >= depth + FEWEST_SHARED:
            self._add(self._rows[first], depth, least, parent, "")
            depth, parent = least, len(self.lengths) - 1
        forks = [n + 1 for n in range(first, end - 1) if self._common[n] < depth + FEWEST_SHARED]
        for start, stop in itertools.pairwise([first, *forks, end]):
            self.grow(start, stop, depth, parent)

    def _add(self, row: Encoded, start: int, end: int, parent: int, place: str) -> None:
        self.parts.append(_part(row, start, end))
        self.lengths.append(end - start)
        self.parents.append(parent)
        self.places.append(place)


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


def _part(row: Encoded, start: int, end: int) -> tuple[IntArray, IntArray, BoolArray]:
    target_T = row.target_T[start:end]
    if start == 0 and target_T[0]:
        target_T = np.concatenate([[False], target_T[1:]])
    return row.ids_T[start:end], np.arange(start, end, dtype=np.int64), target_T


def _pack(
    parts: Sequence[tuple[IntArray, IntArray, BoolArray]],
    lengths: Sequence[int],
    parents: Sequence[int],
    places: Sequence[str],
) -> Pack:
    ids_T, positions_T, target_T = (np.concatenate(kind) for kind in zip(*parts, strict=True))
    shared = tuple(parents) if max(parents) >= 0 else ()
    return Pack(ids_T, positions_T, target_T, tuple(lengths), tuple(places), shared)


def _refuse_empty(rows: Sequence[Encoded]) -> None:
    if not rows or not all(len(row) for row in rows):
        raise BadInput("a pack needs at least one row, and no row without tokens", fix="leave empty rows out")
