"""Where gaps lie, as a person says it, and the sentences for places that are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.ground.errors import BadInput
from luthier.rows.places import at_places, line_and_column, marked

TEXT = "def f(x):\n    y = x + 1\n    return y\n"


@pytest.mark.parametrize(
    ("place", "missing"),
    [
        ("2", "y = x + 1"),  # a line: without indentation and line break
        ("2:5", ""),
        ("2:9-2:14", "x + 1"),
        ("2-3", "y = x + 1\n    return y"),
        ("2:1-3:1", "    y = x + 1\n"),
        ("1:1", ""),
        ("3:13", ""),  # behind the last character
        (" 3 ", "return y"),
    ],
)
def test_what_a_place_names(place: str, missing: str) -> None:
    _, [(first, end)] = at_places(TEXT, [place])
    assert TEXT[first:end] == missing


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("4", "f.py has 3 lines and no line 4"),
        ("0", "no line 0"),
        ("2:99", "line 2 of f.py has 13 characters and no column 99"),
        ("2:0", "no column 0"),
        ("2:9-1:1", '"2:9-1:1" ends before it begins'),
        ("two", '"two" is no place'),
        ("2,5", '"2,5" is no place.*write LINE'),
        ("1-3:13", "nothing stands around the gap"),
    ],
)
def test_a_place_that_is_none_is_told(place: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        at_places(TEXT, [place], where="f.py")


def test_several_places_come_in_order_and_may_touch_but_not_overlap() -> None:
    assert at_places(TEXT, ["3", "2:5-2:6"])[1] == [(14, 15), (28, 36)]
    assert at_places("abcd", ["1:1-1:2", "1:2-1:3"])[1] == [(0, 1), (1, 2)]
    for places in (["2", "2:6-2:8"], ["2:5", "2:5"], ["1-2", "2-3"]):
        with pytest.raises(BadInput, match="two gaps overlap at 2:"):
            at_places(TEXT, places)


def test_a_gap_at_the_edge_is_allowed_with_text_on_one_side() -> None:
    assert at_places("abc", ["1:1"])[1] == [(0, 0)]
    assert at_places("abc", ["1:4"])[1] == [(3, 3)]
    for text in ("", "  \n", "\n\n"):
        with pytest.raises(BadInput, match="nothing stands around"):
            at_places(text, ["1:1"])


def test_windows_line_breaks_are_no_part_of_a_line() -> None:
    text = "a = 1\r\nb = 2\r\n"
    _, [(first, end)] = at_places(text, ["1"])
    assert text[first:end] == "a = 1"


def test_marks_are_taken_out() -> None:
    assert marked("a <gap> b <gap>") == ("a  b ", [(2, 2), (5, 5)])
    assert marked("<gap> b") == (" b", [(0, 0)])
    with pytest.raises(BadInput, match="no gap is marked with <gap>"):
        marked("a b")
    with pytest.raises(BadInput, match="side by side"):
        marked("a <gap><gap> b")
    with pytest.raises(BadInput, match="nothing stands around"):
        marked(" <gap> ")


@given(st.text("ab\n", max_size=30), st.data())
def test_line_and_column_name_the_place_again(text: str, data: st.DataObject) -> None:
    text = f"x{text}"
    place = data.draw(st.integers(0, len(text) - 1))
    line, column = line_and_column(text, place)
    assert at_places(text, [f"{line}:{column}"])[1] == [(place, place)]
