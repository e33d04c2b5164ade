"""Scores grouped into the units that vary independently: single items, or clusters of items that belong together.

A unit is kept as its sum and its size; every mean here is (sum of sums) / (sum of sizes). Nothing is inferred here.

    >>> units = group_units([1.0, 0.0, 1.0], ["a", "a", "b"])
    >>> units.sums.tolist(), units.sizes.tolist(), round(units.mean, 3)
    ([1.0, 1.0], [1.0, 2.0], 0.667)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luthier.ground.errors import BadInput

Floats = NDArray[np.float64]

NEGLIGIBLE = 1e-12  # differences below this come from rounding, not from data


@dataclass(frozen=True)
class Units:
    """Sums and sizes of C independent units, in an order that does not depend on that of the items.

    `clustered` is false when every unit is one item.
    """

    sums: Floats  # [C]
    sizes: Floats  # [C]
    clustered: bool

    def __len__(self) -> int:
        return len(self.sums)

    @property
    def n(self) -> int:
        """Number of items."""
        return int(self.sizes.sum())

    @property
    def mean(self) -> float:
        """Mean over items; 0 when there are none."""
        return math.fsum(self.sums) / self.n if self.n else 0.0

    @property
    def residuals(self) -> Floats:
        """What each unit's sum has beyond `mean * size`: [C], and 0 in all when the units agree."""
        residuals: Floats = self.sums - self.mean * self.sizes
        return np.where(np.abs(residuals) < NEGLIGIBLE, 0.0, residuals)

    def negated(self) -> Units:
        """Return the units of the scores with the opposite sign."""
        return _in_order(-self.sums, self.sizes)


def group_units(scores: Sequence[float], clusters: Sequence[str] | None = None) -> Units:
    """Return the units of `scores`: one for each item, or one for each distinct name in `clusters`.

    Clusters of one item each are the same as none.
    """
    if clusters is not None and len(clusters) != len(scores):
        raise BadInput(f"there are {len(scores)} scores but {len(clusters)} cluster names")
    members: dict[str | int, list[float]] = {}
    for index, score in enumerate(scores):
        members.setdefault(index if clusters is None else clusters[index], []).append(score)
    sums = np.array([math.fsum(values) for values in members.values()], dtype=np.float64)
    return _in_order(sums, np.array([len(values) for values in members.values()], dtype=np.float64))


def _in_order(sums: Floats, sizes: Floats) -> Units:
    order = np.lexsort((sizes, sums))
    return Units(sums[order], sizes[order], clustered=bool((sizes > 1).any()))
