"""Run the allocations of a trace through a model of the allocator: what is there at the peak, and what is wasted.

Which term a block belongs to, and what the process has beside its tensors, is not decided here.

    replayed(trace, "cpu", stage_of, term_of, places_of(trace)).peak_bytes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.ground.plan_result import TERMS, Moment, Terms
from luthier.planning.glibc import LARGEST_THRESHOLD, Heap
from luthier.planning.trace import Block, MemoryTrace

Profile = dict[tuple[int, str, str], list[tuple[int, ...]]]


@dataclass
class Replay:
    """The run through an allocator.

    Attributes:
        peak_bytes: the most that the process held.
        peak_at: in words, when.
        sizes: the bytes of each of `TERMS` then.
        by_stage: the most bytes in tensors at each stage.
        profile: of the last step, the bytes of each of `TERMS` after every block that is made; by the number of the
            forward, the stage and the function. Blocks of one function stand in their order.
    """

    peak_bytes: int = 0
    peak_at: str = ""
    sizes: list[int] = field(default_factory=list)
    by_stage: dict[str, int] = field(default_factory=dict)
    profile: Profile = field(default_factory=dict)

    @property
    def waste_bytes(self) -> int:
        """What the allocator held beside what was used at the peak."""
        return self.peak_bytes - sum(self.sizes)

    def terms(self, beside_bytes: int) -> Terms:
        """Return the terms at the peak, with what the process has beside its tensors."""
        return terms_of(self.sizes, beside_bytes + self.waste_bytes)

    def moments(self, beside_bytes: int) -> tuple[Moment, ...]:
        """Return the most bytes at each stage, with what the process has beside its tensors."""
        more = beside_bytes + self.waste_bytes
        return tuple(Moment(stage=stage, peak_bytes=size + more) for stage, size in self.by_stage.items())


def replayed(
    trace: MemoryTrace,
    device: str,
    stage_of: Callable[[Block], str],
    term_of: Callable[[Block], str],
    places: Mapping[int, tuple[int, str]],
) -> Replay:
    """Replay the events; only what happens within steps counts for the peak.

    Args:
        device: cpu, or another, whose allocator is not modelled.
        places: of each event of the steps that makes a block: which forward it belongs to, and the place in words.
    """
    allocator: Any = Heap(LARGEST_THRESHOLD) if device == "cpu" else _Exact()
    trims, begin, end = set(trace.marks.get("trim", ())), trace.marks["step"][0], trace.marks["step_end"][-1]
    last = trace.marks["step"][-1]
    numbers: dict[int, int] = {}
    replay, sizes, used = Replay(), [0] * len(TERMS), 0
    terms = [TERMS.index(term_of(block)) for block in trace.blocks]
    for event, number in enumerate(trace.events[:end]):
        if event in trims:
            allocator.trim()
        index = abs(number) - 1
        block = trace.blocks[index]
        change = block.bytes if number > 0 else -block.bytes
        sizes[terms[index]] += change
        used += change
        if number < 0:
            allocator.free(numbers.pop(index))
            continue
        numbers[index] = allocator.malloc(block.bytes)
        if event < begin:
            continue
        now, stage = allocator.resident_bytes, stage_of(block)
        replay.by_stage[stage] = max(replay.by_stage.get(stage, 0), used)
        if event >= last:
            replay.profile.setdefault((places[event][0], stage, block.place), []).append(tuple(sizes))
        if now > replay.peak_bytes:
            replay.peak_bytes, replay.peak_at, replay.sizes = now, places[event][1], list(sizes)
    return replay


def terms_of(sizes: Sequence[int], overhead_bytes: int) -> Terms:
    """Return sizes in the order of `TERMS` as terms, with this overhead."""
    return Terms(
        **{f"{term}_bytes": size for term, size in zip(TERMS[:-1], sizes, strict=False)}, overhead_bytes=overhead_bytes
    )


class _Exact:
    """An allocator that wastes only what rounding to 512 bytes does, as CUDA's does at least."""

    def __init__(self) -> None:
        self.resident_bytes = 0
        self._sizes: list[int] = []

    def malloc(self, size: int) -> int:
        self._sizes.append(-(-size // 512) * 512)
        self.resident_bytes += self._sizes[-1]
        return len(self._sizes) - 1

    def free(self, number: int) -> None:
        self.resident_bytes -= self._sizes[number]

    def trim(self) -> None:
        """Nothing is kept that could be given back."""
