"""The tickets example keeps its promises: reproducible, leak-free, consistent with its own rules.

Labels are derived a second time here, from the committed text alone: which known phrases a ticket contains (found by
4-gram containment, because tickets have typing slips), and a table written out by hand.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from types import ModuleType

import pytest
from jsonschema import Draft202012Validator

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "tickets"
SPLITS = {"train": 480, "dev": 80, "test": 200}
GENERATED = ["train.jsonl", "dev.jsonl", "test.jsonl", "schema.json", "instruction.txt"]

Row = dict[str, str]

# --- the rules, written out a second time -----------------------------------------------------------------------------

PRIORITY = {  # (somebody got or nearly got hurt, a deadline is named) -> priority
    (True, True): "urgent",
    (True, False): "urgent",
    (False, True): "high",
    (False, False): "normal",
}
ACTIONS = {  # (what is asked for, hurt) -> actions
    ("repair", False): ["repair"],
    ("repair", True): ["stop", "repair"],
    ("replace", False): ["replace"],
    ("replace", True): ["stop", "replace"],
    ("refund", False): ["refund"],
    ("refund", True): ["stop", "refund"],
    ("trace", False): ["trace"],
    ("explain", False): ["explain"],
}
# What a phrase must and must not be about, so that a phrase filed in the wrong list is noticed.
ABOUT = {
    "REPAIR": r"repair|mend|fix",
    "REPLACE": r"new one|replace|exchange|another one",
    "RESEND": r"send|post|sent",
    "REFUND": r"money|refund|reimburse",
    "TRACE": r"find|trace|where",
    "EXPLAIN_BILL": r"explain|tell me why",
    "DEADLINE": r"\b(before|by|deadline|in time for)\b",
    "NO_HURRY": r"\b(no|not)\b.*\b(hurry|rush)\b",
    "DANGER_RIDING": r"\b(hurt|nearly)\b",
    "DANGER_HANDLING": r"\b(hurt|nearly)\b",
}
# Words that give a priority away, and therefore occur in no other phrase of a ticket.
PRIORITY_CUES = {
    "DEADLINE": r"\b(before|by|deadline|in time|until|need (this|it)|done|settled)\b",
    "NO_HURRY": r"\b(hurry|rush|take your time)\b",
    "DANGER": r"\b(hurt|nearly|almost|injur\w+|crash\w*|fell|fall|hospital|doctor|stitches)\b",
}
WISH_LISTS = ["REPAIR", "REPLACE", "RESEND", "REFUND", "TRACE", "EXPLAIN_BILL"]


@pytest.fixture(scope="module")
def module() -> Iterator[dict[str, ModuleType]]:
    """The example's word lists, imported from their folder as the generator does."""
    sys.path.insert(0, str(FOLDER))
    names = ["phrases", "symptoms", "smalltalk", "catalogue"]
    yield {name: importlib.import_module(name) for name in names}
    sys.path.remove(str(FOLDER))
    for name in names:
        del sys.modules[name]


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Row]]:
    return {split: _read(FOLDER / f"{split}.jsonl") for split in SPLITS}


@pytest.fixture(scope="module")
def everything(rows: dict[str, list[Row]]) -> list[Row]:
    return [row for split in SPLITS for row in rows[split]]


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """Heading -> body of every second-level section of the handbook."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((FOLDER / "handbook").glob("*.md"))]
    pieces = [piece.partition("\n") for text in texts for piece in re.split(r"^## ", text, flags=re.M)[1:]]
    assert len({heading for heading, _, _ in pieces}) == len(pieces), "two sections share a heading"
    return {heading: body for heading, _, body in pieces}


# --- the files --------------------------------------------------------------------------------------------------------


def test_generating_again_gives_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, FOLDER / "generate.py", "--out", tmp_path], check=True, timeout=60)
    made = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    handbook = [f"handbook/{path.name}" for path in (FOLDER / "handbook").iterdir()]
    assert sorted(made) == sorted(GENERATED + handbook)
    differing = [name for name, content in made.items() if (FOLDER / name).read_bytes() != content]
    assert differing == []


def test_the_instruction_is_printed_and_names_every_key_and_word() -> None:
    text = (FOLDER / "instruction.txt").read_text(encoding="utf-8")
    command = [sys.executable, FOLDER / "generate.py", "--instruction"]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout == text
    properties = json.loads((FOLDER / "schema.json").read_text())["properties"]
    words = [*properties, *properties["category"]["enum"], *properties["priority"]["enum"]]
    words += properties["actions"]["items"]["enum"]
    assert [word for word in words if not re.search(rf"\b{word}\b", text)] == []


def test_the_readme_shows_a_row_of_train(rows: dict[str, list[Row]]) -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    quoted = " ".join(line.removeprefix("> ") for line in readme.split("\n") if line.startswith("> "))
    shown = re.search(r"```json\n(.+)\n```", readme)
    assert shown and (quoted, shown[1]) in {(row["prompt"], row["completion"]) for row in rows["train"]}


def test_counts_keys_and_ids(rows: dict[str, list[Row]], everything: list[Row]) -> None:
    assert {split: len(rows[split]) for split in SPLITS} == SPLITS
    assert all(list(row) == ["id", "prompt", "completion", "group"] for row in everything)
    assert len({row["id"] for row in everything}) == len(everything)


def test_every_completion_is_compact_canonical_and_valid(everything: list[Row]) -> None:
    schema = json.loads((FOLDER / "schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert schema["required"] == list(schema["properties"])
    validator = Draft202012Validator(schema)
    order = schema["properties"]["actions"]["items"]["enum"]
    for row in everything:
        answer = json.loads(row["completion"])
        assert validator.is_valid(answer), row
        assert list(answer) == schema["required"], row
        assert row["completion"] == json.dumps(answer, separators=(",", ":")), row
        assert answer["actions"] == sorted(answer["actions"], key=order.index), row


# --- no leaks ---------------------------------------------------------------------------------------------------------


def test_products_and_their_series_never_cross_a_split(rows: dict[str, list[Row]]) -> None:
    products = {split: {row["group"] for row in rows[split]} for split in SPLITS}
    assert [len(products[split]) for split in SPLITS] == [99, 21, 60]
    series = {split: {product.split()[0] for product in products[split]} for split in SPLITS}
    for a, b in combinations(SPLITS, 2):
        assert series[a].isdisjoint(series[b])
        foreign = [row for row in rows[a] for name in products[b] if name.lower() in row["prompt"].lower()]
        assert foreign == [], f"a {a} ticket names a product of {b}"


def test_facts_stand_in_the_products_section_and_nowhere_else(everything: list[Row], sections: dict[str, str]) -> None:
    handbook = "\n".join(sections.values())
    for row in everything:
        answer = json.loads(row["completion"])
        assert answer["product"] == row["group"]
        section = sections[row["group"]]
        code, days = answer["part_code"], answer["warranty_days"]
        assert code in section and re.search(rf"\b{days} days|Warranty: {days}\b", section), row
        assert handbook.count(code) == 1 and handbook.count(str(days)) == 1, "the value stands elsewhere, too"


def test_no_ticket_holds_a_code_or_a_long_number(everything: list[Row]) -> None:
    assert [row["id"] for row in everything if re.search(r"\b[a-z]{2}-\d|\d{3}", row["prompt"], re.I)] == []


def test_no_two_tickets_are_alike(rows: dict[str, list[Row]], everything: list[Row]) -> None:
    assert len({row["prompt"].casefold() for row in everything}) == len(everything)
    grams = {row["id"]: _grams(row["prompt"].lower(), 5) for row in everything}
    near = [(a, b) for a, b in combinations(grams, 2) if _jaccard(grams[a], grams[b]) >= 0.6]
    assert near == []


def test_some_phrases_are_heard_in_test_tickets_only(rows: dict[str, list[Row]], module: dict[str, ModuleType]) -> None:
    kept = {split: [_chunks(phrase) for phrase in _held_out(module, place)] for split, place in HELD_OUT.items()}
    text = {split: [_letters(row["prompt"]) for row in rows[split]] for split in SPLITS}
    for split, phrases in kept.items():
        for other in set(SPLITS) - {split}:
            said = [phrase for phrase in phrases for ticket in text[other] if all(chunk in ticket for chunk in phrase)]
            assert said == [], f"kept for {split}, but said in {other}"
        new = [any(all(chunk in ticket for chunk in phrase) for phrase in phrases) for ticket in text[split]]
        assert sum(new) > 0.6 * len(new)


# --- the rules --------------------------------------------------------------------------------------------------------


def test_labels_follow_from_the_text(everything: list[Row], module: dict[str, ModuleType]) -> None:
    reader = _Reader(module)
    for row in everything:
        answer = json.loads(row["completion"])
        ticket = _letters(row["prompt"])
        category, hurt = reader.category(ticket), reader.says(ticket, "hurt")
        wish = "explain" if category == "question" else reader.wish(ticket)
        assert answer["category"] == category, row
        assert answer["priority"] == PRIORITY[hurt, reader.says(ticket, "deadline")], row
        assert reader.says(ticket, "no hurry") == (answer["priority"] == "normal"), row
        assert answer["actions"] == ACTIONS[wish, hurt], row


@pytest.mark.parametrize("name", list(ABOUT))
def test_every_phrase_is_in_the_right_list(name: str, module: dict[str, ModuleType]) -> None:
    lines = getattr(module["phrases"], name)
    assert [line for line in lines if not re.search(ABOUT[name], line, re.I)] == []
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize("cue", list(PRIORITY_CUES))
def test_nothing_else_sounds_like_danger_a_deadline_or_no_hurry(cue: str, module: dict[str, ModuleType]) -> None:
    lists = {name: value for name, value in vars(module["phrases"]).items() if isinstance(value, list)}
    lists |= {name: value for name, value in vars(module["smalltalk"]).items() if isinstance(value, list)}
    lists |= module["symptoms"].SYMPTOMS
    lines = [line for name, value in lists.items() if not name.startswith(cue) for line in value]
    assert [line for line in lines if re.search(PRIORITY_CUES[cue], line, re.I)] == []


@pytest.mark.parametrize("name", WISH_LISTS)
def test_a_wish_names_one_action_and_never_says_no(name: str, module: dict[str, ModuleType]) -> None:
    kin = {"REPLACE", "RESEND"}
    foreign = [ABOUT[other] for other in WISH_LISTS if other != name and not {other, name} <= kin and other != "RESEND"]
    traps = "|".join([*foreign, r"\b(no|not|never|rather|instead)\b"])
    assert [line for line in getattr(module["phrases"], name) if re.search(traps, line, re.I)] == []


def test_every_label_is_common_enough_to_learn(rows: dict[str, list[Row]]) -> None:
    answers = {split: [json.loads(row["completion"]) for row in rows[split]] for split in SPLITS}
    for key in ("category", "priority"):
        for split, share in (("train", 0.08), ("test", 0.05)):
            counts = Counter(answer[key] for answer in answers[split])
            assert min(counts.values()) > share * len(answers[split]), (split, counts)
    counts = Counter(tuple(answer["actions"]) for answer in answers["train"])
    assert set(counts) == {tuple(actions) for actions in ACTIONS.values()} and min(counts.values()) >= 8


def test_lengths_stay_in_budget(everything: list[Row], sections: dict[str, str]) -> None:
    words = [len(row["prompt"].split()) for row in everything]
    assert min(words) >= 25 and max(words) <= 70
    assert max(len(row["completion"]) for row in everything) <= 165
    assert max(len(body.split()) for body in sections.values()) <= 65


# --- reading tickets --------------------------------------------------------------------------------------------------

HELD_OUT = {"test": 3, "dev": 4}


class _Reader:
    """Finds known phrases in a ticket although some letters are wrong."""

    def __init__(self, module: dict[str, ModuleType]) -> None:
        phrases, symptoms = module["phrases"], module["symptoms"].SYMPTOMS
        self.categories = {
            "defect": [clause for clauses in symptoms.values() for clause in clauses],
            **{
                name: getattr(phrases, name.upper()) for name in ("damaged", "delivery", "wrong", "billing", "question")
            },
        }
        self.wishes = {
            "repair": phrases.REPAIR,
            "replace": phrases.REPLACE + phrases.RESEND,
            "refund": phrases.REFUND,
            "trace": phrases.TRACE,
            "explain": phrases.EXPLAIN_BILL,
        }
        self.flags = {
            "hurt": phrases.DANGER_RIDING + phrases.DANGER_HANDLING,
            "deadline": phrases.DEADLINE,
            "no hurry": phrases.NO_HURRY,
        }

    def category(self, ticket: str) -> str:
        return max(self.categories, key=lambda name: _best(ticket, self.categories[name]))

    def wish(self, ticket: str) -> str:
        return max(self.wishes, key=lambda name: _best(ticket, self.wishes[name]))

    def says(self, ticket: str, flag: str) -> bool:
        return _best(ticket, self.flags[flag])[0] >= 0.7


def _best(ticket: str, phrases: Iterable[str]) -> tuple[float, int]:
    """The best share of a phrase's 4-grams that the ticket holds; of equal shares the longer phrase counts."""
    here = _grams(ticket, 4)
    return max((len(grams & here) / len(grams), len(grams)) for grams in map(_phrase_grams, phrases))


@cache
def _phrase_grams(phrase: str) -> frozenset[str]:
    return frozenset().union(*(_grams(chunk, 4) for chunk in _chunks(phrase)))


def _chunks(phrase: str) -> list[str]:
    """The fixed letters of a phrase: what stands before, between and after its slots."""
    return [letters for part in re.split(r"\{\w+\}", phrase) if len(letters := _letters(part).strip()) >= 4]


def _held_out(module: dict[str, ModuleType], place: int) -> list[str]:
    lists = [value for value in vars(module["phrases"]).values() if isinstance(value, list)]
    lists += [*module["symptoms"].SYMPTOMS.values(), module["smalltalk"].DETAILS]
    return [line for lines in lists for number, line in enumerate(lines) if number % 5 == place]


def _letters(text: str) -> str:
    """Lower-case letters and single spaces: what is left when typing habits are taken away."""
    return " ".join(re.sub(r"[^a-z ]", " ", text.lower().replace("'", "")).split())


def _grams(text: str, size: int) -> frozenset[str]:
    return frozenset(text[start : start + size] for start in range(len(text) - size + 1))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def _read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
