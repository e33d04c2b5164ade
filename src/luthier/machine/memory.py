"""Peak memory of a stretch of work: of the process on a CPU, of the allocator on a GPU.

Linux lets a process reset its own high-water mark (`/proc/self/clear_refs`); where that is not allowed, a thread
samples the resident size every 20 ms, which can miss a spike and is therefore the second choice.

    >>> with PeakMemory() as peak: block = bytearray(50_000_000)
    >>> peak.bytes > 50_000_000
    True
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from pathlib import Path
from types import TracebackType

import psutil

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_SAMPLE_S = 0.02


def give_back_memory() -> None:
    """Return freed memory, which the C library keeps for itself, to the system; only glibc knows how."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int:
    """Return what this process has in memory now, after giving back what was freed."""
    give_back_memory()
    return int(psutil.Process().memory_info().rss)


class PeakMemory:
    """Context manager; afterwards (and meanwhile) `.bytes` is the highest resident size seen inside."""

    def __init__(self) -> None:
        self._sampled = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._final: int | None = None

    def __enter__(self) -> PeakMemory:
        if not _reset_high_water():
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        _reset_gpu()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._final = self.bytes
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def bytes(self) -> int:
        """Peak so far: GPU allocator bytes when a GPU was used, otherwise resident bytes of the process."""
        if self._final is not None:
            return self._final
        return _gpu_peak() or (self._sampled if self._thread is not None else _high_water())

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._stop.is_set():
            self._sampled = max(self._sampled, process.memory_info().rss)
            self._stop.wait(_SAMPLE_S)


def _reset_high_water() -> bool:
    try:
        _CLEAR.write_text("5")
        return _high_water() > 0
    except OSError:
        return False


def _high_water() -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _reset_gpu() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def _gpu_peak() -> int:
    torch = sys.modules.get("torch")
    return int(torch.cuda.max_memory_allocated()) if torch is not None and torch.cuda.is_initialized() else 0
