"""Read and write JSON without the liberties that Python's `json` takes.

`parse_json` refuses what RFC 8259 forbids or what readers disagree about: NaN and infinities, numbers beyond a
double, integers of more than 4,300 digits, duplicate keys, lone surrogates (raw or as `\\ud800` escapes), raw control
characters (a NUL must be written `\\u0000`), and nesting deeper than 100. `dump_json` writes compact text that
`parse_json` reads back equal; `canonical` gives equal JSON values equal texts. It does not read files, count lines or
repair anything.

    >>> parse_json('{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from luthier.ground.errors import BadInput

JsonValue: TypeAlias = "dict[str, JsonValue] | list[JsonValue] | str | int | float | bool | None"

MAX_DEPTH = 100
MAX_INTEGER_DIGITS = 4300

# One token: a string (closed or running to the end of the text), a bracket, or a bare word or number.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]|[^\s\[\]{}",:]++', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_MAYBE_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_RAW_SURROGATE = re.compile("[\ud800-\udfff]")
_COLON = re.compile(r"[ \t\n\r]*:")


def parse_json(text: str, *, where: str | None = None) -> JsonValue:
    """Return the value of a JSON text.

    Args:
        text: one whole JSON text (an object, an array or a scalar); surrounding JSON white space is allowed.
        where: the place of the text for the message, such as `train.jsonl:1204`.

    Raises:
        BadInput: in one sentence, what is wrong and in which column (and line, when the text has several).
    """
    try:
        _refuse_depth(text)
        _refuse_surrogates(text)
        value: JsonValue = _DECODER.decode(text)
    except _TextError as fault:
        at = fault.at if fault.at >= 0 else _locate(text, fault.token)
        raise BadInput(f"{fault.what} at {_place(text, at)}", where=where, fix=fault.fix) from None
    except json.JSONDecodeError as error:
        raise BadInput(_explain_syntax(text, error), where=where, fix="write one valid JSON value") from None
    return value


def dump_json(value: object) -> str:
    """Return `value` as compact JSON text, keys in their own order, that `parse_json` reads back equal.

    Tuples are written as arrays. Raises `BadInput` for anything that strict JSON cannot hold.
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def canonical(value: object) -> str:
    """Return a text that is equal for equal JSON values: keys sorted, 1.0 and 1 and 1e0 alike, true and 1 apart."""
    plain = _plain(value, whole_numbers=True)
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


@dataclass(frozen=True)
class _SecondKey:
    """The second occurrence of a key in one object, as the thing to be located."""

    key: str


class _TextError(Exception):
    """A refusal found inside the parser; `at` is a character offset, or -1 when only the token is known."""

    def __init__(self, what: str, fix: str, *, at: int = -1, token: str | _SecondKey = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.at = at
        self.token = token


def _refuse_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise _TextError(
                    f"the nesting is deeper than {MAX_DEPTH} levels", "flatten the value", at=token.start()
                )
        elif token[0] in "]}":
            depth -= 1


def _refuse_surrogates(text: str) -> None:
    """Refuse half a surrogate pair: such text cannot be written as UTF-8."""
    raw = None if text.isascii() else _RAW_SURROGATE.search(text)
    if raw:
        raise _lone_surrogate(raw.start())
    if not _MAYBE_SURROGATE_ESCAPE.search(text):
        return
    for token in _TOKEN.finditer(text):
        if token[0].startswith('"'):
            _refuse_lone_escapes(token[0], token.start())


def _refuse_lone_escapes(string: str, start: int) -> None:
    open_high = -1  # offset of a high surrogate that still waits for its low half
    previous_end = -1
    for escape in _ESCAPE.finditer(string):
        code = int(escape[1], 16) if escape[1] else 0
        adjacent = escape.start() == previous_end
        if open_high >= 0 and not (adjacent and 0xDC00 <= code <= 0xDFFF):
            raise _lone_surrogate(start + open_high)
        if 0xDC00 <= code <= 0xDFFF and open_high < 0:
            raise _lone_surrogate(start + escape.start())
        open_high = escape.start() if 0xD800 <= code <= 0xDBFF else -1
        previous_end = escape.end()
    if open_high >= 0:
        raise _lone_surrogate(start + open_high)


def _lone_surrogate(at: int) -> _TextError:
    return _TextError("there is a lone surrogate (half a character)", "write the whole character", at=at)


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _TextError(
                    f"the key {_short(key)} occurs twice in one object", "keep one of them", token=_SecondKey(key)
                )
            seen.add(key)
    return result


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_INTEGER_DIGITS:
        what = f"an integer has more than {MAX_INTEGER_DIGITS:,} digits"
        raise _TextError(what, "write a shorter number, or a string", token=digits)
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _TextError(f"the number {_short(digits)} is too large for a double", "write it as a string", token=digits)
    return number


def _constant(name: str) -> float:
    raise _TextError(f"{name} is not JSON", "write null or a number", token=name)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant, strict=True
)


def _locate(text: str, wanted: str | _SecondKey) -> int:
    """Find the offset of a fault of which the parser told only the token."""
    if isinstance(wanted, _SecondKey):
        return next((at for at, key in _second_keys(text) if key == wanted.key), 0)
    return next((token.start() for token in _TOKEN.finditer(text) if token[0] == wanted), 0)


def _second_keys(text: str) -> Iterator[tuple[int, str]]:
    """Yield offset and name of the keys that repeat an earlier key of their object."""
    open_objects: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            open_objects.append(set())
        elif token[0] in "]}":
            open_objects.pop()
        elif token[0].startswith('"') and _COLON.match(text, token.end()):
            key = json.loads(token[0])
            if key in open_objects[-1]:
                yield token.start(), key
            open_objects[-1].add(key)


_SYNTAX = {
    "Expecting value": "a JSON value was wanted",
    "Expecting property name enclosed in double quotes": "a key in double quotes was wanted",
    "Expecting ':' delimiter": "a colon was wanted",
    "Expecting ',' delimiter": "a comma or a closing bracket was wanted",
    "Extra data": "there is more text after the JSON value",
    "Unterminated string starting at": "a string is not closed that begins",
    "Illegal trailing comma before end of object": "there is a comma before a closing brace",
    "Illegal trailing comma before end of array": "there is a comma before a closing bracket",
    "Invalid control character at": "a control character stands unescaped in a string",
    "Invalid \\escape": "a backslash begins no JSON escape",
    "Invalid \\uXXXX escape": "a \\u escape has not four hexadecimal digits",
    "Unexpected UTF-8 BOM (decode using utf-8-sig)": "there is a byte order mark",
}


def _explain_syntax(text: str, error: json.JSONDecodeError) -> str:
    if not text.strip():
        return "there is no JSON value, only an empty text"
    reason = _SYNTAX.get(error.msg.rstrip(": "), error.msg[:1].lower() + error.msg[1:])
    ends = error.pos >= len(text.rstrip())
    return f"this is not JSON: {reason} at {_place(text, error.pos)}" + (", where the text ends" if ends else "")


def _place(text: str, at: int) -> str:
    column = at - text.rfind("\n", 0, at)
    line = text.count("\n", 0, at) + 1
    return f"line {line}, column {column}" if "\n" in text.strip() else f"column {column}"


def _plain(value: object, depth: int = 0, *, whole_numbers: bool = False) -> JsonValue:
    """Return a copy of `value` made of nothing but JSON types, or refuse it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _checked_text(value)
    if isinstance(value, int):
        return _checked_integer(int(value))
    if isinstance(value, float):
        return _checked_float(float(value), whole_numbers=whole_numbers)
    if not isinstance(value, dict | list | tuple):
        raise BadInput(f"a {type(value).__name__} cannot be written as JSON", fix="use text, numbers, lists or objects")
    if depth >= MAX_DEPTH:
        raise BadInput(f"the value is nested deeper than {MAX_DEPTH} levels", fix="flatten it")
    if isinstance(value, dict):
        return {_checked_key(k): _plain(v, depth + 1, whole_numbers=whole_numbers) for k, v in value.items()}
    return [_plain(item, depth + 1, whole_numbers=whole_numbers) for item in value]


def _checked_key(key: object) -> str:
    if not isinstance(key, str):
        raise BadInput(f"the key {_short(repr(key))} is not text", fix="use text as keys")
    return _checked_text(key)


def _checked_text(text: str) -> str:
    if not text.isascii() and _RAW_SURROGATE.search(text):
        raise BadInput(f"the text {_short(ascii(text))} has a lone surrogate", fix="write the whole character")
    return str(text)


def _checked_integer(number: int) -> int:
    # A decimal digit holds log2(10) = 3.32 bits: this bound spares the conversion that Python itself would refuse.
    if number.bit_length() > 14_000 and abs(number) >= 10**MAX_INTEGER_DIGITS:
        raise BadInput(f"an integer has more than {MAX_INTEGER_DIGITS:,} digits", fix="write it as text")
    return number


def _checked_float(number: float, *, whole_numbers: bool) -> int | float:
    if not math.isfinite(number):
        raise BadInput(f"{number} cannot be written as JSON", fix="use null or a finite number")
    return int(number) if whole_numbers and number.is_integer() else number


def _short(text: str) -> str:
    clipped = text if len(text) <= 40 else text[:39] + "…"
    return json.dumps(clipped, ensure_ascii=False)
