"""One process at a time in a run directory.

The lock is an `flock` on the file `lock`, which the kernel releases when its owner dies, so a stale lock cannot
exist; the file's text names the owner for people. Whoever holds a folder may lock it again further in. On network
file systems without `flock` the lock is refused rather than faked.

    >>> import tempfile, pathlib
    >>> with folder_lock(pathlib.Path(tempfile.mkdtemp())): pass
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from luthier.ground.errors import BadInput

_HELD: ContextVar[frozenset[Path]] = ContextVar("_HELD", default=frozenset())


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` (made if absent) for the length of the block.

    Raises:
        BadInput: another process holds it; the sentence names its pid and host.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None
    whole = folder.resolve()
    if whole in _HELD.get():
        yield
        return
    path = folder / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise _unusable(folder, error) from None
    try:
        _acquire(descriptor, folder, path)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        token = _HELD.set(_HELD.get() | {whole})
        try:
            yield
        finally:
            _HELD.reset(token)
    finally:
        os.close(descriptor)


def _unusable(folder: Path, error: OSError) -> BadInput:
    return BadInput(
        f"this folder cannot be written to ({error.strerror})", where=str(folder), fix="choose another folder (--out)"
    )


def _acquire(descriptor: int, folder: Path, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = path.read_text(errors="replace").strip() or "another process"
        raise BadInput(
            f"this folder is in use by {owner}",
            where=str(folder),
            fix="wait for it to end, or choose another folder (--out)",
        ) from None
    except OSError as error:
        raise BadInput(
            f"this file system cannot lock files ({error.strerror})", where=str(folder), fix="use a local folder"
        ) from error
