"""How much memory this process may use: what the machine has, or what its container allows.

Linux puts limits on groups of processes (cgroups, version 1 and 2); the smallest one on the way up counts. Peak memory
of a stretch of work is `luthier.machine.memory`.

    >>> 0 < memory_free_bytes() <= memory_total_bytes()
    True
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

_ROOT = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60  # version 1 writes "no limit" as a huge number


def memory_total_bytes(root: Path = _ROOT) -> int:
    """Return the bytes of memory that this process may fill at most."""
    limits = [limit for limit, _ in _groups(root)]
    return min([psutil.virtual_memory().total, *limits])


def memory_free_bytes(root: Path = _ROOT) -> int:
    """Return the bytes that are free now, within every limit."""
    rooms = [max(0, limit - used) for limit, used in _groups(root)]
    return min([psutil.virtual_memory().available, *rooms])


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and use of each group that this process is in, bytes."""
    for folder in _folders(root):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = _number(folder / limit_name)
            if limit is not None and limit < _NO_LIMIT:
                yield limit, max(0, (_number(folder / used_name) or 0) - _reclaimable(folder))


def _folders(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's groups, from its own up to the root of each hierarchy."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        own = top / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder == top or top in folder.parents)


def _reclaimable(folder: Path) -> int:
    """Return the bytes of file pages in a group's use: the system drops them when memory is wanted."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    pairs = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return int(pairs.get("inactive_file", pairs.get("total_inactive_file", "0")))


def _number(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
