"""Passkeys and needles: where they stand, how long their texts are, and which answers are right."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from luthier.evaluation.long_context import ANSWER_TOKENS, Test, Trial, make_trials, run_trials
from luthier.generation.engine import Generation, failed_generation
from luthier.generation.settings import Settings
from luthier.ground.events import Tell, silent


def words(text: str) -> list[int]:
    """A token for each word, three of a template around them."""
    return [1, 2, *(len(word) for word in text.split()), 3]


def trials(test: Test, lengths: Sequence[int] = (200, 1000), depths: Sequence[float] = (0.0, 0.5, 1.0)) -> list[Trial]:
    return make_trials(words, test, lengths=lengths, depths=depths, n=3, seed=7)


@pytest.mark.parametrize("test", ["passkey", "needle"])
def test_texts_are_as_long_as_sentences_allow(test: Test) -> None:
    made = trials(test)
    assert len(made) == 2 * 3 * 3
    for trial in made:
        tokens = len(words(trial.prompt)) + ANSWER_TOKENS
        assert trial.length - 8 < tokens <= trial.length  # the longest sentence has seven words


@pytest.mark.parametrize("test", ["passkey", "needle"])
def test_the_fact_stands_at_its_depth(test: Test) -> None:
    for trial in trials(test, lengths=(2000,)):
        place = trial.prompt.index(trial.answer) / len(trial.prompt)
        assert place == pytest.approx(trial.depth, abs=0.06)


@pytest.mark.parametrize("test", ["passkey", "needle"])
def test_trials_differ_and_the_same_seed_gives_the_same(test: Test) -> None:
    made = trials(test)
    assert len({trial.prompt for trial in made}) == len(made)
    assert trials(test) == made


def test_a_length_that_the_fact_alone_exceeds_has_no_trials() -> None:
    assert {trial.length for trial in trials("passkey", lengths=(40, 300))} == {300}


def test_nothing_but_the_fact_gives_the_needle_away() -> None:
    for trial in trials("needle"):
        assert trial.prompt.count(trial.answer) == 1
        assert not any(other in trial.prompt for other in trial.others)


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("50495", True), (" 50495. Remember it.", True), ("5 0 4 9 5", True), ("The pass key is 50495", True),
        ("504951", False), ("5049", False), ("12345 or 50495", False), ("", False), (None, False),
    ],
)  # fmt: skip
def test_a_passkey_is_right_to_the_digit(said: str | None, right: bool) -> None:
    assert Trial("passkey", 100, 0.5, "", "50495").is_right(said) is right


@pytest.mark.parametrize(
    ("said", "right"), [("Lisbon.", True), ("It is LISBON", True), ("Oslo, not Lisbon", False), ("a city", False)]
)
def test_a_needle_is_right_by_the_first_word_that_could_be_meant(said: str, right: bool) -> None:
    assert Trial("needle", 100, 0.5, "", "Lisbon", ("Oslo", "Lima")).is_right(said) is right


class Reader:
    """Reads numbers in texts of at most `window` tokens, and fails on longer ones."""

    def __init__(self, window: int, made: Sequence[Trial]) -> None:
        self.window, self.made = window, made

    def generate(self, prompts: Sequence[Sequence[int]], settings: Settings, tell: Tell = silent) -> list[Generation]:
        assert settings.greedy
        return [
            Generation(trial.answer, (), len(prompt), 2, 0.1, "end")
            if len(prompt) <= self.window
            else failed_generation("too long")
            for prompt, trial in zip(prompts, self.made, strict=True)
        ]


def test_cells_count_what_was_found_and_failures_as_not_found() -> None:
    made = trials("passkey", lengths=(200, 1000), depths=(0.0, 1.0))
    cells = run_trials("base", Reader(200, made), words, made)
    assert [(cell.length, cell.depth, cell.right, cell.n) for cell in cells] == [
        (200, 0.0, 3, 3), (200, 1.0, 3, 3), (1000, 0.0, 0, 3), (1000, 1.0, 0, 3),
    ]  # fmt: skip
