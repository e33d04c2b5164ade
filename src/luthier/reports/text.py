"""Texts from models and data made fit to be looked at: nothing invisible acts, nothing breaks the page or the terminal.

Escaping for HTML is not done here; the templates and `svg.element` do that.

    >>> visible("a\\x1b[31mb")
    'a␛[31mb'
"""

from __future__ import annotations

_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: "␡"}
_ALIENS = dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF], "�")
_DIRECTIONS = {
    code: f"⟨U+{code:04X}⟩" for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
_VISIBLE = {**_PICTURES, **_ALIENS, **_DIRECTIONS}


def visible(text: str) -> str:
    """Return `text` with control characters as pictures, lone surrogates as �, direction marks as code points.

    A terminal escape in a model's answer would act on the terminal; a direction mark can make a text read as another.
    """
    return text.replace("\r\n", "\n").translate(_VISIBLE)


def first_line(text: str, length: int = 90) -> str:
    """Return the first line that holds something, cut at `length` characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
