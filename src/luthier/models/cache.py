"""The model cache: one folder per model, whole or absent, made by one process at a time.

It lies in `$LUTHIER_CACHE`, or `~/.cache/luthier`. A folder that lost or changed a file is found out when it is used
and made again. Models of the hub stay in the hub's own cache.

    folder, was_there = cached_folder("smollm2-135m-instruct", make, tell=silent)
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from luthier.ground.cache import cache_root
from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.ground.files import MANIFEST, verify_folder, whole_folder
from luthier.ground.locks import folder_lock

_WAIT_S = 900.0
_FULLY_HASHED_BYTES = 1 << 30  # about half a second of hashing; of larger folders only the sizes are compared


def cached_folder(name: str, make: Callable[[Path], None], *, tell: Tell = silent) -> tuple[Path, bool]:
    """Return the whole folder `name` of the cache and whether it was there already; otherwise `make` fills it.

    Args:
        make: gets an empty draft folder; when it raises, nothing stays.
    """
    home = cache_root() / "models"
    folder = home / name
    if folder.is_dir() and not _faults(folder):
        return folder, True
    with _waited_lock(home / f".{name}.lock", tell):
        if folder.is_dir():
            faults = _faults(folder)
            if not faults:
                return folder, True
            tell({"kind": "model", "text": f"the cached model is damaged and is made again ({faults[0]})"})
            shutil.rmtree(folder)
        _sweep_drafts(home, name)
        with whole_folder(folder) as draft:
            make(draft)
    return folder, False


def _sweep_drafts(home: Path, name: str) -> None:
    """Remove what an interrupted making of `name` left; another model's draft may be in use and stays."""
    for draft in home.glob(f".draft-{name}-????????"):
        shutil.rmtree(draft, ignore_errors=True)


def _faults(folder: Path) -> list[str]:
    try:
        listed = json.loads((folder / MANIFEST).read_text())["files"]
        if sum(entry["bytes"] for entry in listed.values()) <= _FULLY_HASHED_BYTES:
            return verify_folder(folder)
        return [
            f"{folder / name}: the size is wrong"
            for name, entry in listed.items()
            if not (folder / name).is_file() or (folder / name).stat().st_size != entry["bytes"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return verify_folder(folder)


@contextlib.contextmanager
def _waited_lock(folder: Path, tell: Tell) -> Iterator[None]:
    """Wait while another process makes the same model: it will be there afterwards."""
    end = time.monotonic() + _WAIT_S
    with contextlib.ExitStack() as stack:
        told = False
        while True:
            try:
                stack.enter_context(folder_lock(folder))
                break
            except BadInput:
                if time.monotonic() > end or not (folder / "lock").exists():
                    raise
            if not told:
                tell({"kind": "model", "text": "another process is fetching this model: waiting for it"})
                told = True
            time.sleep(0.2)
        yield
