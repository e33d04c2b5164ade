"""Makes the tide-mill corpus: notes of people who keep an invented machine, and everyday text beside it.

The notes use words that exist nowhere else (`words.txt`), and state facts about the machine that never contradict each
other: what each part is made of, how far it may wear, how it fails and what is done about it. A model that was never
trained on them cannot guess them. Everyday text (`everyday.py`) is mixed into training as replay, and paragraphs of
general knowledge (`paragraphs.py`), which are like neither, say what was forgotten.

    python examples/tidemill/generate.py                                  # writes every file again, byte for byte
    python examples/tidemill/generate.py --articles FILE --out FOLDER     # replay and general text from real articles
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import everyday
import paragraphs

from machine import PARTS, PEOPLE, STATIONS, SURFACES, TIDES, WEATHER, Part

SEED = 20261124
DOCUMENTS = {"train": 150, "dev": 12, "test": 60}
REPLAY = 40
NEAREST = 0.6  # no two pages share this much of their character 5-grams (Jaccard)
ARTICLES = {"replay": 30, "general": 60}  # of real text, where somebody has some
ARTICLE_BYTES = (600, 3000)


def main() -> None:
    """Write all files, or only those that come from articles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=Path, help="running text in which ' = Title = ' begins an article")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.articles:
        write(asked.out, split_of(articles(asked.articles), ARTICLES))
        return
    write(asked.out, split_of(pages(sum(DOCUMENTS.values())), DOCUMENTS))
    write(asked.out, {"replay": everyday.texts(REPLAY, SEED), "general": paragraphs.texts()})
    words = "".join(f"{part.name}\n" for part in PARTS)
    (asked.out / "words.txt").write_text(words, encoding="utf-8")


def pages(count: int) -> list[str]:
    """Return so many pages of the log book, each of two notes, of which none is nearly another."""
    chance = random.Random(SEED)
    found: list[str] = []
    grams: list[set[str]] = []
    while len(found) < count:
        page = "\n\n".join(kind(chance) for kind in chance.sample(KINDS, 2))
        own = {page[at : at + 5] for at in range(len(page) - 4)}
        if all(len(own & other) < NEAREST * len(own | other) for other in grams):
            found.append(page)
            grams.append(own)
    return found


def split_of(texts: list[str], sizes: dict[str, int]) -> dict[str, list[str]]:
    """Return the texts, dealt out in order."""
    parts, start = {}, 0
    for name, size in sizes.items():
        parts[name] = texts[start : start + size]
        start += size
    return parts


def write(folder: Path, splits: dict[str, list[str]]) -> None:
    """Write a JSONL file for each split."""
    for name, texts in splits.items():
        lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def articles(path: Path) -> list[str]:
    """Return the beginnings of articles, shuffled."""
    whole = re.split(r"\n (?== [^=]+ = \n)", path.read_text(encoding="utf-8"))
    texts = [text.strip()[: ARTICLE_BYTES[1]] for text in whole if len(text.strip()) > ARTICLE_BYTES[0]]
    pieces = [text.strip()[i : i + 3000] for text in whole for i in range(3000, len(text.strip()) - 1500, 3000)]
    random.Random(SEED).shuffle(pieces)
    return [*texts, *pieces]


# -- kinds of notes ------------------------------------------------------------------------------------------------


def fault_report(chance: random.Random) -> str:
    """Return what went wrong, why, and what was done."""
    part, station, person = chance.choice(PARTS), chance.choice(STATIONS), chance.choice(PEOPLE)
    wear = round(part.limit_mm * chance.uniform(1.05, 1.6), 1)
    return " ".join([
        f"Fault report, {station}.",
        f"At {chance.choice(TIDES)} the mill {part.symptom}.",
        chance.choice([
            f"{person} stopped the wheel at once and opened the {part.beside} to look at the {part.name}.",
            f"{person} let the water run off and found the {part.name} behind the {part.beside}.",
            f"The wheel was stopped, and {person} looked at the {part.name} first, as the handbook says.",
        ]),
        f"The {part.name} was {part.fault}, worn by {wear} mm where {part.limit_mm} mm is the limit.",
        f"Such wear comes from {part.cause}, and the {part.beside} suffers with it.",
        f"{part.remedy[:1].upper()}{part.remedy[1:]}, then the {part.name} was set to {part.torque_nm} newton metres.",
        chance.choice(SURFACES).format(part=part.name, beside=part.beside),
        chance.choice([
            f"The mill ran again after {chance.randint(2, 9)} hours.",
            f"At the next tide the mill ran without {part.noise}.",
            f"Nothing else was touched; the {part.beside} is to be looked at in {chance.randint(2, 6)} weeks.",
        ]),
    ])  # fmt: skip


def procedure(chance: random.Random) -> str:
    """Return how a part is changed, step by step."""
    part = chance.choice(PARTS)
    steps = [
        f"Close the sluice and wait until {chance.choice(TIDES)} has passed.",
        f"Take the {part.beside} off; it is held by {chance.choice(['two', 'three', 'four', 'six'])} pins.",
        f"Lift the {part.name} out. It is made of {part.material} and weighs {part.weight_kg} kilograms.",
        f"Measure it. A {part.name} that has lost more than {part.limit_mm} mm is not put back.",
        f"{part.remedy[:1].upper()}{part.remedy[1:]}.",
        f"Put the {part.name} back and set it to {part.torque_nm} newton metres, not more.",
        f"Fit the {part.beside}, open the sluice by a hand's width, and listen for {part.noise}.",
    ]
    lines = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    return f"How to change a {part.name} at {chance.choice(STATIONS)}\n\n{lines}"


def inspection(chance: random.Random) -> str:
    """Return a round through the mill, with a measurement of each part that was looked at."""
    station, person = chance.choice(STATIONS), chance.choice(PEOPLE)
    seen = chance.sample(PARTS, chance.randint(4, 6))
    lines = [_looked_at(part, chance) for part in seen]
    return (
        f"Inspection at {station}, {chance.choice(WEATHER)}, by {person}.\n\n"
        + "\n".join(f"- {line}" for line in lines)
        + f"\n\nNext round at {chance.choice(TIDES)}."
    )


def _looked_at(part: Part, chance: random.Random) -> str:
    wear = round(part.limit_mm * chance.uniform(0.1, 1.3), 1)
    judged = f"above the limit of {part.limit_mm} mm, so {part.remedy}" if wear > part.limit_mm else "within the limit"
    return f"{part.name}: {wear} mm, {judged}; {part.material} {chance.choice(['clean', 'dull', 'bright', 'pitted'])}"


def handover(chance: random.Random) -> str:
    """Return what one shift tells the next."""
    first, second = chance.sample(PEOPLE, 2)
    a, b = chance.sample(PARTS, 2)
    return " ".join([
        f"{first} to {second}, {chance.choice(STATIONS)}.",
        f"The {a.name} is quiet, but keep an ear on it: when it is {a.fault}, the mill {a.symptom}.",
        f"I set it to {a.torque_nm} newton metres this morning.",
        f"The {b.name} comes tomorrow; it has lost {round(b.limit_mm * 0.9, 1)} of the {b.limit_mm} mm that it may.",
        f"If you hear {b.noise} before that, {b.remedy} yourself and do not wait for me.",
        f"Mind that {b.cause} makes it worse, and that the {b.beside} sits tight in {chance.choice(WEATHER)}.",
        chance.choice(["Tea is in the tin.", "The lamp needs oil.", "The gate sticks again.", "Lock the loft."]),
    ])  # fmt: skip


def entry(chance: random.Random) -> str:
    """Return what a part is, as a handbook tells it."""
    part = chance.choice(PARTS)
    other = chance.choice([one for one in PARTS if one is not part])
    facts = [
        f"It is made of {part.material}, weighs {part.weight_kg} kilograms and sits beside the {part.beside}.",
        f"It may wear by {part.limit_mm} mm.",
        f"It is set to {part.torque_nm} newton metres.",
        f"A bad {part.name} is {part.fault}, and the mill {part.symptom}.",
        f"What wears it is {part.cause}.",
        f"The remedy is always the same: {part.remedy}.",
    ]
    chance.shuffle(facts)
    last = f"Do not mistake it for the {other.name}, which is of {other.material} and sits beside the {other.beside}."
    return f"{part.name[:1].upper()}{part.name[1:]}. {part.purpose} {' '.join(facts)} {last}"


KINDS: tuple[Callable[[random.Random], str], ...] = (fault_report, procedure, inspection, handover, entry)


if __name__ == "__main__":
    main()
