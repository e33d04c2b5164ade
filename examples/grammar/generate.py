"""Makes the grammar example: right sentences of a small grammar, and the same with errors put in.

The errors are those of learners: agreement of subject and verb, articles, prepositions, word order, and spelling. A
sentence gets none to three. No right sentence stands in two splits. This file does not train or score anything.

    python examples/grammar/generate.py     # writes corpus.jsonl and the three splits again, byte for byte
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from words import (
    ACTIONS,
    ADJECTIVES,
    OFTEN,
    PEOPLE,
    PLACES,
    PREPOSITIONS,
    PRONOUNS,
    RELATIONS,
    THINGS,
    TIMES,
)  # fmt: skip

SEED = 20261124
ROWS = {"train": 8000, "dev": 120, "test": 300}
CORPUS = 3000  # right sentences alone, to pretrain on
ERRORS = (0, 1, 1, 1, 2, 2, 3)


def main(folder: Path = Path(__file__).parent) -> None:
    """Write the corpus and the splits."""
    chance = random.Random(SEED)
    seen: set[str] = set()
    for split, count in ROWS.items():
        pairs = [pair(new_sentence(chance, seen), chance) for _ in range(count)]
        rows = [{"id": f"{split}-{n}", "prompt": wrong, "completion": right} for n, (wrong, right) in enumerate(pairs)]
        write(folder / f"{split}.jsonl", rows)
    texts = [right_text(new_sentence(chance, seen)) for _ in range(CORPUS)]
    write(folder / "corpus.jsonl", [{"id": f"corpus-{n}", "text": text} for n, text in enumerate(texts)])


@dataclass(frozen=True)
class Word:
    """A word, and what can be wrong about it: other forms, by the kind of error."""

    text: str
    others: tuple[str, ...] = ()


def new_sentence(chance: random.Random, seen: set[str]) -> list[Word]:
    """Return a sentence that was not made before."""
    while True:
        made = sentence(chance)
        if (text := right_text(made)) not in seen:
            seen.add(text)
            return made


# -- right sentences -----------------------------------------------------------------------------------------------


def sentence(chance: random.Random) -> list[Word]:
    """Return the words of one sentence, without the full stop."""
    subject, is_plural = who(chance)
    often = [Word(chance.choice(OFTEN))] if chance.random() < 0.35 else []
    if chance.random() < 0.55:
        third, other, past = chance.choice(ACTIONS)
        rest = phrase(chance, THINGS)[0]
        link: list[Word] = []
    else:
        third, other, past, preposition = chance.choice(RELATIONS)
        rest = phrase(chance, chance.choice((PEOPLE, THINGS)))[0]
        link = [preposition_word(preposition)]
    if not often and chance.random() < 0.35:
        verb = Word(past)
    else:
        verb = Word(other, (third,)) if is_plural else Word(third, (other,))
    words = [*subject, *often, verb, *link, *rest]
    if chance.random() < 0.7:
        preposition, end = chance.choice(chance.choice((TIMES, PLACES)))
        words += [preposition_word(preposition), *map(Word, end.split())]
    return words


def who(chance: random.Random) -> tuple[list[Word], bool]:
    if chance.random() < 0.4:
        pronoun, is_plural = chance.choice(PRONOUNS)
        return [Word(pronoun)], is_plural
    return phrase(chance, PEOPLE)


def phrase(chance: random.Random, nouns: list[tuple[str, str]]) -> tuple[list[Word], bool]:
    """Return article, perhaps an adjective, and noun; and whether it is plural."""
    singular, plural = chance.choice(nouns)
    adjective = [Word(chance.choice(ADJECTIVES))] if chance.random() < 0.5 else []
    if chance.random() < 0.35:
        article = chance.choice(("the", "two", "some", "these"))
        return [Word(article), *adjective, Word(plural)], True
    first = adjective[0].text if adjective else singular
    indefinite, wrong = ("an", "a") if first[0] in "aeiou" else ("a", "an")
    indefinite, wrong = ("an", "a") if first == "honest" else (indefinite, wrong)
    article = Word(indefinite, (wrong,)) if chance.random() < 0.6 else Word("the", ("",))
    return [article, *adjective, Word(singular)], False


def preposition_word(right: str) -> Word:
    return Word(right, tuple(word for word in PREPOSITIONS if word != right))


# -- errors --------------------------------------------------------------------------------------------------------


def pair(words: list[Word], chance: random.Random) -> tuple[str, str]:
    """Return the sentence with errors, and as it should be."""
    wrong = [word.text for word in words]
    places = list(range(len(words)))
    chance.shuffle(places)
    errors = chance.choice(ERRORS)
    for place in places:
        if not errors:
            break
        errors -= put_error(wrong, words, place, chance)
    return text_of(wrong), right_text(words)


def put_error(wrong: list[str], words: list[Word], place: int, chance: random.Random) -> bool:
    """Put one error at a place, if it can have one, and say whether it did."""
    if words[place].others:
        wrong[place] = chance.choice(words[place].others)
        return True
    kind = chance.random()
    if kind < 0.4 and 0 < place < len(words) - 1 and not words[place + 1].others and wrong[place + 1]:
        wrong[place], wrong[place + 1] = wrong[place + 1], wrong[place]
        return wrong[place] != wrong[place + 1]
    if kind < 0.8 and len(wrong[place]) > 4:
        wrong[place] = misspelled(wrong[place], chance)
        return wrong[place] != words[place].text
    return False


def misspelled(word: str, chance: random.Random) -> str:
    """Swap two neighbouring letters, leave one out, or double one."""
    at = chance.randrange(1, len(word) - 2)
    return chance.choice((
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[: at + 1] + word[at:],
    ))  # fmt: skip


# -- text ----------------------------------------------------------------------------------------------------------


def right_text(words: list[Word]) -> str:
    return text_of([word.text for word in words])


def text_of(words: list[str]) -> str:
    """Return words as a sentence; an empty word was left out."""
    text = " ".join(word for word in words if word)
    return text[0].upper() + text[1:] + "."


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
