"""Find rows that repeat each other: exactly, nearly, across splits, and with contradicting answers.

What is compared:

- *exact*, within a split: the whole conversation, after Unicode normalisation, case folding and joining of white space;
- *near*: what is asked (all turns but the system's and the last answer), by Jaccard similarity of character 5-grams, at
  least 0.8, found by MinHash and verified. A beginning and an end that all texts share (an instruction pasted into each
  row) are left out first, since they would make everything alike;
- *across* splits: what is asked, for an answer that is known by heart is no proof, whatever the answer says;
- *conflicts*: the same question (and system text) with different answers.

Nothing is removed here.

    duplicates = within(rows); duplicates.exact, duplicates.near
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

from luthier.ground.results import Duplicates, Pair
from luthier.rows.minhash import Similar, Sketch, sketch
from luthier.rows.types import Row

THRESHOLD = 0.8
SHOWN = 20
_FRAME_ROWS = 10  # fewer distinct texts than this say nothing about a common frame


def within(rows: Sequence[Row]) -> Duplicates:
    """Count the rows that repeat an earlier row of the same split."""
    first: dict[str, Row] = {}
    fresh: list[Row] = []
    pairs: list[Pair] = []
    for row in rows:
        earlier = first.setdefault(_whole(row), row)
        if earlier is row:
            fresh.append(row)
        else:
            pairs.append(Pair(a=earlier.place, b=row.place, similarity=1.0))
    exact = len(pairs)
    index = _Index(_frame(fresh))
    for row in fresh:
        of_row = index.sketch(row)
        alike = index.nearest(row, of_row)
        if alike is not None:
            pairs.append(alike)
        index.add(row, of_row)
    return Duplicates(exact=exact, near=len(pairs) - exact, threshold=THRESHOLD, pairs=pairs[:SHOWN])


def across(a: Sequence[Row], b: Sequence[Row]) -> Duplicates:
    """Count the rows of `b` (test) whose question stands in `a` (train), exactly or nearly."""
    known = {folded(asked(row)): row for row in reversed(a)}
    index = _Index(_frame([*a, *b]))
    for row in known.values():
        index.add(row, index.sketch(row))
    pairs: list[Pair] = []
    exact = 0
    for row in b:
        same = known.get(folded(asked(row)))
        alike = Pair(a=same.place, b=row.place, similarity=1.0) if same else index.nearest(row, index.sketch(row))
        if alike is not None:
            exact += same is not None
            pairs.append(alike)
    pairs.sort(key=lambda pair: -pair.similarity)
    return Duplicates(exact=exact, near=len(pairs) - exact, threshold=THRESHOLD, pairs=pairs[:SHOWN])


def conflicts(rows: Sequence[Row]) -> list[Pair]:
    """Return the rows that ask what an earlier row asks, and answer otherwise."""
    first: dict[tuple[str, str], Row] = {}
    pairs = []
    for row in rows:
        if not row.reference:
            continue
        earlier = first.setdefault((_system(row), folded(asked(row))), row)
        if folded(earlier.reference) != folded(row.reference):
            pairs.append(Pair(a=earlier.place, b=row.place, similarity=1.0))
    return pairs


def asked(row: Row) -> str:
    """Return what a row asks: all turns but the system's and the last answer; a text with its gap."""
    if row.messages is None:
        return row.input
    turns = [message for message in row.messages if message.role != "system"]
    if turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    return "\n".join(message.written for message in turns)


def folded(text: str) -> str:
    """Return a text without differences of Unicode form, case and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def near_pairs(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Return (earlier, later) numbers of rows that ask the same or nearly the same; one partner for each later row."""
    index = _Index(_frame(rows))
    known: dict[str, int] = {}
    numbers: list[int] = []  # number in the index -> number of the row
    pairs = []
    for number, row in enumerate(rows):
        key = folded(asked(row))
        if key in known:
            pairs.append((known[key], number))
            continue
        known[key] = number
        of_row = index.sketch(row)
        found = index.nearest_number(of_row)
        if found is not None:
            pairs.append((numbers[found[0]], number))
        index.add(row, of_row)
        numbers.append(number)
    return pairs


class _Index:
    """Rows by similarity of what they ask, without the frame that all share."""

    def __init__(self, frame: Callable[[str], str]) -> None:
        self._frame = frame
        self._similar = Similar()
        self._rows: list[Row] = []

    def add(self, row: Row, of_row: Sketch) -> None:
        self._similar.add(of_row)
        self._rows.append(row)

    def nearest(self, row: Row, of_row: Sketch) -> Pair | None:
        found = self.nearest_number(of_row)
        if found is None:
            return None
        return Pair(a=self._rows[found[0]].place, b=row.place, similarity=round(found[1], 4))

    def nearest_number(self, of_row: Sketch) -> tuple[int, float] | None:
        return self._similar.nearest(of_row, THRESHOLD)

    def sketch(self, row: Row) -> Sketch:
        return sketch(self._frame(folded(asked(row))))


def _whole(row: Row) -> str:
    if row.messages is None:
        return folded(row.input) if row.gap is None else f"{folded(row.input)}\x1e{folded(row.reference)}"
    turns = "\x1f".join(f"{message.role}\x1e{folded(message.written)}" for message in row.messages)
    return turns if row.tools is None else f"{turns}\x1f{row.tools}"


def _system(row: Row) -> str:
    return folded("\n".join(message.content for message in row.messages or () if message.role == "system"))


def _frame(rows: Sequence[Row]) -> Callable[[str], str]:
    """Return a function that takes the common beginning and end of all texts away."""
    texts = sorted({folded(asked(row)) for row in rows})
    if len(texts) < _FRAME_ROWS:
        return lambda text: text
    head = _shared(texts[0], texts[-1])  # of sorted texts, the outermost differ first
    backwards = sorted(text[head:][::-1] for text in texts)
    tail = _shared(backwards[0], backwards[-1])
    return lambda text: text[head : len(text) - tail]


def _shared(a: str, b: str) -> int:
    """Return how many characters two texts have in common at the beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
