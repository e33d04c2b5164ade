"""Cut a document into passages short enough to read into a prompt and to embed whole.

A short document stays whole. A longer one is cut at its headings, long sections at paragraph borders, long paragraphs
at sentence borders (or line borders, in lists, tables and code), and only a monstrous sentence between words. Each
passage opens with the way of headings down to it, because "24 months" alone answers no question. Nothing is summarised.

    >>> chunk_document(parse_document("a.md", b"# Brakes\\n\\nBleed them yearly."))[0].text
    'Brakes\\nBleed them yearly.'
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from luthier.retrieval.documents import parse_document as parse_document
from luthier.retrieval.documents import read_document as read_document
from luthier.retrieval.outline import Document as Document
from luthier.retrieval.outline import Paragraph, Section
from luthier.retrieval.terms import CJK

_WORD = re.compile(rf"[{CJK}]|[^\s{CJK}]+")  # a Chinese or Japanese character counts as a word
_SENTENCE_END = re.compile("[.!?\u2026][\"'\u201d\u2019)\\]]{0,3}\\s+(?=[^\\sa-z])|[\u3002\uff01\uff1f]")
_LISTED_LINE = re.compile(r"\s*(?:[-*+|>]|\d{1,3}[.)])|\s{4}|\t")


@dataclass(frozen=True)
class Chunk:
    """A passage. `text` opens with `heading`; `start_line` is the physical line of its body (in a PDF: the page)."""

    id: str  # path#0000, in the order of the document
    path: str
    heading: str
    text: str
    start_line: int


@dataclass(frozen=True)
class _Piece:
    """An uncut stretch of text, and what separates it from the stretch before."""

    text: str
    line: int
    joint: str
    words: int


def chunk_document(document: Document, *, max_words: int = 160, overlap: int = 20) -> list[Chunk]:
    """Cut `document` into passages of at most `max_words` words, heading included (half of them where it is that long).

    Args:
        overlap: neighbouring passages of a section share whole sentences of at most so many words.
    """
    whole = "\n\n".join(_section_text(section) for section in document.sections)
    if document.sections and count_words(whole) <= max_words:
        first = document.sections[0]
        line = first.paragraphs[0].line if first.paragraphs else first.line
        return [Chunk(f"{document.path}#0000", document.path, _way(first), whole, line)]
    chunks: list[Chunk] = []
    for section in document.sections:
        for text, line in _cut_section(section, max_words, overlap):
            name = f"{document.path}#{len(chunks):04d}"
            chunks.append(Chunk(name, document.path, _way(section), text, line))
    return chunks


def count_words(text: str) -> int:
    return sum(1 for _ in _WORD.finditer(text))


def _way(section: Section) -> str:
    return " > ".join(section.headings)


def _section_text(section: Section) -> str:
    return "\n".join([_way(section), "\n\n".join(paragraph.text for paragraph in section.paragraphs)]).rstrip("\n")


def _cut_section(section: Section, max_words: int, overlap: int) -> Iterator[tuple[str, int]]:
    heading = _way(section)
    if not section.paragraphs:
        yield heading, section.line
        return
    room = max(max_words - count_words(heading), max_words // 2)
    pieces = [piece for paragraph in section.paragraphs for piece in _pieces(paragraph, room)]
    for group in _pack(pieces, room, min(overlap, room // 2)):
        body = "".join((piece.joint if index else "") + piece.text for index, piece in enumerate(group))
        yield f"{heading}\n{body}", group[0].line


def _pack(pieces: list[_Piece], room: int, overlap: int) -> Iterator[list[_Piece]]:
    """Fill passages in order; each next one begins with the last sentences of the one before, where there is room."""
    group: list[_Piece] = []
    for piece in pieces:
        if group and sum(member.words for member in group) + piece.words > room:
            yield group
            group = _tail(group[-1], min(overlap, room - piece.words))
        group.append(piece)
    yield group


def _tail(piece: _Piece, most_words: int) -> list[_Piece]:
    kept: list[_Piece] = []
    for sentence in reversed(list(_sentences(Paragraph(piece.text, piece.line)))):
        if sum(member.words for member in kept) + sentence.words > most_words:
            break
        kept.insert(0, sentence)
    return kept


def _pieces(paragraph: Paragraph, room: int) -> Iterator[_Piece]:
    """Cut a paragraph only as far as it must be: whole, else by lines or sentences, else by words."""
    whole = _Piece(paragraph.text, paragraph.line, "\n\n", count_words(paragraph.text))
    if whole.words <= room:
        yield whole
        return
    for index, part in enumerate(_lines(paragraph) if _is_listing(paragraph.text) else _sentences(paragraph)):
        first, *others = _word_runs(part, room)
        yield replace(first, joint=part.joint if index else "\n\n")
        yield from others


def _is_listing(text: str) -> bool:
    lines = text.split("\n")
    return text.startswith(("```", "~~~")) or sum(1 for line in lines if _LISTED_LINE.match(line)) * 2 > len(lines)


def _lines(paragraph: Paragraph) -> Iterator[_Piece]:
    for offset, line in enumerate(paragraph.text.split("\n")):
        if line.strip():
            yield _Piece(line.rstrip(), paragraph.line + offset, "\n", count_words(line))


def _sentences(paragraph: Paragraph) -> Iterator[_Piece]:
    text = paragraph.text
    borders = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    line, joint = paragraph.line, ""
    for start, end in pairwise(borders):
        raw = text[start:end]
        if raw.strip():
            yield _Piece(raw.strip(), line, joint, count_words(raw))
        line += raw.count("\n")
        joint = raw[len(raw.rstrip()) :]


def _word_runs(part: _Piece, room: int) -> Iterator[_Piece]:
    """Cut a sentence or line of more than `room` words between words, for want of a better border."""
    text = part.text
    if part.words <= room:
        yield part
        return
    words = list(_WORD.finditer(text))
    for first in range(0, len(words), room):
        start, end = words[first].start(), words[min(first + room, len(words)) - 1].end()
        joint = text[words[first - 1].end() : start] if first else ""
        yield _Piece(text[start:end], part.line + text.count("\n", 0, start), joint, count_words(text[start:end]))
