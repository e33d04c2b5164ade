"""Run the allocations of a trace through a model of the allocator: what is there at the peak, and what is wasted.

Which term a block belongs to, and what the process has beside its tensors, is not decided here.

    replayed(trace, "cpu", stage_of, term_of, places_of(trace)).peak_bytes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from luthier.ground.plan_result import Moment, Terms
from luthier.planning.glibc import LARGEST_THRESHOLD, Heap
from luthier.planning.trace import Block, MemoryTrace


@dataclass
class Replay:
    """The run through an allocator.

    Attributes:
        peak_bytes: the most that the process held.
        peak_at: in words, when.
        sizes: the bytes of each term then.
        by_stage: the most bytes in tensors at each stage.
        places: the bytes of each term when the tensors are the most, at each place of the last step.
    """

    peak_bytes: int = 0
    peak_at: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    by_stage: dict[str, int] = field(default_factory=dict)
    places: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def waste_bytes(self) -> int:
        """What the allocator held beside what was used at the peak."""
        return self.peak_bytes - sum(self.sizes.values())

    def terms(self, beside_bytes: int) -> Terms:
        """Return the terms at the peak, with what the process has beside its tensors."""
        sizes = {f"{term}_bytes": size for term, size in self.sizes.items()}
        return Terms(overhead_bytes=beside_bytes + self.waste_bytes, **sizes)

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
    replay, sizes, terms = Replay(), Counter[str](), [term_of(block) for block in trace.blocks]
    most: dict[tuple[int, str], int] = {}
    for event, number in enumerate(trace.events[:end]):
        if event in trims:
            allocator.trim()
        index = abs(number) - 1
        block = trace.blocks[index]
        if number < 0:
            sizes[terms[index]] -= block.bytes
            allocator.free(numbers.pop(index))
            continue
        sizes[terms[index]] += block.bytes
        numbers[index] = allocator.malloc(block.bytes)
        if event < begin:
            continue
        now, used, stage = allocator.resident_bytes, sizes.total(), stage_of(block)
        replay.by_stage[stage] = max(replay.by_stage.get(stage, 0), used)
        if event >= last and used > most.get(places[event], 0):
            most[places[event]] = used
            replay.places["{}: {}".format(*places[event])] = dict(sizes)
        if now > replay.peak_bytes:
            replay.peak_bytes, replay.peak_at, replay.sizes = now, places[event][1], dict(sizes)
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
