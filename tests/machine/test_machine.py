"""What the machine says of itself."""

from __future__ import annotations

import datetime

from luthier.machine.describe import environment
from luthier.machine.memory import PeakMemory, give_back_memory


def test_the_peak_sees_a_spike_and_forgets_it_afterwards() -> None:
    give_back_memory()  # otherwise what other tests have freed could serve the block
    with PeakMemory() as quiet:
        pass
    with PeakMemory() as peak:
        block = bytearray(200_000_000)
        block[::4096] = b"x" * len(block[::4096])
        del block
    give_back_memory()
    with PeakMemory() as after:
        pass
    assert 150_000_000 < peak.bytes - quiet.bytes < 300_000_000
    assert peak.bytes - after.bytes > 150_000_000


def test_the_environment_names_date_machine_and_versions() -> None:
    seen = environment(seed=7)
    assert datetime.datetime.fromisoformat(seen.date).tzinfo is not None
    assert {"python", "torch", "luthier"} <= set(seen.versions)
    assert "cores" in seen.machine and seen.seed == 7
