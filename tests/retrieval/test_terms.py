"""The analyser: names and codes survive, spellings of one code meet, any text is accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.retrieval.terms import FUNCTION_WORDS, analyse, query_terms, stem_plural


@pytest.mark.parametrize("spelling", ["KR-482", "KR 482", "KR482", "kr_482", "KR\u2013482", "kr/482"])
def test_spellings_of_a_code_share_all_terms(spelling: str) -> None:
    assert set(analyse(spelling)) == {"kr", "482", "kr482"}


def test_a_numbered_name_is_a_term_of_its_own() -> None:
    assert "merlin7" in analyse("The Merlin 7 is light.")
    assert "merlin7" not in analyse("7 Merlin bicycles; Merlin, 7 of them")


def test_passages_keep_every_word() -> None:
    assert analyse("The Who: IT is not for us") == ["the", "who", "it", "is", "not", "for", "us"]


def test_queries_lose_function_words_unless_they_have_no_others() -> None:
    assert query_terms("I don't know what is in the Merlin 7, the Merlin 7!") == ["t", "know", "merlin", "7", "merlin7"]
    assert query_terms("To be or not to be: The Who") == ["to", "be", "or", "not", "the", "who"]
    assert query_terms("Will 7") == ["7", "will7"]


def test_the_list_of_function_words_is_written_as_terms() -> None:
    assert all(analyse(word) == [word] for word in FUNCTION_WORDS)


@pytest.mark.parametrize(
    ("plural", "singular"),
    [("brakes", "brake"), ("batteries", "battery"), ("boxes", "box"), ("glasses", "glass"), ("ties", "tie")],
)
def test_plurals_meet_their_singulars(plural: str, singular: str) -> None:
    assert stem_plural(plural) == stem_plural(singular)


@pytest.mark.parametrize("word", ["gas", "glass", "campus", "axis", "merlin", "bus"])
def test_singulars_stay(word: str) -> None:
    assert stem_plural(word) == word


def test_case_accents_and_width_are_folded() -> None:
    assert analyse("CAFÉ ＫＲ４８２ Straße") == analyse("cafe kr482 strasse")


def test_possessives_are_dropped_but_not_the_name() -> None:
    assert analyse("Merlin's brakes, Merlin\u2019s") == ["merlin", "brake", "merlin"]


def test_chinese_runs_become_pairs() -> None:
    assert analyse("自行车 A1") == ["自行", "行车", "a", "1", "a1"]


def test_a_hash_is_one_term() -> None:
    assert analyse("3fa85f64b7a1c2d4") == ["3fa85f64b7a1c2d4"]


@given(st.text(st.characters()))
def test_any_text_gives_terms_without_blanks(text: str) -> None:
    for term in analyse(text):
        assert term
        assert term.split() == [term]


@given(st.text(), st.text())
def test_terms_of_lines_are_terms_of_the_text(first: str, second: str) -> None:
    """Texts joined by a paragraph border do not change each other's terms."""
    assert analyse(f"{first}\n\n{second}") == analyse(first) + analyse(second)
