"""What a process holds when the C library of Linux (glibc) serves its memory: an exact model of its large allocations.

A block that is freed is rarely given back to the system, and a block that comes next rarely fits exactly: what a
process holds is more than what it uses, by up to a fifth. This is a replay of `malloc`, as in glibc's malloc.c (2.36),
for aligned blocks from one thread: free chunks are merged with their neighbours and chosen by best fit; what no chunk
serves comes from the top of the heap, or, from a threshold on, from a mapping of its own that ends with the block; the
threshold grows with the blocks that were mapped and freed, up to 32 MB. Pages count from when they are first written.
Other C libraries and other allocators are not modelled.

    >>> heap = Heap(); block = heap.malloc(1000); heap.free(block); heap.resident_bytes
    4096
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

PAGE = 4096
_ALIGNMENT = 64  # of PyTorch's blocks on a CPU
_SMALLEST = 32
_TOP_PAD = 128 << 10
FIRST_THRESHOLD = 128 << 10
LARGEST_THRESHOLD = 32 << 20
_TRIM_FROM = 64 << 10


@dataclass(slots=True)
class _Taken:
    """A block that is in use: where its chunk is, and how large; `mapped` if it has a mapping of its own."""

    address: int
    size: int
    mapped: bool


class Heap:
    """One process's memory.

    Args:
        threshold: from which size on blocks are mapped; a process that has freed large mapped blocks is at 32 MB.

    Attributes:
        peak_bytes: the most that was resident at one time.
    """

    def __init__(self, threshold: int = FIRST_THRESHOLD) -> None:
        self.threshold = threshold
        self.trim_threshold = 2 * threshold
        self.peak_bytes = 0
        self._taken: dict[int, _Taken] = {}
        self._number = 0
        self._by_size: list[tuple[int, int]] = []  # (size, address) of free chunks
        self._size_at: dict[int, int] = {}  # free chunks by where they begin
        self._begin_of: dict[int, int] = {}  # … and by where they end
        self._top, self._end = 0, 0  # the top chunk lies from here to there
        self._mapped = 0
        self._touched = _Pages()

    @property
    def resident_bytes(self) -> int:
        """What is resident now."""
        return self._mapped + self._touched.count * PAGE

    # -- malloc and free -------------------------------------------------------------------------------------------

    def malloc(self, size: int) -> int:
        """Take a block of `size` bytes, which is written at once, and return its number."""
        chunk = max(_SMALLEST, (size + 8 + 15) & ~15)
        padded = chunk + _ALIGNMENT + _SMALLEST
        found = self._from_bins(padded) or self._from_top(padded)
        if found is None and padded >= self.threshold:
            return self._map(padded)
        if found is None:
            self._grow(padded)
            found = self._from_top(padded)
            assert found is not None
        return self._aligned(*found, chunk, size)

    def free(self, number: int) -> None:
        """Give a block back."""
        block = self._taken.pop(number)
        if not block.mapped:
            self._release(block.address, block.size)
            return
        self._mapped -= _pages_up(block.size)
        if self.threshold < block.size <= LARGEST_THRESHOLD:
            self.threshold, self.trim_threshold = block.size, 2 * block.size

    def trim(self) -> None:
        """Give free pages back to the system, as `malloc_trim(0)` does."""
        for size, address in self._by_size:
            self._touched.clear(-(-(address + _SMALLEST) // PAGE), (address + size) // PAGE)
        self._shrink(0)

    # -- parts -----------------------------------------------------------------------------------------------------

    def _aligned(self, address: int, padded: int, chunk: int, size: int) -> int:
        """Cut an aligned block out of a chunk; what stands before and behind it is free again."""
        begin = address
        if (address + 16) % _ALIGNMENT:
            begin = (address + 16 + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT - 16
            if begin - address < _SMALLEST:
                begin += _ALIGNMENT
        kept = padded - (begin - address)
        if kept - chunk > _SMALLEST:
            kept = chunk
        self._touched.set(begin // PAGE, (begin + size + 16) // PAGE + 1)
        number = self._take(begin, kept, mapped=False)
        if begin > address:
            self._release(address, begin - address)
        if padded - (begin - address) > kept:
            self._release(begin + kept, padded - (begin - address) - kept)
        return number

    def _take(self, address: int, size: int, mapped: bool) -> int:
        self._number += 1
        self._taken[self._number] = _Taken(address, size, mapped)
        self.peak_bytes = max(self.peak_bytes, self.resident_bytes)
        return self._number

    def _from_bins(self, size: int) -> tuple[int, int] | None:
        """Return where a chunk of `size` begins in the smallest free one that has it, and its size.

        What is left is a free chunk again, unless it would be too small for one.
        """
        place = bisect_left(self._by_size, (size, 0))
        if place == len(self._by_size):
            return None
        found, address = self._by_size[place]
        self._forget(address)
        if found - size < _SMALLEST:
            return address, found
        self._keep(address + size, found - size)
        return address, size

    def _from_top(self, size: int) -> tuple[int, int] | None:
        if self._end - self._top < size + _SMALLEST:
            return None
        address, self._top = self._top, self._top + size
        return address, size

    def _map(self, padded: int) -> int:
        """Map pages of its own for a block, which begins 64 bytes into them; all of them count as its chunk."""
        size = _pages_up(padded + 8) - (_ALIGNMENT - 16)
        self._mapped += _pages_up(size)
        return self._take(0, size, mapped=True)

    def _grow(self, size: int) -> None:
        self._end = _pages_up(self._top + size + _TOP_PAD + _SMALLEST)

    def _release(self, address: int, size: int) -> None:
        """Merge a chunk with its free neighbours; at the top, give back what is too much."""
        before = self._begin_of.get(address)
        if before is not None:
            size += address - before
            self._forget(before)
            address = before
        behind = self._size_at.get(address + size)
        if behind is not None:
            self._forget(address + size)
            size += behind
        if address + size == self._top:
            self._top = address
        else:
            self._keep(address, size)
        if size >= _TRIM_FROM and self._end - self._top >= self.trim_threshold:
            self._shrink(_TOP_PAD)

    def _shrink(self, pad: int) -> None:
        extra = (self._end - self._top - _SMALLEST - 1 - pad) // PAGE * PAGE
        if extra > 0:
            self._end -= extra
            self._touched.clear(self._end // PAGE, None)

    def _keep(self, address: int, size: int) -> None:
        insort(self._by_size, (size, address))
        self._size_at[address] = size
        self._begin_of[address + size] = address

    def _forget(self, address: int) -> None:
        size = self._size_at.pop(address)
        del self._begin_of[address + size]
        del self._by_size[bisect_left(self._by_size, (size, address))]


class _Pages:
    """Which pages of the heap are resident."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self.count = 0

    def set(self, start: int, stop: int) -> None:
        if stop > len(self._bits):
            self._bits.extend(bytes(max(stop - len(self._bits), len(self._bits))))
        self.count += self._bits.count(0, start, stop)
        self._bits[start:stop] = b"\1" * (stop - start)

    def clear(self, start: int, stop: int | None) -> None:
        stop = len(self._bits) if stop is None else min(stop, len(self._bits))
        if stop > start:
            self.count -= self._bits.count(1, start, stop)
            self._bits[start:stop] = bytes(stop - start)


def _pages_up(size: int) -> int:
    return -(-size // PAGE) * PAGE
