"""Where there is room on the disk: the free bytes of the places that Luthier writes to. Makes no folder.

storage({"cache": cache_root()})
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from luthier.ground.doctor_result import Storage


def storage(places: Mapping[str, Path]) -> list[Storage]:
    """Return each place with the bytes that are free there; one that is not there yet is asked at its nearest parent.

    A path in the working folder is told from there, one in one's home with a `~`.
    """
    return [Storage(what=what, path=_short(path), free_bytes=_free_bytes(path)) for what, path in places.items()]


def _free_bytes(path: Path) -> int:
    there = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), Path.cwd())
    return shutil.disk_usage(there).free


def _short(path: Path) -> str:
    if path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) and path != home else str(path)
