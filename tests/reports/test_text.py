"""Texts of models and data made fit to be looked at."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from luthier.reports.text import first_line, visible


@given(st.text(alphabet=st.characters()))
def test_nothing_invisible_is_left_but_blanks(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n"]


def test_ordinary_texts_stay_as_they_are() -> None:
    text = "Grüße, 你好\tمرحبا 👩‍🔧\nend"
    assert visible(text) == text


def test_line_ends_and_directions() -> None:
    assert visible("a\r\nb\rc") == "a\nb␍c"
    assert visible("a\u202eb") == "a⟨U+202E⟩b"


def test_first_line() -> None:
    assert first_line("\n  \n  hello  \nworld") == "hello"
    assert first_line("") == ""
    assert first_line("x" * 100, 10) == "x" * 9 + "…"
