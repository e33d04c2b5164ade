"""What the replay of a trace says of the peak: what the process holds, not what it uses."""

from __future__ import annotations

import pytest

from luthier.planning.replay import replayed
from luthier.planning.trace import Block, MemoryTrace

MB = 1 << 20


def scattered() -> MemoryTrace:
    """Twenty blocks of 1 MB, every other one freed, then six of 1.5 MB, which fit into no hole: 19 MB are used then."""
    trace = MemoryTrace()
    trace.mark("step")
    sizes = [MB] * 20 + [3 * MB // 2] * 6
    for number, size in enumerate(sizes):
        if number == 20:
            for freed in range(0, 20, 2):
                trace.blocks[freed].freed = len(trace.events)
                trace.events.append(-freed - 1)
        trace.blocks.append(Block(size, len(trace.events), "a.place", "forward"))
        trace.events.append(number + 1)
    trace.mark("step_end")
    return trace


@pytest.mark.parametrize(("device", "held"), [("cpu", 29), ("cuda", 20)])
def test_the_peak_is_when_the_process_holds_most(device: str, held: int) -> None:
    trace = scattered()
    places = {event: (0, f"event {event}") for event in range(len(trace.events))}
    replay = replayed(trace, device, lambda block: block.stage, lambda _: "temporary", places)
    assert replay.peak_bytes == pytest.approx(held * MB, rel=0.02)
    assert replay.peak_at == ("event 35" if device == "cpu" else "event 19")
    used = 19 * MB if device == "cpu" else 20 * MB
    assert sum(replay.sizes) == used and replay.waste_bytes == replay.peak_bytes - used
    assert replay.by_stage == {"forward": 20 * MB}
