"""Documents as tokens on disk: written once, whole or not at all, and read piece by piece.

A document longer than `max_length` is cut into pieces of about the same size. Each piece after the first begins with
the last token of the one before, as what its first target is predicted from, so that every token of a document but its
first is a target exactly once. Nothing of the text is held in memory, neither while writing nor while reading: of a
piece only its place and length are (16 bytes, in mapped tables). How text becomes tokens is not known here.

    write_store(folder, documents, max_length=2048); rows = TokenStore(folder); rows[0].ids_T
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from luthier.ground.files import whole_folder
from luthier.rows.lazy import LazyRows
from luthier.rows.types import Encoded, IntArray

FACTS = "facts.json"
_IDS, _DOCUMENTS, _STARTS, _LENGTHS = "ids.bin", "documents.bin", "starts.bin", "lengths.bin"
_ID_BYTES = 4
_COLUMNS = 5  # of the table of documents: file, line, bytes, tokens, first piece


@dataclass(frozen=True)
class Document:
    """One document as tokens, its end token included, and where it stands."""

    ids_T: IntArray
    file: str
    line: int
    bytes: int  # of its text in UTF-8


def write_store(folder: Path, documents: Iterable[Document], max_length: int, facts: dict[str, Any]) -> None:
    """Write documents into `folder`, which is there whole afterwards, or not at all.

    Args:
        facts: what else is to be known of them, as JSON values; read when all documents are written.

    Raises:
        BadInput: the disk refused, or the folder exists.
    """
    with whole_folder(folder) as draft, _Writer(draft, max_length) as writer:
        for document in documents:
            writer.add(document)
        writer.finish(facts)


class _Writer:
    """The open files of a store."""

    def __init__(self, folder: Path, max_length: int) -> None:
        self._folder, self._max_length = folder, max_length
        self._files: dict[str, int] = {}
        self._tokens = self._pieces = self._documents = self._bytes = 0

    def __enter__(self) -> _Writer:
        names = (_IDS, _DOCUMENTS, _STARTS, _LENGTHS)
        self._ids, self._table, self._starts, self._lengths = (self._open(name) for name in names)
        return self

    def _open(self, name: str) -> BinaryIO:
        return open(self._folder / name, "wb", buffering=1 << 20)

    def add(self, document: Document) -> None:
        """Write a document; one of fewer than two tokens has nothing to predict and is passed over."""
        count = len(document.ids_T)
        if count < 2:
            return
        edges = self._tokens + cut_evenly(count, self._max_length)
        file = self._files.setdefault(document.file, len(self._files))
        row = np.array([file, document.line, document.bytes, count, self._pieces], dtype=np.int64)
        self._ids.write(document.ids_T.astype(np.uint32).tobytes())
        self._table.write(row.tobytes())
        self._starts.write(edges[:-1].tobytes())
        self._lengths.write((np.diff(edges) + 1).tobytes())
        self._tokens += count
        self._pieces += len(edges) - 1
        self._documents += 1
        self._bytes += document.bytes

    def finish(self, facts: dict[str, Any]) -> None:
        counts = {"documents": self._documents, "pieces": self._pieces, "tokens": self._tokens, "bytes": self._bytes}
        whole = {**facts, **counts, "files": list(self._files), "max_length": self._max_length}
        (self._folder / FACTS).write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")

    def __exit__(self, *_: object) -> None:
        for stream in (self._ids, self._table, self._starts, self._lengths):
            stream.close()


def cut_evenly(tokens: int, max_length: int) -> IntArray:
    """Return where the pieces of a document begin, and the last token: piece k is [edge k, edge k + 1], both included.

    >>> cut_evenly(7, 4).tolist()
    [0, 3, 6]
    """
    pieces = max(1, -(-(tokens - 1) // (max_length - 1)))
    return np.arange(pieces + 1, dtype=np.int64) * (tokens - 1) // pieces


class TokenStore(LazyRows):
    """The pieces in a store, as rows; every token but a piece's first is a target.

    Args:
        origin: the source's name, carried by each row.

    Attributes:
        lengths: tokens of each piece, [N].
        key: what the pieces are, for fingerprints.
        facts: what was counted: documents, pieces, tokens, bytes, and what the writer added.
    """

    def __init__(self, folder: Path, origin: str = "") -> None:
        self.folder, self.origin = folder, origin
        self.facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        self.lengths: IntArray = _mapped(folder / _LENGTHS)
        self._starts: IntArray = _mapped(folder / _STARTS)
        self._documents: IntArray = _mapped(folder / _DOCUMENTS).reshape(-1, _COLUMNS)
        # read, not mapped: pages that were read stay the system's, and do not count as this process's memory
        self._ids = open(folder / _IDS, "rb", buffering=0)  # noqa: SIM115  # as long as the store
        self.key = f"{len(self)} pieces, {folder.name}"

    def _row(self, number: int) -> Encoded:
        count = int(self.lengths[number])
        raw = os.pread(self._ids.fileno(), count * _ID_BYTES, int(self._starts[number]) * _ID_BYTES)
        target_T = np.ones(count, dtype=np.bool_)
        target_T[0] = False
        ids_T = np.frombuffer(raw, dtype=np.uint32).astype(np.int64)
        return Encoded(ids_T, target_T, self._place(number), origin=self.origin)

    def pieces_of(self, documents: IntArray) -> IntArray:
        """Return the numbers of the pieces of documents, in their order."""
        firsts = self._firsts
        return np.concatenate([np.arange(firsts[d], firsts[d + 1]) for d in documents] or [np.zeros(0, np.int64)])

    @cached_property
    def _firsts(self) -> IntArray:
        return np.append(self._documents[:, 4], len(self))

    def _place(self, number: int) -> str:
        document = int(np.searchsorted(self._documents[:, 4], number, side="right")) - 1
        file, line, _, _, first = self._documents[document].tolist()
        pieces = int(self._firsts[document + 1]) - first
        piece = f" (piece {number - first + 1} of {pieces})" if pieces > 1 else ""
        return f"{self.facts['files'][file]}:{line}{piece}"


def _mapped(file: Path) -> IntArray:
    if file.stat().st_size == 0:
        return np.zeros(0, dtype=np.int64)
    return np.memmap(file, dtype=np.int64, mode="r")


def at_most(documents: Iterable[Document], count: int | None, tokens: int | None) -> Iterator[Document]:
    """Yield the first `count` documents, or as many as have `tokens` tokens together, whichever are fewer."""
    taken = 0
    for document in itertools.islice(documents, count):
        yield document
        taken += len(document.ids_T)
        if tokens is not None and taken >= tokens:
            return
