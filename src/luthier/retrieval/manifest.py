"""The manifest of an index: which version of the table counts, what it was made of, and how.

Written last and whole; an index without one does not exist. Tables are opened here, but neither filled nor searched.

    >>> Settings(chunk_words=160, overlap_words=20).embedding is None
    True
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import lancedb
from lancedb.db import DBConnection
from lancedb.table import Table
from pydantic import ValidationError

from luthier.ground.files import write_json
from luthier.ground.strict import Strict
from luthier.retrieval.terms import ANALYSER

TABLE = "passages"
LANCE_FAULTS = (OSError, RuntimeError, ValueError)  # what LanceDB raises for a damaged, missing or unwritable table
_FILE = "manifest.json"
_FOLDER = "lancedb"


class Settings(Strict):
    """What an index depends on besides the documents; another value means another index."""

    chunk_words: int
    overlap_words: int
    embedding: str | None = None
    dim: int | None = None
    analyser: str = ANALYSER


class FileEntry(Strict):
    sha256: str
    chunks: int


class Manifest(Strict):
    format: int = 1
    version: int  # of the LanceDB table
    settings: Settings
    files: dict[str, FileEntry]  # by relative path

    @property
    def chunks(self) -> int:
        return sum(entry.chunks for entry in self.files.values())


def connect(store: Path) -> DBConnection:
    return lancedb.connect(str(store / _FOLDER))


def open_version(store: Path, manifest: Manifest) -> Table:
    """Open the table at the manifest's version.

    Raises:
        OSError, RuntimeError, ValueError: it is gone or damaged.
    """
    table = connect(store).open_table(TABLE)
    table.checkout(manifest.version)
    if table.count_rows() != manifest.chunks:
        raise ValueError(f"{table.count_rows()} passages where the manifest has {manifest.chunks}")
    return table


def is_whole(store: Path, manifest: Manifest) -> bool:
    """Tell whether every passage of the manifest's version can be read."""
    try:
        open_version(store, manifest).to_arrow()
    except LANCE_FAULTS:
        return False
    return True


def read_manifest(store: Path) -> Manifest | None:
    """Return the store's manifest, or None when there is none that can be read."""
    with contextlib.suppress(OSError, ValidationError):
        return Manifest.model_validate_json((store / _FILE).read_bytes())
    return None


def write_manifest(store: Path, manifest: Manifest) -> None:
    write_json(store / _FILE, manifest.model_dump())


def has_remains(store: Path) -> bool:
    """Tell whether something of an index is there, whole or not."""
    return (store / _FILE).exists() or (store / _FOLDER).exists()


def clear(store: Path) -> None:
    """Remove a damaged index, the manifest first."""
    (store / _FILE).unlink(missing_ok=True)
    shutil.rmtree(store / _FOLDER, ignore_errors=True)
