"""Which tokens of a pack see which: segments that lie end to end, each after the one it continues.

A document that shares nothing is one segment without a parent. Documents that begin alike share their beginning: one
segment holds it, once, and each goes on in a segment of its own, whose tokens see the whole chain of parents and what
stands before them in their own. A tree of segments lies in one run of the pack, parents first. The kernels'
description of the same (`UnitTable`) is made here too. Nothing is computed on hidden states here.

    >>> Segments((3, 2, 2), (-1, 0, 0)).chain(2)
    [0, 2]
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Lengths of the segments, in the order of the pack, and the segment that each continues (−1: none)."""

    lengths: tuple[int, ...]
    parents: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.parents:
            object.__setattr__(self, "parents", (-1,) * len(self.lengths))
        if len(self.parents) != len(self.lengths) or min(self.lengths, default=0) < 1:
            raise ValueError(f"{self.lengths} with parents {self.parents} are no segments")
        for n, parent in enumerate(self.parents):
            if parent >= n or (parent >= 0 and self.root(parent) != self.root(n - 1)):
                raise ValueError(f"segment {n} does not lie in the run of the tree of its parent {parent}")

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def is_flat(self) -> bool:
        """Whether no segment continues another."""
        return max(self.parents, default=-1) < 0

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First token of each segment."""
        return (0, *itertools.accumulate(self.lengths))[:-1]

    def root(self, segment: int) -> int:
        """Return the first segment of the tree."""
        while self.parents[segment] >= 0:
            segment = self.parents[segment]
        return segment

    def chain(self, segment: int) -> list[int]:
        """Return the segments that a document consists of up to and with `segment`, first first."""
        links = [segment]
        while self.parents[links[-1]] >= 0:
            links.append(self.parents[links[-1]])
        return links[::-1]


@dataclass(frozen=True)
class UnitTable:
    """What the attention kernels read, all int64 on the CPU.

    Attributes:
        units: per segment [U, 5]: first query row, queries, first of its ranges, ranges, keys of its chain.
        ranges: per range of keys [R, 2]: first token, tokens.
        places: per query row [Q]: its place in its chain.
        groups: per tree [G, 5]: first unit, units, first token, tokens, keys of its longest chain.
    """

    units: Tensor
    ranges: Tensor
    places: Tensor
    groups: Tensor


@lru_cache(maxsize=32)
def unit_table(segments: Segments) -> UnitTable:
    """Return the table in which every token asks."""
    return _table(segments, [(start, length) for start, length in _spans(segments)], _places(segments))


def wanted_table(segments: Segments, wanted_N: Tensor) -> UnitTable:
    """Return the table in which only the tokens `wanted_N` (rising) ask; query row n is the n-th of them."""
    bounds = torch.tensor([*segments.starts, segments.tokens])
    cuts = torch.searchsorted(wanted_N, bounds).tolist()
    spans = [(cuts[n], cuts[n + 1] - cuts[n]) for n in range(len(segments.lengths))]
    return _table(segments, spans, _places(segments)[wanted_N])


def _table(segments: Segments, queries: Sequence[tuple[int, int]], places: Tensor) -> UnitTable:
    units: list[list[int]] = []
    ranges: list[list[int]] = []
    for n, (first, count) in enumerate(queries):
        links = segments.chain(n)
        keys = sum(segments.lengths[link] for link in links)
        units.append([first, count, len(ranges), len(links), keys])
        ranges += [[segments.starts[link], segments.lengths[link]] for link in links]
    return UnitTable(torch.tensor(units), torch.tensor(ranges), places, _groups(segments, units))


def _groups(segments: Segments, units: list[list[int]]) -> Tensor:
    roots = [n for n, parent in enumerate(segments.parents) if parent < 0]
    ends = [*roots[1:], len(segments.lengths)]
    return torch.tensor(
        [
            [
                first,
                end - first,
                segments.starts[first],
                sum(segments.lengths[first:end]),
                max(unit[4] for unit in units[first:end]),
            ]
            for first, end in zip(roots, ends, strict=True)
        ]
    )


def _spans(segments: Segments) -> list[tuple[int, int]]:
    return list(zip(segments.starts, segments.lengths, strict=True))


def _places(segments: Segments) -> Tensor:
    before = [sum(segments.lengths[link] for link in segments.chain(n)[:-1]) for n in range(len(segments.lengths))]
    return torch.cat(
        [torch.arange(b, b + length) for b, length in zip(before, segments.lengths, strict=True)]
        or [torch.zeros(0, dtype=torch.long)]
    )
