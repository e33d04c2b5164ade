"""Read files into records, each with its physical line; what cannot be read becomes a fault, never a traceback.

JSONL is read as bytes: a line ends at a line feed and nowhere else (U+2028 does not end one), CRLF is taken as LF, and
empty lines are passed over without being counted. A byte order mark at the beginning is tolerated and told as a
warning, since Windows programs write it and nothing is lost. Compressed files are refused with the command that
unpacks them. What a record means is the affair of `luthier.rows.shapes`.

    for item in read_records(Path("train.jsonl")): print(item.line, item.value)
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from luthier.ground.errors import BadInput
from luthier.ground.strict_json import parse_json

TEXT_SUFFIXES = (".txt", ".text", ".md")
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", *TEXT_SUFFIXES)
MAX_LINE_BYTES = 64 * 2**20
PART_BYTES = 4 * 2**20  # of a long text file: so much is one document at most
BOM = b"\xef\xbb\xbf"
_MAGIC = {b"\x1f\x8b": "gunzip", b"PK\x03\x04": "unzip", b"\x28\xb5\x2f\xfd": "unzstd", b"BZh": "bunzip2"}
_JSON_MARK = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},]|[^\s\[\]{},":]++', re.DOTALL)


@dataclass(frozen=True)
class Record:
    """One record of a file. Either `fault` is set ((kind, message)) or `value` holds what was read."""

    file: str
    line: int  # physical line from 1; the number of the record where a format has no lines
    value: object = None
    fault: tuple[str, str] | None = None


@dataclass(frozen=True)
class Notice:
    """Something about the whole file that a person should know."""

    text: str


def read_records(path: Path, name: str, *, in_parts: bool = False) -> Iterator[Record | Notice]:
    """Yield the records of a file, or of all files of a known kind in a folder and below, by their names.

    Args:
        name: how places call the file.
        in_parts: cut a text file of more than `PART_BYTES` at ends of lines, instead of holding it as one record.

    Raises:
        BadInput: there is no such file, or its name ends in nothing known.
    """
    for file, called in files_in(path, name):
        try:
            if in_parts and file.suffix.lower() in TEXT_SUFFIXES and file.stat().st_size > PART_BYTES:
                yield from _read_text_in_parts(file, called)
            else:
                yield from _READERS.get(file.suffix.lower(), _read_text)(file, called)
        except OSError as error:
            raise BadInput(f"the file cannot be read ({error.strerror})", where=str(file), fix="check it") from None


def files_in(path: Path, name: str) -> list[tuple[Path, str]]:
    """Return the files to read at `path`, a file or a folder, each with how places call it.

    Raises:
        BadInput: there is none.
    """
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in SUFFIXES)
        if not found:
            kinds = ", ".join(SUFFIXES)
            raise BadInput(
                "the folder has no text files, nor others that are read", where=str(path), fix=f"use {kinds}"
            )
        return [(file, f"{name}/{file.relative_to(path).as_posix()}") for file in found]
    if not path.is_file():
        raise BadInput("there is no such file", where=str(path), fix="check the path; it is relative to the task file")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise BadInput(f'files named "*{suffix}" are not read', where=str(path), fix=f"use {', '.join(SUFFIXES)}")
    return [(path, name)]


def _read_jsonl(path: Path, name: str) -> Iterator[Record | Notice]:
    with open(path, "rb") as stream:
        packed = _compressed(stream.read(4))
        if packed:
            yield Record(name, 1, fault=("not_text", packed))
            return
        stream.seek(0)
        number = 0
        while line := stream.readline(MAX_LINE_BYTES):
            number += 1
            if number == 1 and line.startswith(BOM):
                yield Notice(f"{name} begins with a byte order mark, which was passed over")
                line = line[len(BOM) :]
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                yield Record(name, number, fault=("long_line", "the line is longer than 64 MB"))
                _skip_line(stream)
            elif line.strip():
                yield _json_record(name, number, line)


def _json_record(name: str, number: int, line: bytes) -> Record:
    try:
        return Record(name, number, parse_json(_decode(line.rstrip(b"\r\n"))))
    except UnicodeDecodeError as error:
        return Record(name, number, fault=("not_utf8", _not_utf8(error)))
    except BadInput as error:
        if line.startswith(b"{") and not line.endswith((b"}", b"\n")):  # only the last line has no line feed
            return Record(name, number, fault=("half_line", "the file ends in the middle of this line"))
        return Record(name, number, fault=("bad_json", error.what))


def _read_json(path: Path, name: str) -> Iterator[Record | Notice]:
    raw = path.read_bytes()
    if packed := _compressed(raw):
        yield Record(name, 1, fault=("not_text", packed))
        return
    if raw.startswith(BOM):
        yield Notice(f"{name} begins with a byte order mark, which was passed over")
        raw = raw[len(BOM) :]
    try:
        value = parse_json(_decode(raw))
    except UnicodeDecodeError as error:
        yield Record(name, raw.count(b"\n", 0, error.start) + 1, fault=("not_utf8", _not_utf8(error)))
        return
    except BadInput as error:
        line = re.search(r"line (\d+), column", error.what)
        yield Record(name, int(line[1]) if line else 1, fault=("bad_json", error.what))
        return
    depth = 1
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value, depth = value["data"], 2
    if isinstance(value, list):
        lines = _lines_of_elements(raw, depth)
        for index, element in enumerate(value):
            yield Record(name, lines[index] if index < len(lines) else 1, element)
    else:
        yield Record(name, 1, value)


def _lines_of_elements(raw: bytes, depth: int) -> list[int]:
    """Return the physical lines on which the elements of the list of records begin.

    The list is the whole text (depth 1) or the value of the key "data" of the outermost object (depth 2).
    """
    lines: list[int] = []
    level, inside, data_next, waiting = 0, False, False, False
    line, counted = 1, 0
    for mark in _JSON_MARK.finditer(raw):
        token = mark[0]
        if inside and level == depth and waiting and token not in b"],":
            line += raw.count(b"\n", counted, mark.start())
            counted = mark.start()
            lines.append(line)
            waiting = False
        if token in b"[{":
            level += 1
            if level == depth and token == b"[" and (depth == 1 or data_next):
                inside = waiting = True
        elif token in b"]}":
            inside = inside and level != depth
            level -= 1
        elif token == b"," and inside and level == depth:
            waiting = True
        data_next = token == b'"data"'
    return lines


def _read_csv(path: Path, name: str) -> Iterator[Record | Notice]:
    raw = path.read_bytes()
    if packed := _compressed(raw):
        yield Record(name, 1, fault=("not_text", packed))
        return
    try:
        text = raw.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        yield Record(name, raw.count(b"\n", 0, error.start) + 1, fault=("not_utf8", _not_utf8(error)))
        return
    header_line = text.split("\n", 1)[0]
    delimiter = max((",", ";", "\t"), key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter, strict=True)
    csv.field_size_limit(MAX_LINE_BYTES)
    yield from _csv_records(reader, name)


def _csv_records(reader: Iterator[list[str]], name: str) -> Iterator[Record]:
    header: list[str] | None = None
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Record(name, line, fault=("bad_csv", f"this is not CSV ({error})"))
            line = _line_num(reader) + 1
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            if len(set(header)) < len(header) or not any(header):
                yield Record(name, 1, fault=("bad_csv", "the first line must name the columns, each once"))
                return
        elif len(cells) == len(header):
            yield Record(name, line, dict(zip(header, cells, strict=True)))
        elif cells:
            yield Record(name, line, fault=("bad_csv", f"{len(cells)} cells where the header names {len(header)}"))
        line = _line_num(reader) + 1


def _line_num(reader: object) -> int:
    return int(getattr(reader, "line_num", 0))


def _read_parquet(path: Path, name: str) -> Iterator[Record | Notice]:
    import pyarrow  # here, so that the everyday formats need not wait for it
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(1024):
            for value in batch.to_pylist():
                number += 1
                yield Record(name, number, value)
    except (pyarrow.ArrowException, ValueError) as error:
        yield Record(name, number + 1, fault=("bad_parquet", f"this is not Parquet ({str(error)[:200]})"))


def _read_text(path: Path, name: str) -> Iterator[Record | Notice]:
    """One file is one row: a document keeps its structure."""
    raw = path.read_bytes()
    if packed := _compressed(raw):
        yield Record(name, 1, fault=("not_text", packed))
        return
    try:
        yield Record(name, 1, {"text": _decode(raw.removeprefix(BOM)).replace("\r\n", "\n")})
    except UnicodeDecodeError as error:
        yield Record(name, raw.count(b"\n", 0, error.start) + 1, fault=("not_utf8", _not_utf8(error)))


def _read_text_in_parts(path: Path, name: str) -> Iterator[Record | Notice]:
    """Several rows of one long file, each of whole lines."""
    yield Notice(f"{name} is long: it is read in parts of {PART_BYTES / 1e6:,.0f} MB, each a document")
    with open(path, "rb") as stream:
        line = 1
        while raw := stream.read(PART_BYTES):
            raw += stream.readline(MAX_LINE_BYTES)
            try:
                yield Record(name, line, {"text": _decode(raw.removeprefix(BOM)).replace("\r\n", "\n")})
            except UnicodeDecodeError as error:
                yield Record(name, line + raw.count(b"\n", 0, error.start), fault=("not_utf8", _not_utf8(error)))
            line += raw.count(b"\n")


_READERS = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8")


def _compressed(head: bytes) -> str | None:
    tool = next((tool for magic, tool in _MAGIC.items() if head.startswith(magic)), None)
    return f"the file is compressed; unpack it first ({tool})" if tool else None


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8"


def _skip_line(stream: io.BufferedReader) -> None:
    while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass
