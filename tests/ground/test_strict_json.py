"""Strict JSON: what Python's `json` lets through is refused in one sentence, and what is written is read back."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.ground.errors import BadInput
from luthier.ground.strict_json import canonical, dump_json, parse_json

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4))

REFUSED = [
    ("", "empty", None),
    (" \n ", "empty", None),
    ("NaN", "NaN is not JSON", "column 1"),
    ('{"a":[1,Infinity]}', "Infinity is not JSON", "column 9"),
    ("-Infinity", "-Infinity is not JSON", "column 1"),
    ('{"note":"NaN","b":NaN}', "NaN is not JSON", "column 19"),
    ('{"a":1,"b":2,"a":3}', '"a" occurs twice', "column 14"),
    ('{"a":1,"b":{"x":1,"x":2}}', '"x" occurs twice', "column 19"),
    ('{"a":1,"a":{"x":1,"x":2}}', '"x" occurs twice', "column 19"),
    ('{"a":1,"\\u0061":2}', '"a" occurs twice', "column 8"),
    ('{"a":1,\n "a":2}', '"a" occurs twice', "line 2, column 2"),
    ('"ab\\ud800"', "lone surrogate", "column 4"),
    ('"\\udc00"', "lone surrogate", "column 2"),
    ('"\\ud83dx\\ude00"', "lone surrogate", "column 2"),
    ('"\\ud83d\\ud83d\\ude00"', "lone surrogate", "column 2"),
    ('"\ud800"', "lone surrogate", "column 2"),
    ('{"\\ud800":1}', "lone surrogate", "column 3"),
    ('"a\x00b"', "control character", "column 3"),
    ('{"a":"\n"}', "control character", "column 7"),
    ("1e999", "too large", "column 1"),
    ("[0, -1e400]", "too large", "column 5"),
    ("1" * 5000, "4,300 digits", "column 1"),
    ("[" * 101 + "]" * 101, "deeper than 100", "column 101"),
    ('{"a":' * 200_000, "deeper than 100", None),
    ("[" * 200_000, "deeper than 100", "column 101"),
    ("{'a':1}", "key in double quotes", "column 2"),
    ('{"a":1} x', "more text", "column 9"),
    ('{"a":1}{"b":2}', "more text", "column 8"),
    ('{"a":1,}', "double quotes", "column 8"),
    ('{"a" 1}', "colon", "column 6"),
    ('{"a":1', "where the text ends", "column 7"),
    ('{"a":"half', "not closed", "column 6"),
    ("01", "more text", "column 2"),
    ("\ufeff1", "a JSON value was wanted", "column 1"),
    ("tru", "a JSON value was wanted", "column 1"),
    ('"\\x"', "no JSON escape", "column 2"),
    ('"\\u12"', "four hexadecimal", "column 3"),
    ('"' + '\\"' * 50_000, "not closed", "column 1"),
]


@pytest.mark.parametrize(("source", "reason", "place"), REFUSED, ids=range(len(REFUSED)))
def test_refused_in_one_sentence_with_its_place(source: str, reason: str, place: str | None) -> None:
    started = time.perf_counter()
    with pytest.raises(BadInput) as caught:
        parse_json(source, where="train.jsonl:7")
    message = str(caught.value)
    assert message.startswith("train.jsonl:7: ")
    assert reason in message
    assert place is None or f"{place};" in message or f"{place}," in message
    assert "\n" not in message and len(message) < 240
    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\\\ud800"', "\\ud800"),
        ('"\\u0000"', "\x00"),
        (' {"a": [1, 2.5, true, null]}\n', {"a": [1, 2.5, True, None]}),
        ("[" * 100 + "]" * 100, json.loads("[" * 100 + "]" * 100)),
        ('"' + "[" * 500 + '"', "[" * 500),
        ('{"a":"[[","b":[' + ",".join(["[]"] * 500) + "]}", {"a": "[[", "b": [[]] * 500}),
        ("9" * 4300, int("9" * 4300)),
        ('{"a":{"a":{"a":1}}}', {"a": {"a": {"a": 1}}}),
        ('"line\u2028separator"', "line\u2028separator"),
        ("1e-999", 0.0),
    ],
    ids=range(11),
)
def test_accepted(source: str, value: object) -> None:
    assert parse_json(source) == value


@given(values)
def test_round_trip(value: object) -> None:
    back = parse_json(dump_json(value))
    assert back == value
    assert canonical(back) == canonical(value)


@given(values)
def test_agrees_with_the_standard_library_on_what_both_accept(value: object) -> None:
    for source in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert parse_json(source) == json.loads(source)


@given(st.text() | st.text('{}[]",:\\u0dD8aNnI1e9- ', max_size=40))
def test_any_text_is_read_or_refused_and_never_crashes(source: str) -> None:
    try:
        value = parse_json(source)
    except BadInput:
        return
    assert parse_json(dump_json(value)) == value
    dump_json(value).encode("utf-8")


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1: "a"}, {"a": {1, 2}}, "\ud800", {"\udfff": 1}, 10**4300, -(10**4300), b"bytes"],
    ids=range(9),
)
def test_what_json_cannot_hold_is_not_written(value: object) -> None:
    with pytest.raises(BadInput):
        dump_json({"inside": [value]})


def test_endless_values_are_not_written() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(BadInput, match="deeper than 100"):
        dump_json(endless)


def test_written_compact_in_the_order_of_the_keys() -> None:
    assert dump_json({"b": 1, "a": ("x", "é")}) == '{"b":1,"a":["x","é"]}'


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}, True),
        ([1e2, -0.0], [100, 0], True),
        (True, 1, False),
        ("1", 1, False),
        (None, False, False),
        ([1, 2], [2, 1], False),
        ({"a": None}, {}, False),
        (0.1 + 0.2, 0.3, False),
    ],
)
def test_canonical_is_equality_of_json_values(left: object, right: object, equal: bool) -> None:
    assert (canonical(left) == canonical(right)) is equal
