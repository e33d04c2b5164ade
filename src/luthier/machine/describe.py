"""What this machine and this installation are, for provenance.

>>> environment().versions["python"].count(".")
2
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import psutil

from luthier.ground.results import Environment

_PACKAGES = (
    "luthier",
    "torch",
    "transformers",
    "peft",
    "safetensors",
    "datasets",
    "lancedb",
    "pydantic",
    "numpy",
    "scipy",
)


def environment(seed: int = 0) -> Environment:
    """Return the date, the machine and the versions that a result is made with."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return Environment(date=now, machine=machine_sentence(), versions=versions, seed=seed)


def machine_sentence() -> str:
    """Return processor, usable cores and memory in one phrase, such as `AMD EPYC, 2 cores, 24 GB`."""
    memory_gb = psutil.virtual_memory().total / 2**30
    return f"{processor_name()}, {usable_cores()} cores, {memory_gb:.0f} GiB"


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """Return what the system calls the processor, such as `AMD EPYC`."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if platform.system() == "Darwin":
        name = subprocess.run(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        return name.stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()
