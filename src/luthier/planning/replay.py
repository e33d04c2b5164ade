"""Run the allocations of a trace through a model of the allocator: what is there at the peak, and what is wasted.

Which term a block belongs to, and what the process has beside its tensors, is not decided here.

    replayed(trace, "cpu", lambda block: block.stage).peak_bytes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from luthier.ground.plan_result import Moment
from luthier.planning.glibc import LARGEST_THRESHOLD, Heap
from luthier.planning.trace import Block, MemoryTrace


@dataclass
class Replay:
    """The run through an allocator.

    Attributes:
        peak_event: when the most was held, a number of the trace's events.
        peak_bytes: the most that the process held.
        by_stage: the most bytes in tensors at each stage.
        live: what was there at the peak.
    """

    peak_event: int = 0
    peak_bytes: int = 0
    by_stage: dict[str, int] = field(default_factory=dict)
    live: list[Block] = field(default_factory=list)

    @property
    def waste_bytes(self) -> int:
        """What the allocator held beside what was used at the peak."""
        return self.peak_bytes - sum(block.bytes for block in self.live)

    def moments(self, beside_bytes: int) -> tuple[Moment, ...]:
        """Return the most bytes at each stage, with what the process has beside its tensors."""
        more = beside_bytes + self.waste_bytes
        return tuple(Moment(stage=stage, peak_bytes=size + more) for stage, size in self.by_stage.items())


def replayed(trace: MemoryTrace, device: str, stage_of: Callable[[Block], str]) -> Replay:
    """Replay the events; only what happens within steps counts for the peak.

    Args:
        device: cpu, or another, whose allocator is not modelled.
        stage_of: the stage at which a block was made.
    """
    allocator: Any = Heap(LARGEST_THRESHOLD) if device == "cpu" else _Exact()
    trims, begin, end = set(trace.marks.get("trim", ())), trace.marks["step"][0], trace.marks["step_end"][-1]
    numbers: dict[int, int] = {}
    replay, used = Replay(), 0
    for place, event in enumerate(trace.events[:end]):
        if place in trims:
            allocator.trim()
        index = abs(event) - 1
        used += trace.blocks[index].bytes * (1 if event > 0 else -1)
        if event < 0:
            allocator.free(numbers.pop(index))
            continue
        numbers[index] = allocator.malloc(trace.blocks[index].bytes)
        if place < begin:
            continue
        now, stage = allocator.resident_bytes, stage_of(trace.blocks[index])
        replay.by_stage[stage] = max(replay.by_stage.get(stage, 0), used)
        if now > replay.peak_bytes:
            replay.peak_bytes, replay.peak_event = now, place
    replay.live = live_at(trace, replay.peak_event)
    return replay


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


def live_at(trace: MemoryTrace, event: int) -> list[Block]:
    """Return what is there after an event."""
    return [block for block in trace.blocks if block.made <= event and (block.freed is None or block.freed > event)]
