"""Keep an index of a folder of documents: keyword terms and, with an embedder, vectors, in an embedded LanceDB store.

Incremental by SHA-256: unchanged files are neither parsed nor embedded again. The manifest is written last and names
the table version that counts; LanceDB never changes an older version, so that a reader sees the last finished index
during an update and after a killed one. Searching is in `luthier.retrieval.search`.

    >>> import tempfile
    >>> folder, store = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.md").write_text("# Brakes")
    >>> build_index(folder, store).added
    1
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from lancedb.index import FTS
from lancedb.table import Table

from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.ground.files import sweep_drafts
from luthier.ground.hashes import sha256_file, sha256_text
from luthier.ground.locks import folder_lock
from luthier.ground.results import IndexResult, SkippedFile
from luthier.retrieval.chunk import Chunk, chunk_document
from luthier.retrieval.documents import find_documents, parse_document, read_bytes
from luthier.retrieval.manifest import (
    LANCE_FAULTS,
    TABLE,
    FileEntry,
    Manifest,
    Settings,
    clear,
    connect,
    has_remains,
    is_whole,
    open_version,
    read_manifest,
    write_manifest,
)
from luthier.retrieval.terms import analyse
from luthier.retrieval.vectors import CountsCuts, Embedder, FloatArray, embed_checked

KEYWORD_INDEX = FTS(  # the terms are ours: LanceDB splits them at blanks and leaves them alone
    base_tokenizer="whitespace",
    lower_case=False,
    stem=False,
    remove_stop_words=False,
    ascii_folding=False,
    max_token_length=None,
)
DAMAGED = "the store was damaged"
_EMBED_AT_ONCE = 256
_KEEP_OLD_VERSIONS = timedelta(days=1)  # for readers that opened one
_NEVER = timedelta(days=36500)
_PATHS_PER_DELETE = 200


class _Damaged(Exception):
    """The table that the manifest describes cannot be read any more."""


@dataclass
class _Changes:
    """What an update has to do: `fresh` are the passages of added and changed files."""

    entries: dict[str, FileEntry] = field(default_factory=dict)  # every file that is in the index afterwards
    fresh: list[Chunk] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    gone: list[str] = field(default_factory=list)  # paths whose old passages go: changed or removed
    removed: int = 0


def build_index(
    folder: Path,
    store: Path,
    *,
    embed: Embedder | None = None,
    chunk_words: int = 160,
    overlap_words: int = 20,
    tell: Tell = silent,
) -> IndexResult:
    """Bring the index in `store` up to date with the documents in `folder`, or make it.

    Args:
        embed: gives each passage a vector; without it the index is for keyword search alone.
        chunk_words: longest passage, in words.
        overlap_words: words that neighbouring passages of a long section share at most.
        tell: hears `{"kind": "embed", "done", "total", "cut"}`; `cut` counts passages longer than the embedder reads.

    Raises:
        BadInput: no such folder, no readable document in it, the store is in use or cannot be written.
    """
    started = time.perf_counter()
    if not folder.is_dir():
        raise BadInput("there is no such folder of documents", where=str(folder), fix="name a folder that exists")
    settings = Settings(
        chunk_words=chunk_words,
        overlap_words=overlap_words,
        embedding=embed.name if embed else None,
        dim=embed.dim if embed else None,
    )
    with folder_lock(store):
        sweep_drafts(store)
        old, rebuilt = _usable(store, settings)
        try:
            changes, manifest = _update(folder, store, old, settings, embed, tell)
        except _Damaged:
            clear(store)
            rebuilt = DAMAGED
            changes, manifest = _update(folder, store, None, settings, embed, tell)
    return IndexResult(
        store=str(store),
        documents=len(manifest.files),
        chunks=manifest.chunks,
        added=changes.added,
        changed=changes.changed,
        removed=changes.removed,
        unchanged=changes.unchanged,
        skipped=changes.skipped,
        embedding=settings.embedding,
        rebuilt=rebuilt,
        seconds=time.perf_counter() - started,
    )


def _usable(store: Path, settings: Settings) -> tuple[Manifest | None, str | None]:
    """Return the manifest to go on from, or None with the reason why everything is done again."""
    manifest = read_manifest(store)
    if manifest is None:
        return None, "an earlier build did not finish" if has_remains(store) else None
    if manifest.settings != settings:
        before, now = manifest.settings.model_dump(), settings.model_dump()
        differing = [f"{key} was {before[key]}, is {now[key]}" for key in now if before[key] != now[key]]
        return None, "; ".join(differing)
    try:
        open_version(store, manifest)
    except LANCE_FAULTS:
        clear(store)
        return None, DAMAGED
    return manifest, None


def _update(
    folder: Path, store: Path, old: Manifest | None, settings: Settings, embed: Embedder | None, tell: Tell
) -> tuple[_Changes, Manifest]:
    changes = _find_changes(folder, store, old.files if old else {}, settings)
    if not changes.entries:
        raise _nothing_to_read(folder, changes.skipped)
    vectors_ND = _embed(changes.fresh, embed, tell) if embed else None
    try:
        return changes, _write(store, changes, vectors_ND, old, settings)
    except LANCE_FAULTS as error:
        if old is not None and not is_whole(store, old):
            raise _Damaged from error
        reason = str(error).strip().split("\n")[0]
        raise BadInput(
            f"the index could not be written ({reason}); what was there before is intact",
            where=str(store),
            fix="check the disk and run again",
        ) from error


# -- what changed --------------------------------------------------------------------------------------------------


def _find_changes(folder: Path, store: Path, old: Mapping[str, FileEntry], settings: Settings) -> _Changes:
    files, skipped = find_documents(folder, besides=store)
    changes = _Changes(skipped=skipped)
    for name, path in files.items():
        try:
            _take(name, path, old.get(name), changes, settings)
        except BadInput as error:
            changes.skipped.append(SkippedFile(file=name, reason=error.what))
    changes.skipped.sort(key=lambda entry: entry.file)
    lost = [name for name in old if name not in changes.entries]
    changes.removed = len(lost)
    changes.gone += lost
    return changes


def _take(name: str, path: Path, old: FileEntry | None, changes: _Changes, settings: Settings) -> None:
    if old is not None and _hash(path, name) == old.sha256:
        changes.entries[name] = old
        changes.unchanged += 1
        return
    content = read_bytes(path, name)
    chunks = chunk_document(
        parse_document(name, content), max_words=settings.chunk_words, overlap=settings.overlap_words
    )
    changes.entries[name] = FileEntry(sha256=hashlib.sha256(content).hexdigest(), chunks=len(chunks))
    changes.fresh += chunks
    if old is None:
        changes.added += 1
    else:
        changes.changed += 1
        changes.gone.append(name)


def _hash(path: Path, name: str) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise BadInput(f"cannot be read ({(error.strerror or '').lower()})", where=name) from error


def _nothing_to_read(folder: Path, skipped: list[SkippedFile]) -> BadInput:
    example = f": {len(skipped)} passed over, such as {skipped[0].file} ({skipped[0].reason})" if skipped else ""
    return BadInput(
        f"there is no document to read in this folder{example}",
        where=str(folder),
        fix="put Markdown, text, HTML or PDF files there",
    )


# -- writing -------------------------------------------------------------------------------------------------------


def _embed(chunks: list[Chunk], embed: Embedder, tell: Tell) -> FloatArray:
    vectors_ND = np.zeros((len(chunks), embed.dim), dtype=np.float32)
    cut_before = embed.n_cut if isinstance(embed, CountsCuts) else 0
    for first in range(0, len(chunks), _EMBED_AT_ONCE):
        texts = [chunk.text for chunk in chunks[first : first + _EMBED_AT_ONCE]]
        vectors_ND[first : first + len(texts)] = embed_checked(embed, texts)
        cut = embed.n_cut - cut_before if isinstance(embed, CountsCuts) else 0
        tell({"kind": "embed", "done": first + len(texts), "total": len(chunks), "cut": cut})
    return vectors_ND


def _write(
    store: Path, changes: _Changes, vectors_ND: FloatArray | None, old: Manifest | None, settings: Settings
) -> Manifest:
    table = _table_to_write(store, old, settings)
    _delete(table, changes.gone)
    if changes.fresh:
        table.add(_rows(changes.fresh, vectors_ND))
    if old is not None and table.version == old.version:
        return old
    table.optimize(cleanup_older_than=_NEVER)  # merges small files; the version that counts stays until the manifest
    table.create_index("terms", config=KEYWORD_INDEX, replace=True)  # whole, so that BM25 counts no deleted passage
    manifest = Manifest(version=table.version, settings=settings, files=changes.entries)
    write_manifest(store, manifest)
    with contextlib.suppress(*LANCE_FAULTS):  # only tidiness: the index is whole
        table.optimize(cleanup_older_than=_KEEP_OLD_VERSIONS)
    return manifest


def _table_to_write(store: Path, old: Manifest | None, settings: Settings) -> Table:
    database = connect(store)
    if old is None:
        known = TABLE in database.list_tables().tables  # its old version stays readable until the new manifest
        return database.create_table(TABLE, schema=_schema(settings.dim), mode="overwrite" if known else "create")
    table = database.open_table(TABLE)
    if table.version != old.version:  # an update was killed before its manifest
        table.restore(old.version)
    return table


def _delete(table: Table, paths: list[str]) -> None:
    for first in range(0, len(paths), _PATHS_PER_DELETE):
        quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths[first : first + _PATHS_PER_DELETE])
        table.delete(f"path IN ({quoted})")


def _schema(dim: int | None) -> pa.Schema:
    texts = [
        pa.field(name, pa.string(), nullable=False) for name in ("id", "path", "heading", "text", "terms", "digest")
    ]
    vector = [pa.field("vector", pa.list_(pa.float32(), dim))] if dim else []
    return pa.schema([*texts, pa.field("start_line", pa.int32(), nullable=False), *vector])


def _rows(chunks: list[Chunk], vectors_ND: FloatArray | None) -> pa.Table:
    columns: dict[str, Iterable[object]] = {
        "id": [chunk.id for chunk in chunks],
        "path": [chunk.path for chunk in chunks],
        "heading": [chunk.heading for chunk in chunks],
        "text": [chunk.text for chunk in chunks],
        "terms": [" ".join(analyse(chunk.text)) for chunk in chunks],
        "digest": [sha256_text(" ".join(chunk.text.split())) for chunk in chunks],
        "start_line": [chunk.start_line for chunk in chunks],
    }
    if vectors_ND is not None:
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel()), vectors_ND.shape[1])
    return pa.table(columns, schema=_schema(vectors_ND.shape[1] if vectors_ND is not None else None))
