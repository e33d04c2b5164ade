"""Cut a long text into pieces that have at most so many tokens, nothing lost and nothing twice.

Cuts lie between tokens, never within a character, or behind a line where the second half of a piece holds the end of
one. What is done with a piece is not known here.

    "".join(cut_text(tokens, text, 512)) == text
"""

from __future__ import annotations

from luthier.rows.tokens import Tokens

_WINDOW = 16  # characters of a token that are looked at; few tokens have more


def cut_text(tokens: Tokens, text: str, longest: int, *, by_lines: bool = False) -> list[str]:
    """Return the pieces of `text`; by itself, each has at most `longest` tokens, if its first character has.

    Args:
        by_lines: end a piece behind a line where that costs it at most half of its length.
    """
    pieces: list[str] = []
    start = 0
    while start < len(text) or not pieces:
        piece = _first(tokens, text[start : start + longest * _WINDOW], longest, start + longest * _WINDOW >= len(text))
        if by_lines and start + len(piece) < len(text):
            line = piece.rfind("\n", len(piece) // 2)
            piece = piece[: line + 1] or piece
        pieces.append(piece)
        start += len(piece)
    return pieces


def _first(tokens: Tokens, window: str, longest: int, whole: bool) -> str:
    """Return the longest beginning of `window` that fits, or nearly; `whole`: no text follows it."""
    if whole and _length(tokens, window) <= longest:
        return window
    ends = tokens.ends(window)[:longest]
    end = max(1, ends[-1]) if ends else len(window)
    while end > 1 and _length(tokens, window[:end]) > longest:  # a cut may make several tokens of one
        end -= max(1, end // 32)
    return window[:end]


def _length(tokens: Tokens, text: str) -> int:
    return len(tokens.encode(text, [(0, len(text))]))
