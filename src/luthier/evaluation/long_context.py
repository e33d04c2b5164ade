"""Can a model use what stands far back? Passkeys and needles over depth × length.

A passkey is a number in the midst of repeated sentences, asked for at the end (Mohtashami & Jaggi 2023,
arXiv:2305.16300, whose wording is used); right is the exact number. A needle is a fact in the midst of generated
sentences about other things; right is an answer that names its word and none of the others. Everything is drawn from
a seed. How a text becomes a prompt is handed in. The loss by position is `luthier.evaluation.position_loss`.

    >>> make_trials(list, "passkey", lengths=[700], depths=[0], n=1, seed=0)[0].answer
    '62070'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, Protocol

from luthier.generation.engine import Generation
from luthier.generation.settings import Settings
from luthier.ground.events import Tell, silent
from luthier.ground.objective_results import RetrievalCell
from luthier.ground.seeds import derived_seed

Test = Literal["passkey", "needle"]
Encode = Callable[[str], Sequence[int]]
TESTS: tuple[Test, ...] = ("passkey", "needle")
ANSWER_TOKENS = 16
_PROBED = 32  # sentences from which the tokens of one are told

_INTRODUCTION = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. "
    "I will quiz you about the important information there."
)
_GRASS = ("The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again.")
_KINDS = {
    "colour": ("red", "green", "blue", "yellow", "black", "white", "brown", "grey"),
    "city": ("Lisbon", "Vienna", "Oslo", "Cairo", "Lima", "Kyoto", "Boston", "Naples"),
    "fruit": ("apple", "cherry", "lemon", "mango", "peach", "plum", "melon", "grape"),
}
_NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Greta", "Hugo", "Ida", "Jonas", "Lena", "Max")
_PLAIN = (
    "The library opens at nine.", "A bus stops at the corner.", "It rained during the night.",
    "The baker sells bread and rolls.", "Two boats lie in the harbour.", "The museum is closed on Monday.",
    "Children play behind the school.", "A letter lies on the table.", "The train was late again.",
    "Somebody left an umbrella there.", "The garden has an old gate.", "Snow is seldom seen here.",
)  # fmt: skip


class Writer(Protocol):
    """What writes answers: `luthier.generation.engine.Generator`."""

    def generate(self, prompts: Sequence[Sequence[int]], settings: Settings, tell: Tell = silent) -> list[Generation]:
        """Return as many answers as prompts."""
        ...


@dataclass(frozen=True)
class Trial:
    """One prompt, and what a right answer holds. `depth` is 0 at the text's beginning and 1 at its end."""

    test: Test
    length: int
    depth: float
    prompt: str
    answer: str
    others: tuple[str, ...] = ()

    def is_right(self, said: str | None) -> bool:
        """Whether the answer is exact: the first number, or the first of the words that could be meant."""
        text = said or ""
        if self.test == "passkey":
            digits = re.search(r"\d+", re.sub(r"(?<=\d)\s+(?=\d)", "", text))
            return digits is not None and digits[0] == self.answer
        words = re.findall("|".join(map(re.escape, (self.answer, *self.others))), text, re.IGNORECASE)
        return bool(words) and words[0].casefold() == self.answer.casefold()


def make_trials(
    encode: Encode,
    test: Test,
    *,
    lengths: Sequence[int],
    depths: Sequence[float],
    n: int,
    seed: int,
) -> list[Trial]:
    """Return `n` trials for each length and depth, whose prompts come as near to the length as sentences allow.

    Args:
        encode: turns a text into a prompt's tokens, with whatever a chat template puts around it.
        lengths: tokens of prompt and answer; one that is too short for question and fact gives no trials.
    """
    trials = []
    for length in lengths:
        for depth in depths:
            for number in range(n):
                random = Random(derived_seed(seed, test, f"{length} {depth} {number}"))
                trial = _trial(encode, test, length, depth, random)
                trials += [trial] if trial is not None else []
    return trials


def run_trials(
    system: str, writer: Writer, encode: Encode, trials: Sequence[Trial], tell: Tell = silent
) -> list[RetrievalCell]:
    """Return how often a system found what it was asked for, by test, length and depth."""
    settings = Settings(max_new_tokens=ANSWER_TOKENS)
    said = writer.generate([encode(trial.prompt) for trial in trials], settings, tell)
    cells: dict[tuple[Test, int, float], list[bool]] = {}
    for trial, generation in zip(trials, said, strict=True):
        cells.setdefault((trial.test, trial.length, trial.depth), []).append(trial.is_right(generation.text))
    return [
        RetrievalCell(system=system, test=test, length=length, depth=depth, right=sum(found), n=len(found))
        for (test, length, depth), found in cells.items()
    ]


def text_passkey(random: Random, sentences: int, depth: float) -> tuple[str, str, tuple[str, ...]]:
    """Return a text with a number in it, up to where it is wanted; the number; and nothing else that could be meant."""
    key = str(random.randint(10_000, 99_999))
    start = random.randrange(len(_GRASS))
    filler = [_GRASS[(start + n) % len(_GRASS)] for n in range(sentences)]
    fact = f"The pass key is {key}. Remember it. {key} is the pass key."
    body = _around(filler, fact, depth)
    return f"{_INTRODUCTION} {body} What is the pass key? The pass key is", key, ()


def text_needle(random: Random, sentences: int, depth: float) -> tuple[str, str, tuple[str, ...]]:
    """Return a text with a fact in it, up to where its word is wanted; the word; and the other words of its kind."""
    name, kind = random.choice(_NAMES), random.choice(list(_KINDS))
    value = random.choice(_KINDS[kind])
    filler = [random.choice(_PLAIN) for _ in range(sentences)]
    body = _around(filler, f"The favourite {kind} of {name} is {value}.", depth)
    question = f"What is the favourite {kind} of {name}? The favourite {kind} of {name} is"
    return f"{body} {question}", value, tuple(other for other in _KINDS[kind] if other != value)


def _around(filler: Sequence[str], fact: str, depth: float) -> str:
    place = round(depth * len(filler))
    return " ".join([*filler[:place], fact, *filler[place:]])


def _trial(encode: Encode, test: Test, length: int, depth: float, random: Random) -> Trial | None:
    """Return a trial with as many sentences of filler as fit; None if the fact alone does not fit."""
    room, state = length - ANSWER_TOKENS, random.getstate()

    def made(sentences: int) -> tuple[str, str, tuple[str, ...]]:
        random.setstate(state)
        return (text_passkey if test == "passkey" else text_needle)(random, sentences, depth)

    def tokens(sentences: int) -> int:
        return len(encode(made(sentences)[0]))

    if (empty := tokens(0)) > room:
        return None
    count = int((room - empty) / max(1.0, (tokens(_PROBED) - empty) / _PROBED))
    while tokens(count) > room:
        count -= 1
    while tokens(count + 1) <= room:
        count += 1
    return Trial(test, length, depth, *made(count))
