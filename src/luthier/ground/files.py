"""Files and folders that are whole or absent, even after a kill or a full disk.

A file is written beside its place, synced, and renamed over it; a folder is filled under a temporary name, gets a
manifest with the SHA-256 of every file, is synced, and is renamed into place. A reader that demands the manifest can
never see half of one. Archives and pickles are not handled here or anywhere.

    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp()) / "step-000001"
    >>> with whole_folder(folder) as draft: _ = (draft / "a.txt").write_text("hello")
    >>> verify_folder(folder)
    []
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from luthier.ground.errors import BadInput
from luthier.ground.hashes import sha256_file

MANIFEST = "manifest.json"
DRAFT = ".draft-"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def write_whole(path: Path, content: bytes | str) -> None:
    """Replace the file at `path` by `content`, or leave it as it was.

    Raises:
        BadInput: the disk is full, read-only or failing; the old file is intact.
    """
    data = content.encode() if isinstance(content, str) else content
    draft = path.parent / f"{DRAFT}{path.name[:100]}-{uuid.uuid4().hex[:8]}"
    with _told_as_one_sentence(path, len(data)):
        try:
            with open(draft, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(draft, path)
            sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all. NaN and infinity are refused."""
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a draft folder that becomes `path` when the block ends well, and vanishes otherwise.

    Raises:
        BadInput: `path` exists already, or the disk refused a write; nothing is left at `path`.
    """
    if path.exists():
        raise BadInput(
            "this folder exists already and is never overwritten", where=str(path), fix="choose another name"
        )
    draft = path.parent / f"{DRAFT}{path.name}-{uuid.uuid4().hex[:8]}"
    with _told_as_one_sentence(path, None):
        try:
            draft.mkdir(parents=True)
            yield draft
            _seal(draft)
            os.rename(draft, path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def verify_folder(path: Path) -> list[str]:
    """Return what is wrong with a folder made by `whole_folder`, one sentence each; an empty list means it is whole."""
    manifest = path / MANIFEST
    try:
        listed: dict[str, dict[str, Any]] = json.loads(manifest.read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{manifest}: no readable manifest ({type(error).__name__})"]
    faults = []
    for name, entry in sorted(listed.items()):
        file = path / name
        if not file.is_file():
            faults.append(f"{file}: the file is missing")
        elif file.stat().st_size != entry["bytes"]:
            faults.append(f"{file}: {file.stat().st_size} bytes where {entry['bytes']} were written")
        elif sha256_file(file) != entry["sha256"]:
            faults.append(f"{file}: the content does not match its SHA-256")
    return faults


def sweep_drafts(folder: Path) -> int:
    """Remove what interrupted writes left in `folder`; call it under the folder's lock. Returns how many."""
    drafts = [entry for entry in folder.iterdir() if entry.name.startswith(DRAFT)] if folder.is_dir() else []
    for entry in drafts:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    return len(drafts)


def expanded(name: str | Path) -> Path:
    """Return the path with a leading `~` put out; a `~name` that is nobody's home stands for itself."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _seal(draft: Path) -> None:
    files = sorted(file for file in draft.rglob("*") if file.is_file())
    entries = {}
    for file in files:
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
        entries[file.relative_to(draft).as_posix()] = {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
    write_json(draft / MANIFEST, {"files": entries})
    for folder in {file.parent for file in files} | {draft}:
        sync_folder(folder)


@contextlib.contextmanager
def _told_as_one_sentence(path: Path, wanted_bytes: int | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise BadInput(_disk_sentence(path, error, wanted_bytes), where=str(path), fix=_disk_fix(error)) from error


def _disk_sentence(path: Path, error: OSError, wanted_bytes: int | None) -> str:
    reason = os.strerror(error.errno or 0).lower()
    if error.errno not in _DISK_FULL:
        return f"could not be written ({reason}); what was there before is intact"
    need = f"{wanted_bytes:,} bytes are needed and " if wanted_bytes else ""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(path.parent).free
        return f"could not be written ({reason}): {need}{free:,} are free; what was there before is intact"
    return f"could not be written ({reason}); what was there before is intact"


def _disk_fix(error: OSError) -> str:
    return "free some space and run again" if error.errno in _DISK_FULL else "check the permissions and the disk"
