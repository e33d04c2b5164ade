"""A machine and a process that are the same for every plan, whatever runs beside a test or ran before it."""

from __future__ import annotations

import pytest

from luthier.machine.catalogue import Device
from luthier.machine.limits import memory_total_bytes

BASELINE = 500_000_000
PROCESSOR = Device(
    name="a processor",
    kind="cpu",
    memory_bytes=memory_total_bytes(),
    bandwidth_bytes_s=2e10,
    peak_flops_s={"fp32": 1e11, "bf16": 2e11},
    native=("fp32", "bf16"),
    source="made up",
    measured=True,
)


def make_steady(patch: pytest.MonkeyPatch) -> None:
    """Let `plan` and `train` plan for this processor and this process."""
    patch.setattr("luthier.verbs.fitting.resident_bytes", lambda: BASELINE)
    for verb in ("plan", "fitting"):
        patch.setattr(f"luthier.verbs.{verb}.this_device", lambda measure=True: PROCESSOR)
