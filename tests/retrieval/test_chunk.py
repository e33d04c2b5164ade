"""Cutting: short documents whole, borders where a reader would put them, no word lost, no passage too long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from luthier.retrieval.chunk import chunk_document, count_words
from luthier.retrieval.documents import parse_document


def cut(text: str, *, max_words: int = 12, overlap: int = 0, name: str = "a.md") -> list[tuple[str, str, int]]:
    chunks = chunk_document(parse_document(name, text.encode()), max_words=max_words, overlap=overlap)
    return [(chunk.id, chunk.text, chunk.start_line) for chunk in chunks]


def test_a_short_document_stays_whole() -> None:
    assert cut("# Guide\n\nHello.\n\n## Brakes\nBleed.") == [
        ("a.md#0000", "Guide\nHello.\n\nGuide > Brakes\nBleed.", 3),
    ]


def test_a_longer_one_is_cut_at_headings_and_each_passage_says_where_it_stands() -> None:
    text = "# Guide\n\nOne two three four five.\n\n## KR-482\nSix seven eight nine ten.\n"
    assert cut(text, max_words=10) == [
        ("a.md#0000", "Guide\nOne two three four five.", 3),
        ("a.md#0001", "Guide > KR-482\nSix seven eight nine ten.", 6),
    ]


def test_a_long_section_is_cut_at_paragraphs_first() -> None:
    text = "# G\n\n" + "\n\n".join(f"Paragraph {n} has. Six words." for n in range(4))
    assert [body for _, body, _ in cut(text, max_words=13)] == [
        "G\nParagraph 0 has. Six words.\n\nParagraph 1 has. Six words.",
        "G\nParagraph 2 has. Six words.\n\nParagraph 3 has. Six words.",
    ]


def test_a_long_paragraph_is_cut_at_sentences_and_tells_its_line() -> None:
    text = "# G\nOne two three\nfour. Five six seven.\nEight nine ten eleven? Twelve at 3.5 mm."
    assert cut(text, max_words=8) == [
        ("a.md#0000", "G\nOne two three\nfour. Five six seven.", 2),
        ("a.md#0001", "G\nEight nine ten eleven?", 4),
        ("a.md#0002", "G\nTwelve at 3.5 mm.", 4),
    ]


def test_lists_and_tables_are_cut_at_lines() -> None:
    text = "# G\n" + "\n".join(f"- item {n}. Good. Cheap" for n in range(4))
    assert [body for _, body, _ in cut(text, max_words=11)] == [
        "G\n- item 0. Good. Cheap\n- item 1. Good. Cheap",
        "G\n- item 2. Good. Cheap\n- item 3. Good. Cheap",
    ]


def test_neighbours_share_whole_sentences() -> None:
    text = "# G\nOne two three. Four five. Six seven eight nine. Ten eleven."
    assert [body for _, body, _ in cut(text, max_words=6, overlap=2)] == [
        "G\nOne two three. Four five.",
        "G\nSix seven eight nine.",
        "G\nTen eleven.",
    ]
    assert [body for _, body, _ in cut(text, max_words=8, overlap=2)] == [
        "G\nOne two three. Four five.",
        "G\nFour five. Six seven eight nine.",
        "G\nTen eleven.",
    ]


def test_a_text_without_blanks_is_still_cut() -> None:
    pieces = cut("自行车的刹车" * 30, max_words=40, name="a.txt")
    assert len(pieces) > 4
    assert all(count_words(text) <= 40 for _, text, _ in pieces)


WORDS = st.sampled_from(["one", "Two", "three.", "Four!", "five", "KR-482", "\n", "\n\n", "\n- six", "seven?\n"])


@given(st.lists(WORDS, min_size=1, max_size=200), st.integers(4, 40), st.integers(0, 10))
def test_no_word_is_lost_and_no_passage_too_long(words: list[str], max_words: int, overlap: int) -> None:
    text = " ".join([*words, "end"])
    document = parse_document("doc.txt", text.encode())
    chunks = chunk_document(document, max_words=max_words, overlap=overlap)
    assert all(count_words(chunk.text) <= max_words for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == len(chunks)
    bodies = [chunk.text.removeprefix("doc\n").split() for chunk in chunks]
    if overlap == 0:
        assert [word for body in bodies for word in body] == text.split()
    else:
        rest = text.split()
        for body in bodies:  # each passage goes on where the one before stopped, or repeats at most `overlap` words
            shared = next(n for n in range(overlap + 1) if body[n:] == rest[: len(body) - n])
            rest = rest[len(body) - shared :]
        assert not rest


@given(st.lists(WORDS, min_size=1, max_size=100), st.integers(4, 40))
def test_the_line_told_is_the_line_where_the_body_begins(words: list[str], max_words: int) -> None:
    text = " ".join([*words, "end"])
    lines = text.split("\n")
    for chunk in chunk_document(parse_document("doc.txt", text.encode()), max_words=max_words, overlap=0):
        assert chunk.text.split("\n")[1].split()[0] in lines[chunk.start_line - 1].split()
