"""Repetition is found exactly, nearly and across splits, and what only looks alike is not."""

from __future__ import annotations

import random

import numpy as np
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st

from luthier.rows.duplicates import THRESHOLD, across, conflicts, within
from luthier.rows.minhash import jaccard, shingles, sketch
from luthier.rows.types import Message, Row

WORDS = ["".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz", k=seed % 7 + 3)) for seed in range(1, 800)]


def row(name: str, asked: str, answer: str = "yes", system: str | None = None) -> Row:
    head = (Message("system", system),) if system else ()
    return Row(name, f"t:{name}", (*head, Message("user", asked), Message("assistant", answer)))


def sentence(seed: int, words: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def grams(text: str) -> set[str]:
    return {text[i : i + 5] for i in range(len(text) - 4)} if len(text) > 5 else {text}


@given(a=st.text(max_size=30), b=st.text(max_size=30))
def test_jaccard_is_that_of_sets_of_five_grams(a: str, b: str) -> None:
    if a and b:
        wanted = len(grams(a) & grams(b)) / len(grams(a) | grams(b))
        assert jaccard(shingles(a), shingles(b)) == wanted


def test_band_collisions_are_as_likely_as_minhash_says() -> None:
    """The share of bands that agree estimates s^6, as an independent MinHash estimates s."""
    expected, found, peer = [], [], []
    for seed in range(60):
        words = sentence(seed, 60).split()
        other = [word if random.Random(seed * 100 + i).random() > 0.08 else "changed" for i, word in enumerate(words)]
        a, b = " ".join(words), " ".join(other)
        one, two = sketch(a), sketch(b)
        similarity = jaccard(one.grams, two.grams)
        expected.append(similarity**6)
        found.append(np.mean([x == y for x, y in zip(one.keys, two.keys, strict=True)]))
        hashes = [MinHash(num_perm=128, seed=3) for _ in range(2)]
        for minhash, text in zip(hashes, (a, b), strict=True):
            minhash.update_batch([gram.encode() for gram in grams(text)])
        peer.append(hashes[0].jaccard(hashes[1]) - similarity)
    # 60 pairs of 20 bands: the mean has a standard error of about 0.012
    assert abs(np.mean(found) - np.mean(expected)) < 0.05
    assert abs(np.mean(peer)) < 0.03


def test_exact_repetition_ignores_case_form_and_space() -> None:
    rows = [row("1", "My wheel\nis broken"), row("2", "my  WHEEL is broken "), row("3", "something else")]
    found = within(rows)
    assert (found.exact, found.near) == (1, 0)
    assert [(pair.a, pair.b, pair.similarity) for pair in found.pairs] == [("t:1", "t:2", 1.0)]


def test_near_repetition_is_found_among_many() -> None:
    rows = [row(str(i), sentence(i)) for i in range(400)]
    changed = [row(f"n{i}", sentence(i).replace(sentence(i).split()[20], "else", 1)) for i in range(0, 400, 10)]
    found = within([*rows, *changed])
    assert (found.exact, found.near) == (0, len(changed))
    assert all(pair.similarity >= THRESHOLD for pair in found.pairs) and len(found.pairs) == 20
    assert {(pair.a, pair.b) for pair in found.pairs} == {(f"t:{i}", f"t:n{i}") for i in range(0, 200, 10)}


def test_an_instruction_that_all_share_makes_nothing_alike() -> None:
    frame = "Read the following message of a customer and say which department should answer it. Message: "
    rows = [row(str(i), f"{frame}{sentence(i, 3)} Answer with one word, please, and nothing else.") for i in range(50)]
    assert within(rows).near == 0


def test_the_same_question_with_another_answer_is_near_and_a_conflict() -> None:
    rows = [
        row("1", sentence(1), "yes"),
        row("2", sentence(1), "no"),
        row("3", sentence(1), "No "),
        row("4", "x", "no"),
    ]
    assert (within(rows).exact, within(rows).near) == (1, 1)
    assert [(pair.a, pair.b) for pair in conflicts(rows)] == [("t:1", "t:2"), ("t:1", "t:3")]
    assert conflicts([row("1", "x", "Yes"), row("2", "x", " yes")]) == []
    other_system = [row("1", "x", "yes", system="a"), row("2", "x", "no", system="b")]
    assert conflicts(other_system) == []


def test_test_items_that_stand_in_train() -> None:
    train = [row(str(i), sentence(i)) for i in range(100)]
    test = [
        row("same", sentence(5).upper(), "another answer"),
        row("near", sentence(6) + " thanks"),
        row("new", sentence(1000)),
    ]
    found = across(train, test)
    assert (found.exact, found.near) == (1, 1)
    assert [(pair.a, pair.b) for pair in found.pairs] == [("t:5", "t:same"), ("t:6", "t:near")]
    assert across([], test).pairs == [] and across(train, []).exact == 0


def test_conversations_are_compared_as_a_whole() -> None:
    def talk(name: str, first: str) -> Row:
        turns = (
            Message("user", first),
            Message("assistant", "ok"),
            Message("user", "yes"),
            Message("assistant", "done"),
        )
        return Row(name, f"t:{name}", turns)

    assert within([talk("1", sentence(1)), talk("2", sentence(2))]).near == 0
    assert across([talk("1", sentence(1))], [talk("2", sentence(2))]).exact == 0


def test_raw_text() -> None:
    rows = [Row(str(i), f"t:{i}", text=text) for i, text in enumerate([sentence(1), sentence(1), sentence(2)])]
    assert within(rows).exact == 1 and conflicts(rows) == []
