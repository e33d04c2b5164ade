"""A document as sections of paragraphs under headings: what every format is read into, and what chunking starts from.

Plain data and the builder that the parsers share. Files and bytes are not known here.

    >>> outline = Outline("guide/brakes.md")
    >>> outline.paragraph("Bleed them yearly.", 1)
    >>> outline.sections()[0].headings
    ('brakes',)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Paragraph:
    """A paragraph and the physical line on which it begins, from 1 (in a PDF: its page)."""

    text: str
    line: int


@dataclass(frozen=True)
class Section:
    """Paragraphs under one heading; `headings` is the way down to it, outermost first."""

    headings: tuple[str, ...]
    paragraphs: tuple[Paragraph, ...]
    line: int


@dataclass(frozen=True)
class Document:
    """A document's sections in order; `path` is relative to its folder, with forward slashes."""

    path: str
    sections: tuple[Section, ...]


class Outline:
    """Collects headings and paragraphs, in order, into sections.

    Text under no heading stands under the file's name, which is often all that says what it is about. A heading with
    nothing below it is kept; one with only sub-headings below it lives on in theirs.
    """

    def __init__(self, path: str) -> None:
        self._name = PurePosixPath(path).stem
        self._stack: list[tuple[int, str]] = []
        self._line = 1
        self._paragraphs: list[Paragraph] = []
        self._sections: list[Section] = []

    def heading(self, level: int, text: str, line: int) -> None:
        self._close()
        self._stack = [(depth, title) for depth, title in self._stack if depth < level]
        if text:
            self._stack.append((level, text))
        self._line = line

    def paragraph(self, text: str, line: int) -> None:
        if text.strip():
            self._paragraphs.append(Paragraph(text.strip("\n").rstrip(), line))

    def sections(self) -> tuple[Section, ...]:
        self._close()
        self._stack = []
        pairs = zip_longest(self._sections, self._sections[1:])
        return tuple(section for section, after in pairs if section.paragraphs or not _holds(section, after))

    def _close(self) -> None:
        if self._stack or self._paragraphs:
            headings = tuple(title for _, title in self._stack) or (self._name,)
            self._sections.append(Section(headings, tuple(self._paragraphs), self._line))
        self._paragraphs = []


def _holds(outer: Section, inner: Section | None) -> bool:
    if inner is None:
        return False
    return len(inner.headings) > len(outer.headings) and inner.headings[: len(outer.headings)] == outer.headings
