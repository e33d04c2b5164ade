"""How people type, and how alike two tickets look.

A ticket that is put together from clean phrases gets the habits of one writer: lower case, slips of the finger, sloppy
stops, a product name spelled from memory. Meaning is never changed.

    python -c "import random, habits; print(habits.slip('derailleur', random.Random(3)))"
"""

from __future__ import annotations

import random
import re


def type_like_a_person(text: str, product_name: str, rng: random.Random) -> str:
    """Lower case, slips of the finger, sloppy stops; most people type properly."""
    name = spell_product(product_name, rng)
    words = text.split(" ")
    if rng.random() < 0.35:
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(words) - 1)  # the last word is often a name
            words[place] = slip(words[place], rng)
    text = " ".join(words).replace("{product}", name)
    habit = rng.choices(["proper", "lower", "no stops", "loud"], [62, 22, 10, 6])[0]
    if habit == "lower":
        return text.lower()
    if habit == "no stops":
        return re.sub(r"\. (?!I\b)(\w)", lambda stop: ", " + stop[1].lower(), text).rstrip(".")
    return text.replace(". ", "! ", 2) if habit == "loud" else text


def spell_product(name: str, rng: random.Random) -> str:
    """As in the handbook, in lower case, with a slip, or with a hyphen."""
    first, second = name.split()
    way = rng.choices(["handbook", "lower", "slip", "hyphen"], [74, 18, 3, 5])[0]
    return {
        "handbook": name,
        "lower": name.lower(),
        "slip": f"{slip(first, rng)} {second}",
        "hyphen": f"{first}-{second}",
    }[way]


def slip(word: str, rng: random.Random) -> str:
    """One slip inside a word of five letters or more: two letters swapped, one lost or one doubled."""
    if len(word) < 5 or not word.isalpha():
        return word
    place = rng.randrange(1, len(word) - 2)
    swapped = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return rng.choice([swapped, word[:place] + word[place + 1 :], word[:place] + word[place] + word[place:]])


def five_grams(text: str) -> frozenset[str]:
    """Character 5-grams of the lower-cased text."""
    lowered = text.lower()
    return frozenset(lowered[start : start + 5] for start in range(len(lowered) - 4))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    common = len(a & b)
    return common / (len(a) + len(b) - common)
