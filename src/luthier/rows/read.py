"""Read a split: every record becomes a row or a counted fault with its place.

A source is a file (JSONL, JSON, CSV, TSV, Parquet, text), a folder of such files, or `hub:owner/name[:split]`. Nothing
is raised for a bad record, only for a source that is not there at all. Tokens and templates are not known here.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "train.jsonl").write_text('{"prompt": "2+2?", "completion": "4"}\\n{"prompt"')
    >>> result = read_rows("train.jsonl", folder=folder)
    >>> result.read, [(fault.line, fault.kind) for fault in result.faults]
    (2, [(2, 'half_line')])
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from luthier.ground.files import expanded
from luthier.ground.results import Fault
from luthier.rows.records import Notice, Record, files_in, read_records
from luthier.rows.shapes import ShapeFault, row_of, shape_of
from luthier.rows.types import Row

HUB = "hub:"


@dataclass
class ReadResult:
    """What a source holds.

    Attributes:
        rows: usable rows, in order.
        faults: one for each record that is not.
        read: records, good and bad.
        notices: what a person should know about the file.
        shapes: shape → rows.
    """

    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    read: int = 0
    notices: list[str] = field(default_factory=list)
    shapes: Counter[str] = field(default_factory=Counter)


def read_rows(source: str, *, folder: Path, id_field: str = "id", group_field: str = "group") -> ReadResult:
    """Read all rows of `source`.

    Args:
        source: a path, relative to `folder`, or `hub:owner/name[:split]`.

    Raises:
        BadInput: the source is not there, or of no known kind.
    """

    return collect(_records(source, folder), _row_maker(id_field, group_field))


def stream_rows(
    source: str, *, folder: Path, id_field: str = "id", group_field: str = "group"
) -> Iterator[Row | Fault | Notice]:
    """Yield what `read_rows` would return, one after the other, so that nothing is held; a hub source is streamed.

    Names are not held against each other, and a text file of more than `records.PART_BYTES` comes in parts.

    Raises:
        BadInput: the source is not there, or of no known kind.
    """
    to_row = _row_maker(id_field, group_field)
    for record in _records(source, folder, stream=True):
        if isinstance(record, Notice):
            yield record
            continue
        try:
            if record.fault is not None:
                raise ShapeFault(*record.fault)
            yield to_row(record)
        except ShapeFault as fault:
            yield Fault(file=record.file, line=record.line, kind=fault.kind, message=fault.message)


def _row_maker(id_field: str, group_field: str) -> Callable[[Record], Row]:
    def to_row(record: Record) -> Row:
        return row_of(record.value, place_of(record), id_field=id_field, group_field=group_field)

    return to_row


def files_of(source: str, folder: Path) -> list[Path]:
    """Return the files that a source is read from, in order; none for one of the hub.

    Raises:
        BadInput: there are none.
    """
    return [] if source.startswith(HUB) else [file for file, _ in files_in((folder / expanded(source)).resolve(), "")]


def collect(records: Iterable[Record | Notice], to_row: Callable[[Record], Row]) -> ReadResult:
    """Return what `to_row` makes of each record; a record that is faulty, or named as an earlier one, is a fault."""
    result = ReadResult()
    ids: dict[str, str] = {}
    for record in records:
        if isinstance(record, Notice):
            result.notices.append(record.text)
            continue
        result.read += 1
        try:
            if record.fault is not None:
                raise ShapeFault(*record.fault)
            row = to_row(record)
            if row.id == row.place and row.id in ids:  # several records on one line, as compact JSON has them
                row = dataclasses.replace(row, id=f"{row.place}#{result.read}")
            if row.id in ids:
                raise ShapeFault("duplicate_id", f'the id "{row.id[:60]}" is that of {ids[row.id]} too')
        except ShapeFault as fault:
            result.faults.append(Fault(file=record.file, line=record.line, kind=fault.kind, message=fault.message))
        else:
            ids[row.id] = row.place
            result.rows.append(row)
            result.shapes[shape_of(record.value) or "messages"] += 1
    return result


def joined(parts: Sequence[ReadResult]) -> ReadResult:
    """Return several sources as one, in order."""
    if len(parts) == 1:
        return parts[0]
    whole = ReadResult()
    for part in parts:
        whole.rows += part.rows
        whole.faults += part.faults
        whole.read += part.read
        whole.notices += part.notices
        whole.shapes += part.shapes
    return whole


def place_of(record: Record) -> str:
    return f"{record.file}:{record.line}"


def _records(source: str, folder: Path, *, stream: bool = False) -> Iterable[Record | Notice]:
    if source.startswith(HUB):
        from luthier.rows.hub import read_hub  # here, since `datasets` takes seconds to import

        return read_hub(source.removeprefix(HUB), stream=stream)
    return read_records((folder / expanded(source)).resolve(), source.rstrip("/"), in_parts=stream)
