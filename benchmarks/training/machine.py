"""What a result says of the machine: processor, cores, memory. No names, no paths.

>>> sorted(describe())
['cores', 'cpu', 'memory_gib', 'system']
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Return the processor's model, the cores that this process may use, and the memory in GiB."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "system": platform.system(),
    }


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in fields.items()}
    bf16 = " with AVX512-BF16" if "avx512_bf16" in facts.get("flags", "") else ""
    return facts.get("model name", platform.machine()) + bf16
