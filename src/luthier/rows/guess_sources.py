"""Find what a folder holds: files of examples, a chat log, documents; and read the examples as rows.

found = find_sources(Path("my-folder")); found.examples, found.documents
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.ground.errors import BadInput
from luthier.ground.results import Fault
from luthier.ground.strict_json import dump_json
from luthier.rows.chatlog import looks_like_chat_log, parse_chat_log
from luthier.rows.guess_columns import Columns, choose_columns, choose_group, choose_id
from luthier.rows.read import collect, place_of
from luthier.rows.records import Record, read_records
from luthier.rows.shapes import ShapeFault, row_of, shape_of
from luthier.rows.types import Row

EXAMPLE_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
DOCUMENT_SUFFIXES = (".md", ".txt", ".html", ".htm", ".pdf")
ROLES = {
    "train": ("train", "training"),
    "dev": ("dev", "val", "valid", "validation", "eval"),
    "test": ("test", "testing", "heldout", "holdout"),
}
_NOT_DOCUMENTS = ("readme", "license", "licence", "instruction", "requirements", "changelog", "notice")
_SKIPPED = ("runs", "node_modules", "__pycache__", "splits")
_MAX_FILES = 5000
_LOOK = 400  # records looked at to recognise a file


@dataclass
class ExampleFile:
    """One file of examples, read.

    Attributes:
        native: `luthier check` reads this file as it is; otherwise its rows must be written anew.
        group, row_id: the fields that name a row's group and the row, if any.
    """

    path: Path
    shape: str
    rows: list[Row]
    faults: list[Fault]
    role: str | None
    native: bool
    why: str
    group: str | None = None
    row_id: str | None = None


@dataclass
class Sources:
    examples: list[ExampleFile] = field(default_factory=list)
    documents: str | None = None  # folder, relative
    document_files: int = 0
    left_out: list[str] = field(default_factory=list)


def find_sources(folder: Path, only: Path | None = None) -> Sources:
    """Look through `folder` (or read the one file `only`); two levels deep, hidden files and run folders left out."""
    sources = Sources()
    files = [only] if only else list(itertools.islice(_files(folder), _MAX_FILES))
    for path in files:
        example = read_examples(path, folder)
        if example is not None:
            sources.examples.append(example)
        elif path.suffix.lower() in EXAMPLE_SUFFIXES and not _is_settings(path):
            sources.left_out.append(path.relative_to(folder).as_posix())
    logs = {example.path for example in sources.examples}
    sources.documents, sources.document_files = _documents(folder, [path for path in files if path not in logs])
    return sources


def read_examples(path: Path, folder: Path) -> ExampleFile | None:
    """Return the examples of a file, or None if it holds none."""
    name = path.relative_to(folder).as_posix()
    suffix = path.suffix.lower()
    if suffix in (".txt", ".log"):
        return _chat_log(path, name)
    if suffix not in EXAMPLE_SUFFIXES or _is_settings(path):
        return None
    records = [item for item in read_records(path, name) if isinstance(item, Record)]
    objects = [item.value for item in records if isinstance(item.value, dict)]
    if not objects:
        return None
    shape = Counter(shape_of(value) for value in objects[:_LOOK]).most_common(1)[0][0]
    columns = choose_columns(objects[:_LOOK]) if shape in (None, "text") else None
    if shape is None and columns is None:
        return None
    group = choose_group(objects, taken=(columns.asked, *columns.answers) if columns else ())
    row_id = choose_id(objects)

    def to_row(record: Record) -> Row:
        value = _as_pair(record.value, columns, group, row_id) if columns else record.value
        return row_of(value, place_of(record), id_field=row_id or "id", group_field=group or "group")

    read = collect(records, to_row)
    if not read.rows:
        return None
    known = columns is None and shape is not None
    why = f"{len(read.rows):,} rows of {name} have the shape {shape}" if known else columns.why if columns else ""
    role = role_of(path)
    return ExampleFile(
        path, shape if known and shape else "table", read.rows, read.faults, role, known, why, group, row_id
    )


def role_of(path: Path) -> str | None:
    """Return the split that a file's name tells: train, dev or test."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((role for role, names in ROLES.items() if any(word in names for word in words)), None)


def document_text(folder: Path, limit: int = 2_000_000) -> str:
    """Return the text of the documents that are plain (Markdown, text, HTML), as far as `limit` characters."""
    texts: list[str] = []
    for path in _files(folder):
        if path.suffix.lower() in (".md", ".txt", ".html", ".htm") and sum(map(len, texts)) < limit:
            texts.append(path.read_text(encoding="utf-8", errors="replace")[:limit])
    return "\n".join(texts)


def _as_pair(value: object, columns: Columns, group: str | None, row_id: str | None) -> dict[str, Any]:
    """Return a table's record as prompt and completion."""
    if not isinstance(value, Mapping):
        raise ShapeFault("bad_shape", "an object with fields was wanted")
    missing = [name for name in (columns.asked, *columns.answers) if name not in value]
    if missing:
        raise ShapeFault("missing_field", f"the record has no {missing[0]}")
    if len(columns.answers) == 1:
        answer = value[columns.answers[0]]
    else:
        answer = dump_json({name: value[name] for name in columns.answers})
    pair = {"prompt": value[columns.asked], "completion": answer}
    return pair | {name: value[name] for name in (group, row_id) if name and name in value}


def _chat_log(path: Path, name: str) -> ExampleFile | None:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError):
        return None
    rows = parse_chat_log(text, name) if looks_like_chat_log(text) else []
    if not rows:
        return None
    why = f"{name} is a chat log: {len(rows):,} exchanges with an answer"
    return ExampleFile(path, "chat log", rows, [], role_of(path), False, why)


def _files(folder: Path, depth: int = 2) -> list[Path]:
    """Return the files of a folder and its subfolders, in order of their names."""
    found: list[Path] = []
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise BadInput(f"the folder cannot be read ({error.strerror})", where=str(folder)) from None
    for entry in entries:
        if entry.name.startswith((".", "~")) or entry.is_symlink():
            continue
        if entry.is_dir() and depth > 0 and entry.name not in _SKIPPED:
            found += _files(entry, depth - 1)
        elif entry.is_file():
            found.append(entry)
    return found


def _documents(folder: Path, files: list[Path]) -> tuple[str | None, int]:
    """Return the subfolder (or the folder itself) with most documents, and how many there are."""
    counts: Counter[str] = Counter()
    for path in files:
        plain = not path.stem.lower().startswith(_NOT_DOCUMENTS)
        if path.suffix.lower() in DOCUMENT_SUFFIXES and plain:
            parts = path.relative_to(folder).parts
            counts[parts[0] if len(parts) > 1 else "."] += 1
    if not counts:
        return None, 0
    best, count = counts.most_common(1)[0]
    return best, count


def _is_settings(path: Path) -> bool:
    """Tell whether a JSON file is something else than examples by its name."""
    name = path.name.lower()
    return "schema" in name or name in ("package.json", "config.json", "tsconfig.json", "manifest.json")
