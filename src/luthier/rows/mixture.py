"""Several sources of rows as one, and in which order an epoch takes them.

Each source goes round in a cycle of its own: of weight 0.5 an epoch takes one half of it and the next epoch the other;
of weight 2 it takes all rows twice. A source with a share gets so many rows that it makes up this share of the epoch's
tokens. Which rows an epoch takes, and in which order, depends on lengths, settings and seed alone, so that "where the
data stands" is one number. What a row is, or means, is not known here.

    rows = MixedRows([Source("docs/", docs), Source("general/", general, share=0.1)], window=8192)
    rows.epoch(seed=0, epoch=1)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from luthier.ground.errors import BadInput
from luthier.ground.hashes import key_of
from luthier.ground.seeds import derived_seed
from luthier.rows.lazy import LazyRows
from luthier.rows.types import Encoded, IntArray


@dataclass(frozen=True)
class Source:
    """Rows, and how much of them an epoch takes.

    Attributes:
        chosen: the numbers of the rows that are used at all, rising; None: all.
    """

    name: str
    rows: Sequence[Encoded]
    weight: float = 1.0
    share: float | None = None
    chosen: IntArray | None = None


class MixedRows(LazyRows):
    """The rows of all sources, one source after the other.

    Args:
        window: shuffle only so many rows of a source among each other, as they come, and take the sources in step;
            None: shuffle everything.

    Raises:
        BadInput: a source has no rows.
    """

    def __init__(self, sources: Sequence[Source], window: int | None = None) -> None:
        self.sources, self._window = tuple(sources), window
        for source in sources:
            if not len(source.rows):
                raise BadInput("the source has no rows to train on", where=source.name, fix="leave it out")
        self._chosen = [_chosen(source) for source in sources]
        self._ends = np.cumsum([len(chosen) for chosen in self._chosen])
        own = [lengths_of(source.rows)[chosen] for source, chosen in zip(sources, self._chosen, strict=True)]
        self.lengths: IntArray = np.concatenate(own)
        self.key = self._key()

    @property
    def sizes(self) -> list[int]:
        """How many rows each source has."""
        return [len(chosen) for chosen in self._chosen]

    def _row(self, number: int) -> Encoded:
        source = int(np.searchsorted(self._ends, number, side="right"))
        within = number - self._start(source)
        return self.sources[source].rows[int(self._chosen[source][within])]

    def epoch(self, seed: int, epoch: int) -> IntArray:
        """Return the numbers of the rows that an epoch takes, in its order."""
        taken = [self._start(n) + self._taken(n, seed, epoch) for n in range(len(self.sources))]
        if self._window is None:
            together = np.concatenate(taken)
            return together[np.random.default_rng(derived_seed(seed, "order", epoch)).permutation(len(together))]
        places = [(np.arange(len(rows)) + 0.5) / max(1, len(rows)) for rows in taken]
        return np.concatenate(taken)[np.argsort(np.concatenate(places), kind="stable")]

    def _taken(self, number: int, seed: int, epoch: int) -> IntArray:
        """Return which of its own rows a source gives to an epoch, in its order."""
        source = self.sources[number]
        if source.share is None:
            rows = len(self._chosen[number])
            first, end = (math.floor(Fraction(str(source.weight)) * rows * e) for e in (epoch, epoch + 1))
            return self._cycles(number, seed, first, end)
        return self._by_tokens(number, seed, epoch, self._share_tokens(source.share))

    def _share_tokens(self, share: float) -> float:
        """Return the tokens of an epoch that a source with this share has."""
        weighted = sum(
            source.weight * int(self._own_lengths(n).sum())
            for n, source in enumerate(self.sources)
            if source.share is None
        )
        return share * weighted / (1.0 - sum(source.share or 0.0 for source in self.sources))

    def _by_tokens(self, number: int, seed: int, epoch: int, tokens: float) -> IntArray:
        """Return the rows whose first token lies in the epoch's stretch of the source's endless cycle of tokens."""
        lengths = self._own_lengths(number)
        whole = int(lengths.sum())
        first, end = epoch * tokens, (epoch + 1) * tokens
        parts = []
        for cycle in range(math.floor(first / whole), math.floor(end / whole) + 1):
            order = self._cycle(number, seed, cycle)
            begins = cycle * whole + np.concatenate([[0], np.cumsum(lengths[order])[:-1]])
            parts.append(order[(begins >= first) & (begins < end)])
        return np.concatenate(parts)

    def _cycles(self, number: int, seed: int, first: int, end: int) -> IntArray:
        """Return places `first` to `end` − 1 of a source's endless cycle."""
        rows = len(self._chosen[number])
        parts = [np.zeros(0, dtype=np.int64)]
        for cycle in range(first // rows, -(-end // rows)):
            order = self._cycle(number, seed, cycle)
            parts.append(order[max(0, first - cycle * rows) : end - cycle * rows])
        return np.concatenate(parts)

    def _cycle(self, number: int, seed: int, cycle: int) -> IntArray:
        """Return the order in which a source's rows come in its own round number `cycle`."""
        rows = len(self._chosen[number])
        own = derived_seed(seed, "source", self.sources[number].name, cycle)
        return window_order(rows, self._window or rows, own)

    def _own_lengths(self, number: int) -> IntArray:
        return self.lengths[self._start(number) : int(self._ends[number])]

    def _start(self, number: int) -> int:
        return int(self._ends[number - 1]) if number else 0

    def _key(self) -> str:
        parts = [
            [source.name, rows_key(source.rows), source.weight, source.share, key_of(chosen.tolist())]
            if source.chosen is not None
            else [source.name, rows_key(source.rows), source.weight, source.share]
            for source, chosen in zip(self.sources, self._chosen, strict=True)
        ]
        return f"{len(self)} rows, {key_of([parts, self._window])}"


def window_order(rows: int, window: int, seed: int) -> IntArray:
    """Return an order of `rows` rows in which each window of them is shuffled; the windows stay in their order.

    Where the first window ends is drawn too, so that other rows come together when another seed is used.

    >>> sorted(window_order(10, 4, 0).tolist()) == list(range(10))
    True
    """
    random = np.random.default_rng(seed)
    if window >= rows:
        return random.permutation(rows)
    blocks = (np.arange(rows) + random.integers(window)) // window
    return np.lexsort((random.random(rows), blocks))


def lengths_of(rows: Sequence[Encoded]) -> IntArray:
    """Return the tokens of each row, without reading the rows if they know their lengths."""
    return rows.lengths if isinstance(rows, LazyRows) else np.array([len(row) for row in rows], dtype=np.int64)


def rows_key(rows: Sequence[Encoded]) -> str:
    """Return the number of rows and a hash of their tokens, masks, weights, labels and order."""
    if isinstance(rows, LazyRows):
        return rows.key
    digest = hashlib.sha256()
    for row in rows:
        digest.update(len(row).to_bytes(8, "big") + row.ids_T.tobytes() + row.target_T.tobytes())
        for more in (row.weight_T, row.encoder_S, row.label_L):
            digest.update(b"" if more is None else more.tobytes())
    return f"{len(rows)} rows, {digest.hexdigest()[:16]}"


def _chosen(source: Source) -> IntArray:
    return np.arange(len(source.rows)) if source.chosen is None else source.chosen
