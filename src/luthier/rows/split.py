"""Split rows without leakage, and sample them so that smaller samples lie inside larger ones.

Rows that belong together stay together: rows of one group, and rows that ask the same or nearly the same. Sizes are as
near to the shares as whole groups allow.

    parts = split_rows(rows, {"train": 0.8, "dev": 0.1, "test": 0.1}, seed=0)
    few = sample_rows(parts["train"], 40, seed=0)       # its first 20 are sample_rows(…, 20, seed=0)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from luthier.ground.errors import BadInput
from luthier.ground.seeds import derived_seed
from luthier.rows.duplicates import near_pairs
from luthier.rows.types import Row


def split_rows(rows: Sequence[Row], shares: Mapping[str, float], seed: int) -> dict[str, list[Row]]:
    """Return each part's rows, in their own order.

    A part with a positive share gets at least one cluster while there are clusters enough.

    Args:
        shares: part → share; they need not sum to 1.

    Raises:
        BadInput: no share is positive, or one is negative.
    """
    total = sum(shares.values())
    if total <= 0 or min(shares.values()) < 0:
        raise BadInput("the shares of a split must be positive", fix="write shares such as 0.8, 0.1, 0.1")
    clusters = _clusters(rows)
    order = np.random.default_rng(derived_seed(seed, "split")).permutation(len(clusters))
    shuffled = sorted((clusters[i] for i in order), key=len, reverse=True)  # stable: equal sizes stay shuffled
    room = {part: share / total * len(rows) for part, share in shares.items() if share > 0}
    chosen: dict[str, list[int]] = {part: [] for part in shares}
    for left, cluster in zip(range(len(shuffled), 0, -1), shuffled, strict=True):
        part = _neediest(room, chosen, left)
        chosen[part] += cluster
        room[part] -= len(cluster)
    return {part: [rows[i] for i in sorted(numbers)] for part, numbers in chosen.items()}


def sample_rows(rows: Sequence[Row], n: int | None, seed: int) -> list[Row]:
    """Return the first `n` rows of a seeded shuffle, so that samples of one seed are nested; None: all, in order."""
    if n is None:
        return list(rows)
    order = np.random.default_rng(derived_seed(seed, "sample")).permutation(len(rows))
    return [rows[i] for i in order[:n]]


def _neediest(room: Mapping[str, float], chosen: Mapping[str, list[int]], clusters_left: int) -> str:
    """Return the part that the next cluster goes to: the one with most room, but none is left empty at the end."""
    empty = [part for part in room if not chosen[part]]
    if empty and clusters_left <= len(empty):
        return max(empty, key=lambda part: room[part])
    return max(room, key=lambda part: room[part])


def _clusters(rows: Sequence[Row]) -> list[list[int]]:
    """Return the numbers of rows that belong together."""
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_of_group: dict[str, int] = {}
    for number, row in enumerate(rows):
        if row.group is not None:
            parent[root(number)] = root(first_of_group.setdefault(row.group, number))
    for earlier, later in near_pairs(rows):
        parent[root(later)] = root(earlier)
    clusters: dict[int, list[int]] = defaultdict(list)
    for number in range(len(rows)):
        clusters[root(number)].append(number)
    return list(clusters.values())
