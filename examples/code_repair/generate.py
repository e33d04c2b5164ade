"""Make `train.jsonl`, `dev.jsonl` and `test.jsonl`: small functions with a line that is blanked, or shown faulty.

Each row is the text of a function with its assertions and one gap, the place of a line (without its indentation). Half
of the rows show a faulty version of that line as a comment above the gap. Every row was run: its assertions hold with
the right line, and fail without it and with the faulty one. A family of functions lies in one split only. One seed, the
standard library alone:

    python examples/code_repair/generate.py
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template
from types import FrameType
from typing import Any

from families import FAMILIES, POOLS, Family

HERE = Path(__file__).resolve().parent
SEED = 7
SPLITS = {"test": (14, 10), "dev": (6, 8), "train": (None, 20)}  # families (None: the rest), rows of each
SWAPS = (
    (" += ", " -= "), (" -= ", " += "), (" *= ", " += "), (" + ", " - "), (" - ", " + "), (" * ", " + "),
    (" // ", " * "), (" / ", " * "), (" % ", " // "), (" > ", " < "), (" < ", " > "), (" >= ", " <= "),
    (" == ", " != "), (" != ", " == "), (" not in ", " in "), (" in ", " not in "), ("range(1, ", "range(0, "),
    ("True", "False"), ("False", "True"), (".append(", ".remove("), (".upper()", ".lower()"),
    (".lower()", ".upper()"), ("[0]", "[-1]"), ("[1:]", "[:1]"), ("[1]", "[0]"), (" = 0", " = 1"), (" = 1", " = 0"),
    ("+ 1)", "- 1)"), ("0, 1", "1, 1"), ("return not ", "return "), ("return 1", "return 0"),
    ("return 0", "return 1"), ("return -1", "return 0"),
)  # fmt: skip
ATTEMPTS = 400
STEPS = 20_000  # lines that a program may take before it counts as one without end


class TooLong(Exception):
    """A program took too many steps."""


def main() -> None:
    """Write the three files."""
    chance = random.Random(SEED)
    families = chance.sample(FAMILIES, len(FAMILIES))
    for split, (count, rows) in SPLITS.items():
        chosen, families = families[:count], families[count:] if count else []
        made = [row for family in chosen for row in rows_of(family, rows, chance)]
        chance.shuffle(made)
        lines = [json.dumps({"id": f"{split}-{number}", **row}) for number, row in enumerate(made)]
        (HERE / f"{split}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        print(f"{split}: {len(made)} rows of {len(chosen)} families")


def rows_of(family: Family, count: int, chance: random.Random) -> list[dict[str, Any]]:
    """Return different rows of a family, blanked and faulty in turn; fewer, if it does not give as many."""
    rows: dict[str, dict[str, Any]] = {}
    for attempt in range(ATTEMPTS):
        row = row_of(family, attempt % 2 == 1, chance)
        if row is not None:
            rows.setdefault(row["text"], {**row, "group": family.name})
        if len(rows) == count:
            break
    return list(rows.values())


def row_of(family: Family, faulty: bool, chance: random.Random) -> dict[str, Any] | None:
    """Return one row, or None if the line that was drawn does not matter or the faulty one works."""
    words = words_of(family, chance)
    lines = Template(family.source).substitute(words).splitlines()
    program, tests = "\n".join(lines), tests_of(family, words, lines)
    number = chance.choice([n for n, line in enumerate(lines) if n >= 2 and line.strip()])
    line, indent = lines[number].strip(), lines[number][: len(lines[number]) - len(lines[number].lstrip())]
    wrong = chance.choice(list(faults(line)) or [""]) if faulty else ""
    if not runs(f"{program}\n\n\n{tests}") or (faulty and not wrong):
        return None
    for other in {"pass", wrong} - {""}:
        if runs("\n".join([*lines[:number], indent + other, *lines[number + 1 :]]) + f"\n\n\n{tests}"):
            return None
    above = [*lines[:number], *([f"{indent}# faulty: {wrong}"] if faulty else [])]
    before = "\n".join([*above, indent])
    text = before + "\n".join([line, *lines[number + 1 :]]) + f"\n\n\n{tests}\n"
    return {"text": text, "gap": [len(before), len(before) + len(line)]}


def words_of(family: Family, chance: random.Random) -> dict[str, str]:
    """Draw the names and constants of a row; names differ from each other."""
    while True:
        words = {"f": chance.choice(family.names.split())}
        for places, pool in POOLS.items():
            words |= dict(zip(places.split(), chance.choice(pool).split(), strict=True))
        used = [words[place] for place in set(re.findall(r"\$(\w+)", family.source)) if place not in ("k", "j")]
        if len(set(used)) == len(used):
            return words


def tests_of(family: Family, words: dict[str, str], lines: list[str]) -> str:
    """Return the assertions: what the function gives for each call."""
    scope: dict[str, Any] = {}
    exec("\n".join(lines), scope)
    calls = [f"{words['f']}({Template(call).substitute(words)})" for call in family.calls]
    return "\n".join(f"assert {call} == {eval(call, scope)!r}" for call in dict.fromkeys(calls))  # noqa: S307  # our own


def faults(line: str) -> Iterator[str]:
    """Yield versions of a line with one thing wrong."""
    for right, wrong in SWAPS:
        if right in line:
            yield line.replace(right, wrong, 1)


def runs(program: str) -> bool:
    """Tell whether a program of ours reaches its end within a bounded number of steps."""
    steps = 0

    def count(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal steps
        steps += event == "line"
        if steps > STEPS:
            raise TooLong
        return count

    sys.settrace(count)
    try:
        exec(program, {})
    except Exception:
        return False
    finally:
        sys.settrace(None)
    return True


if __name__ == "__main__":
    main()
