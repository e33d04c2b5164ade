"""Where gaps lie in a text, as a person says it: `LINE`, `LINE:COLUMN`, a range of them, or `<gap>` in the text.

Lines and columns count from 1, columns in characters. A line alone is its text without the indentation and the line
break; a place with a column is a cursor between two characters; a range ends before its second column, or at the end of
its second line.

    >>> text, gaps = at_places("a = 1\\nb = \\n", ["2:5"])
    >>> gaps, marked("a = <gap>")
    ([(10, 10)], ('a = ', [(4, 4)]))
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.ground.errors import BadInput
from luthier.rows.types import GAP

Gap = tuple[int, int]

_PLACE = re.compile(r"(?P<line>\d+)(?::(?P<column>\d+))?(?:-(?P<line_2>\d+)(?::(?P<column_2>\d+))?)?")


def at_places(text: str, places: Sequence[str], *, where: str = "the text") -> tuple[str, list[Gap]]:
    """Return the text and the gaps [first, end) that `places` name, in order.

    Raises:
        BadInput: a place is not written as one, lies beyond the text, overlaps another, or nothing stands around it.
    """
    lines = _Lines.of(text, where)
    gaps = sorted(_gap(lines, place) for place in places)
    for before, after in itertools.pairwise(gaps):
        if after[0] < before[1] or after == before:
            line, column = line_and_column(text, after[0])
            raise BadInput(f"two gaps overlap at {line}:{column}", where="--at", fix="name each part once")
    _refuse_nothing_around(text, gaps, where)
    return text, gaps


def marked(text: str, *, where: str = "the text") -> tuple[str, list[Gap]]:
    """Return the text without its marks `<gap>`, and the empty gaps where they stood.

    Raises:
        BadInput: there is no mark, two marks touch, or nothing stands around them.
    """
    pieces = text.split(GAP)
    if len(pieces) == 1:
        raise BadInput(f"no gap is marked with {GAP}", where=where, fix="mark one, or name its place with --at")
    if not all(pieces[1:-1]):
        raise BadInput(f"two marks {GAP} stand side by side", where=where, fix="leave one out")
    ends = [sum(map(len, pieces[:count])) for count in range(1, len(pieces))]
    bare, gaps = "".join(pieces), [(end, end) for end in ends]
    _refuse_nothing_around(bare, gaps, where)
    return bare, gaps


def line_and_column(text: str, place: int) -> tuple[int, int]:
    """Return line and column, from 1, of the character at `place`."""
    return text.count("\n", 0, place) + 1, place - (text.rfind("\n", 0, place) + 1) + 1


@dataclass(frozen=True)
class _Lines:
    """A text by lines; `starts` are where they begin."""

    lines: list[str]
    starts: list[int]
    where: str

    @classmethod
    def of(cls, text: str, where: str) -> _Lines:
        lines = text.split("\n")
        if len(lines) > 1 and not lines[-1]:
            lines.pop()  # what follows the last line break is no line
        return cls(lines, [0, *itertools.accumulate(len(line) + 1 for line in lines)], where)

    def text(self, number: int) -> str:
        """Return line `number` without its line break."""
        if not 1 <= number <= len(self.lines):
            raise BadInput(
                f"{self.where} has {len(self.lines)} lines and no line {number}", where="--at", fix="name another line"
            )
        return self.lines[number - 1].removesuffix("\r")

    def place(self, number: int, column: int) -> int:
        """Return the place of a column, which may be the one behind the line."""
        length = len(self.text(number))
        if not 1 <= column <= length + 1:
            raise BadInput(
                f"line {number} of {self.where} has {length} characters and no column {column}",
                where="--at",
                fix="name another column",
            )
        return self.starts[number - 1] + column - 1


def _gap(lines: _Lines, place: str) -> Gap:
    match = _PLACE.fullmatch(place.strip())
    if match is None:
        raise BadInput(
            f'"{place}" is no place', where="--at", fix="write LINE, LINE:COLUMN, or two of them with a dash: 12:5-13:1"
        )
    line, line_2 = int(match["line"]), int(match["line_2"] or match["line"])
    first = lines.place(line, int(match["column"] or _behind_indentation(lines.text(line))))
    if match["column"] and not match["line_2"]:
        return first, first  # a cursor
    end = lines.place(line_2, int(match["column_2"] or len(lines.text(line_2)) + 1))
    if end < first:
        raise BadInput(f'"{place}" ends before it begins', where="--at", fix="write the earlier place first")
    return first, end


def _behind_indentation(line: str) -> int:
    return len(line) - len(line.lstrip()) + 1


def _refuse_nothing_around(text: str, gaps: Sequence[Gap], where: str) -> None:
    around, at = [], 0
    for first, end in gaps:
        around.append(text[at:first])
        at = end
    if not "".join([*around, text[at:]]).strip():
        raise BadInput(
            "nothing stands around the gap, and what is missing follows from what stands around it",
            where=where,
            fix="leave text on at least one side",
        )
