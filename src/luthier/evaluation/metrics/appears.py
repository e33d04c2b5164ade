"""Whether a value appears in a text as itself, not as a piece of something longer.

The value 36 does not appear in 365, 1,036, 0.36, 36.5, BX-36 or 36-B, but does in "36 months", "36-month", "€36" and
"36.0"; the code BX-36 does not appear in BX-365 or BX-36-C. Text is compared without regard to case, white space and
Unicode composition. Numbers may have thousands separators. It knows nothing of synonyms or of numbers in words.

    >>> appears("36", "a warranty of 365 days"), appears("36", "a warranty of 36 months")
    (False, True)
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Digits and cased letters. Scripts without spaces between words (Chinese, Japanese, Thai) are left out: there, the
# neighbour of a value says nothing about where the value ends.
_WORD = "0-9A-Za-z_\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u03ff\u0400-\u04ff"
_IS_WORD = re.compile(f"[{_WORD}]")
_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?")
_MINUS = "[-\u2212]"
_GROUP_SEPARATOR = "[,'\u00a0\u202f]?"
# What makes a number or code go on after a hyphen: a digit or a run of capitals (36-B, but not 36-month or 36-Month).
_GOES_ON = r"(?!-(?:\d|[A-Z]++(?![a-z])))"
_NO_DECIMALS = r"(?![.,]\d)"


def appears(value: str, text: str) -> bool:
    """Return whether `value` appears in `text`; an empty value appears nowhere."""
    wanted = squeeze(value)
    return bool(wanted) and _pattern(wanted).search(unicodedata.normalize("NFC", text)) is not None


def squeeze(text: str) -> str:
    """Return the text composed (NFC), trimmed, and with single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


@lru_cache(maxsize=4096)
def _pattern(value: str) -> re.Pattern[str]:
    number = _NUMBER.fullmatch(value)
    return re.compile(_number(*number.groups("")) if number else _text(value))


def _number(sign: str, whole: str, fraction: str) -> str:
    first = len(whole) % 3 or 3
    groups = [whole[:first], *(whole[i : i + 3] for i in range(first, len(whole), 3))]
    fraction = fraction.rstrip("0")
    decimals = rf"\.{fraction}0*" if fraction else r"(?:\.0+)?"
    before = rf"(?<![{_WORD}.])(?<!\d,)" + (_MINUS if sign else f"(?<!{_MINUS})")
    after = r"(?!\d)(?![A-Za-z]+\d)" + _NO_DECIMALS + _GOES_ON
    return before + _GROUP_SEPARATOR.join(groups) + decimals + after


def _text(value: str) -> str:
    has_digit = any(character.isdigit() for character in value)
    before = after = ""
    if _IS_WORD.match(value[0]):
        before = f"(?<![{_WORD}])" + (f"(?<![{_WORD}]-)" if has_digit else "")
    if _IS_WORD.match(value[-1]):
        after = f"(?![{_WORD}])" + (_GOES_ON if has_digit else "")
    if value[0].isdigit():
        before += r"(?<!\d[.,])"
    if value[-1].isdigit():
        after += _NO_DECIMALS
    words = r"\s+".join(re.escape(word) for word in value.split(" "))
    return f"{before}(?i:{words}){after}"
