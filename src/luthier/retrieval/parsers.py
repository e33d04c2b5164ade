"""Bytes to sections, by format: Markdown, text, HTML and PDF.

No text is guessed: bytes that are not what they claim to be are refused with the reason. Inline markup is kept.

    >>> parse("a.md", b"# Brakes\\n\\nBleed them yearly.")[0].headings
    ('Brakes',)
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import PurePosixPath

from luthier.ground.errors import BadInput
from luthier.retrieval.outline import Outline, Paragraph, Section


def parse(path: str, content: bytes) -> tuple[Section, ...]:
    """Return the sections of a document by the ending of its name; none when it holds no text.

    Raises:
        BadInput: another type, not text, or broken.
    """
    parser = _PARSERS.get(PurePosixPath(path).suffix.lower())
    if parser is None:
        raise BadInput(f"not a type that is read here ({' '.join(sorted(ENDINGS))})", where=path)
    return parser(content, path)


def _decode(content: bytes, path: str, declared: str = "utf-8") -> str:
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else declared
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode(encoding)
        text.encode()  # some old encodings can spell lone surrogates
    except (UnicodeError, LookupError) as error:
        place = f", byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise BadInput(f"not text (read as {encoding}{place})", where=path, fix="save it as UTF-8") from error
    if "\0" in text:
        raise BadInput("not text but a binary file", where=path)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse_text(content: bytes, path: str) -> tuple[Section, ...]:
    outline = Outline(path)
    held: list[str] = []
    for number, line in enumerate([*_decode(content, path).split("\n"), ""], 1):
        if line.strip():
            held.append(line)
        else:
            outline.paragraph("\n".join(held), number - len(held))
            held = []
    return outline.sections()


# -- Markdown ------------------------------------------------------------------------------------------------------

_ATX = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


def _parse_markdown(content: bytes, path: str) -> tuple[Section, ...]:
    reader = _MarkdownReader(path)
    lines = _decode(content, path).split("\n")
    start = _end_of_front_matter(lines)
    reader.outline.paragraph("\n".join(lines[1 : max(start - 1, 1)]), 2)
    for number, line in enumerate(lines[start:], start + 1):
        reader.read(line, number)
    reader.flush(len(lines) + 1)
    return reader.outline.sections()


class _MarkdownReader:
    """Splits at headings (`#` and underlined) and blank lines, neither of which counts inside a fenced block."""

    def __init__(self, path: str) -> None:
        self.outline = Outline(path)
        self._held: list[str] = []  # lines of the paragraph under way
        self._fence = ""

    def read(self, line: str, number: int) -> None:
        mark = _FENCE.match(line)
        if self._fence:
            self._held.append(line)
            closes = mark and mark[1].startswith(self._fence) and not line.strip(" \t`~")
            self._fence = "" if closes else self._fence
        elif heading := _ATX.match(line):
            self.flush(number)
            self.outline.heading(len(heading[1]), _heading_text(line[heading.end() :]), number)
        elif len(self._held) == 1 and (underline := _SETEXT.match(line)):
            title = self._held.pop()
            self.outline.heading(1 if underline[1][0] == "=" else 2, _heading_text(title), number - 1)
        elif line.strip():
            self._held.append(line)
            self._fence = mark[1] if mark else ""
        else:
            self.flush(number)

    def flush(self, number: int) -> None:
        """End the paragraph under way; `number` is the line after it."""
        self.outline.paragraph("\n".join(self._held), number - len(self._held))
        self._held = []


def _end_of_front_matter(lines: list[str]) -> int:
    if lines[0].rstrip() != "---":
        return 0
    ends = (number for number, line in enumerate(lines[1:], 2) if line.rstrip() in ("---", "..."))
    return next(ends, 0)


def _heading_text(raw: str) -> str:
    text = raw.strip()
    bare = text.rstrip("#")
    closed = bare != text and (not bare or bare[-1] in " \t")  # "## Brakes ##", not "## C#"
    return (bare if closed else text).strip(" \t*_`")


# -- HTML ----------------------------------------------------------------------------------------------------------

_SILENT = frozenset({"head", "iframe", "nav", "noscript", "object", "script", "select", "style", "svg", "template"})
_FLOWING = frozenset(  # every other element ends a paragraph
    {"a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img"}
    | {
        "ins",
        "kbd",
        "label",
        "mark",
        "output",
        "q",
        "rp",
        "rt",
        "ruby",
        "s",
        "samp",
        "small",
        "span",
        "strike",
        "strong",
    }
    | {"sub", "sup", "td", "th", "time", "tt", "u", "var", "wbr"}
)
_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)


def _parse_html(content: bytes, path: str) -> tuple[Section, ...]:
    declared = _CHARSET.search(content[:4096])
    reader = _HtmlReader(path)
    try:
        reader.feed(_decode(content, path, declared[1].decode() if declared else "utf-8"))
        reader.close()
    except AssertionError as error:  # how html.parser tells of a declaration that it cannot read
        raise BadInput("not readable as HTML", where=path) from error
    return reader.finish()


class _HtmlReader(HTMLParser):
    """Keeps headings, paragraphs, list items and table rows; leaves out scripts, styles, menus and the page's head."""

    def __init__(self, path: str) -> None:
        super().__init__(convert_charrefs=True)
        self._outline = Outline(path)
        self._silent: list[str] = []
        self._heading = 0
        self._in_pre = False
        self._text: list[str] = []
        self._line = 0  # where the text under way begins; 0 before it does

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 (the base class hands it)
        if tag == "body":
            self._silent = []  # a head that nobody closed
        if self._silent or tag in _SILENT:
            self._silent += [tag] if tag in _SILENT else []
            return
        level = _heading_level(tag)
        if tag not in _FLOWING:
            self._flush()
        self._heading = level or self._heading
        self._in_pre = self._in_pre or tag == "pre"
        if tag == "li":
            self._text.append("- ")
        elif tag in ("td", "th") and self._line:
            self._text.append(" | ")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._silent:
            del self._silent[self._silent.index(tag) :]
        elif not self._silent and (tag not in _FLOWING):
            self._flush()
            self._in_pre = self._in_pre and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        if not self._line and data.strip():
            blank = data[: len(data) - len(data.lstrip())]
            self._line = self.getpos()[0] + blank.count("\n")
        self._text.append(data)

    def finish(self) -> tuple[Section, ...]:
        self._flush()
        return self._outline.sections()

    def _flush(self) -> None:
        text = "".join(self._text)
        flat = " ".join(text.split())
        if self._line and self._heading:
            self._outline.heading(self._heading, flat, self._line)
        elif self._line:
            self._outline.paragraph(text if self._in_pre else flat, self._line)
        self._text, self._line, self._heading = [], 0, 0


def _heading_level(tag: str) -> int:
    return int(tag[1]) if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456" else 0


# -- PDF -----------------------------------------------------------------------------------------------------------


def _parse_pdf(content: bytes, path: str) -> tuple[Section, ...]:
    try:
        import pypdf  # only when a PDF is met
    except ImportError as error:
        raise BadInput("PDF files need the package pypdf", where=path, fix="pip install pypdf") from error
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        pages = [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages]
    except Exception as error:  # pypdf answers broken files with whatever its parser trips over
        raise BadInput(f"not readable as PDF ({type(error).__name__})", where=path) from error
    sections = tuple(section for number, text in enumerate(pages, 1) for section in _page_sections(text, number, path))
    if not sections:
        raise BadInput("a PDF without text (a scan?)", where=path, fix="run text recognition on it")
    return sections


def _page_sections(text: str, number: int, path: str) -> list[Section]:
    clean = text.encode(errors="replace").decode().replace("\0", "")
    paragraphs = tuple(Paragraph(part.strip(), number) for part in re.split(r"\n\s*\n", clean) if part.strip())
    return [Section((PurePosixPath(path).stem, f"page {number}"), paragraphs, number)] if paragraphs else []


_PARSERS: dict[str, Callable[[bytes, str], tuple[Section, ...]]] = {
    **dict.fromkeys((".md", ".markdown"), _parse_markdown),
    **dict.fromkeys((".txt", ".text", ".rst", ".adoc"), _parse_text),
    **dict.fromkeys((".html", ".htm", ".xhtml"), _parse_html),
    ".pdf": _parse_pdf,
}
ENDINGS = frozenset(_PARSERS)
