"""Makes the queues example: letters to an invented bank, each of which belongs into one of six queues.

Each letter tells one problem, and mentions something of another queue that is settled, so that single words do not
tell. Problems are worded differently in each split. This file does not train or score anything.

    python examples/queues/generate.py      # writes train.jsonl, dev.jsonl and test.jsonl again, byte for byte
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from phrases import CLOSINGS, LINKS, OPENINGS, PROBLEMS, QUEUES, SETTLED

SEED = 20261124
ROWS = {"train": 300, "dev": 60, "test": 240}
PARTS = {"train": range(6), "dev": range(6, 8), "test": range(8, 12)}  # of the twelve problems of a queue


def main(folder: Path = Path(__file__).parent) -> None:
    """Write the three splits."""
    for split in ROWS:
        lines = [json.dumps(row) + "\n" for row in rows_of(split)]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def rows_of(split: str) -> list[dict[str, str]]:
    """Return the letters of a split, as many of each queue, no text twice."""
    chance = random.Random(f"{SEED} {split}")
    found: dict[str, tuple[str, int]] = {}
    while len(found) < ROWS[split]:
        queue, problem = QUEUES[len(found) % len(QUEUES)], chance.choice(PARTS[split])
        found.setdefault(letter(queue, problem, chance), (queue, problem))
    rows = [
        {"id": f"{split}-{n}", "text": text, "label": queue, "group": f"{queue}-{problem}"}
        for n, (text, (queue, problem)) in enumerate(found.items())
    ]
    chance.shuffle(rows)
    return rows


def letter(queue: str, problem: int, chance: random.Random) -> str:
    """Return a letter about a problem of `queue` that mentions another queue."""
    other = chance.choice([name for name in QUEUES if name != queue])
    body = chance.choice(LINKS).format(problem=PROBLEMS[queue][problem], settled=chance.choice(SETTLED[other]))
    return chance.choice(OPENINGS) + sentences(body) + chance.choice(CLOSINGS)


def sentences(text: str) -> str:
    """Return the text with a capital at the beginning of each sentence."""
    parts = text.split(". ")
    return ". ".join(part[:1].upper() + part[1:] for part in parts)


if __name__ == "__main__":
    main()
