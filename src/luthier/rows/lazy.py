"""Rows that are read when they are taken, as a sequence.

class Store(LazyRows): ...     # lengths, key, and _row(number)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from luthier.rows.types import Encoded, IntArray


class LazyRows(Sequence[Encoded]):
    """A sequence of rows that knows their lengths without reading them.

    Attributes:
        lengths: tokens of each row, [N].
        key: what the rows are, for fingerprints.
    """

    lengths: IntArray
    key: str

    @abstractmethod
    def _row(self, number: int) -> Encoded:
        """Return row `number`, from 0 on."""

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, number: int) -> Encoded: ...

    @overload
    def __getitem__(self, number: slice) -> list[Encoded]: ...

    def __getitem__(self, number: int | slice) -> Encoded | list[Encoded]:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return self._row(int(number) % len(self))
