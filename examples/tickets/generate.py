"""Makes the tickets task: a handbook full of facts, and support tickets that have to become strict JSON.

The rules that turn a ticket into category, priority and actions are learnable from examples (`priority_of`,
`actions_of`). The facts (part code, warranty days) are drawn at random and stand only in `handbook/`, and the products
of the test tickets occur in no training ticket, so no model can know them by heart.
This file does not train or score anything.

    python examples/tickets/generate.py                 # writes every file again, byte for byte
    python examples/tickets/generate.py --instruction   # prints the instruction
"""

from __future__ import annotations

import argparse
import json
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import phrases
import smalltalk
from catalogue import COLOURS, GENERAL_PAGES, KINDS, LAYOUTS, VARIANTS, Kind
from habits import five_grams, jaccard, type_like_a_person
from symptoms import SYMPTOMS

SEED = 20261124
ROWS = {"train": 480, "dev": 80, "test": 200}
HELD_OUT = {"test": 3, "dev": 4}  # of every five phrases, the one that only this split uses
SERIES = {"train": 33, "dev": 7, "test": 20}  # three products each; a series never crosses a split

CATEGORIES = ["defect", "damaged", "delivery", "wrong", "billing", "question"]
PRIORITIES = ["urgent", "high", "normal"]
ACTIONS = ["stop", "repair", "replace", "refund", "trace", "explain"]  # also their order in the answer

INSTRUCTION = """\
Turn the support ticket into one line of JSON with exactly these keys:
category: defect, damaged (on arrival), delivery, wrong (item), billing or question;
priority: urgent if someone got or nearly got hurt, else high if there is a deadline, else normal (no hurry);
actions: list of stop (only if urgent), then what is asked for: repair, replace, refund, trace or explain;
product: its name as in the handbook;
part_code and warranty_days (a number): from the handbook.
"""

WISHES = {
    "defect": {"repair": 5, "replace": 2, "refund": 2},
    "damaged": {"replace": 3, "refund": 2},
    "delivery": {"trace": 3, "replace": 1, "refund": 1},
    "wrong": {"replace": 3, "refund": 2},
    "billing": {"refund": 1, "explain": 1},
    "question": {"explain": 1},
}
CATEGORY_WEIGHTS = [34, 18, 13, 12, 11, 12]
WORDS = (25, 70)
NEAREST = 0.6  # no two tickets share this much of their character 5-grams (Jaccard)

# The parts of a ticket, in the orders in which people write them.
ORDERS = [
    "greeting mention problem danger detail urgency wish closing",
    "greeting detail mention problem danger wish urgency closing",
    "greeting urgency mention problem danger detail wish closing",
    "mention problem danger urgency detail wish",
    "greeting mention detail problem danger wish urgency closing",
    "detail mention problem danger urgency wish closing",
    "mention problem danger wish detail urgency closing",
]
MENTIONS = {
    "defect": phrases.OWNED,
    "damaged": phrases.ARRIVED,
    "wrong": phrases.ARRIVED,
    "delivery": phrases.ORDERED,
    "billing": phrases.ORDERED,
    "question": phrases.ASKING,
}
PROBLEMS = {
    "damaged": phrases.DAMAGED,
    "wrong": phrases.WRONG,
    "delivery": phrases.DELIVERY,
    "billing": phrases.BILLING,
    "question": phrases.QUESTION,
}
WISH_PHRASES = {
    "repair": phrases.REPAIR,
    "replace": phrases.REPLACE,
    "refund": phrases.REFUND,
    "trace": phrases.TRACE,
    "explain": phrases.EXPLAIN_BILL,
}


@dataclass(frozen=True)
class Product:
    """One product of the handbook, with its two facts."""

    name: str
    kind: Kind
    kind_name: str
    split: str
    part_code: str
    warranty_days: int


@dataclass(frozen=True)
class Situation:
    """What a ticket says, before it is put into words."""

    category: str
    danger: bool
    deadline: bool  # named by the customer, whatever the danger
    wish: str


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the data of the tickets task.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    parser.add_argument("--instruction", action="store_true", help="print the instruction and stop")
    options = parser.parse_args()
    if options.instruction:
        print(INSTRUCTION, end="")
    else:
        write_all(options.out)


def write_all(folder: Path) -> None:
    """Writes the handbook, the three splits, the schema and the instruction into `folder`."""
    rng = random.Random(SEED)
    products = draw_products(rng)
    files = handbook_pages(products, rng)
    files["instruction.txt"] = INSTRUCTION
    files["schema.json"] = json.dumps(schema(), indent=2) + "\n"
    for split, rows in draw_rows(products, rng).items():
        files[f"{split}.jsonl"] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


# --- the rules --------------------------------------------------------------------------------------------------------


def priority_of(said: Situation) -> str:
    """Danger to a person beats everything the customer says about time."""
    if said.danger:
        return "urgent"
    return "high" if said.deadline else "normal"


def actions_of(said: Situation) -> list[str]:
    """First stop (if urgent), then the wish: one or two."""
    return ["stop", said.wish] if said.danger else [said.wish]


def answer(said: Situation, product: Product) -> str:
    """The completion: one line of compact JSON in the order of the schema."""
    fields = {
        "category": said.category,
        "priority": priority_of(said),
        "actions": actions_of(said),
        "product": product.name,
        "part_code": product.part_code,
        "warranty_days": product.warranty_days,
    }
    return json.dumps(fields, separators=(",", ":"))


def schema() -> dict[str, object]:
    """The JSON Schema of an answer."""
    properties = {
        "category": {"enum": CATEGORIES},
        "priority": {"enum": PRIORITIES},
        "actions": {
            "type": "array",
            "items": {"enum": ACTIONS},
            "minItems": 1,
            "maxItems": 2,
            "uniqueItems": True,
        },
        "product": {"type": "string", "minLength": 1},
        "part_code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
        "warranty_days": {"type": "integer", "minimum": 1},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Support ticket of Tarnwell Cycles",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


# --- products and the handbook ----------------------------------------------------------------------------------------


def draw_products(rng: random.Random) -> list[Product]:
    """Draws the variants, facts and split of every series; no two products share a code or a number."""
    split_of = split_series(rng)
    names = [(f"{series} {variant}", kind_name, split_of[series])
             for kind_name, kind in KINDS.items()
             for series in kind.series
             for variant in rng.sample(VARIANTS, 3)]  # fmt: skip
    # Numbers that a model might guess as a warranty are left out. Codes and warranties never share a number.
    numbers = rng.sample([number for number in range(121, 1000) if number not in {180, 365, 730}], 2 * len(names))
    letters = [letter for letter in string.ascii_uppercase if letter not in "IO"]
    return [
        Product(name, KINDS[kind], kind, split, f"{rng.choice(letters)}{rng.choice(letters)}-{code}", days)
        for (name, kind, split), code, days in zip(names, numbers[::2], numbers[1::2], strict=True)
    ]


def split_series(rng: random.Random) -> dict[str, str]:
    """Each kind of product has two series in train; the other series are dealt at random."""
    split_of = {series: "train" for kind in KINDS.values() for series in kind.series[:2]}
    rest = [series for kind in KINDS.values() for series in kind.series[2:]]
    rng.shuffle(rest)
    deal = ["train"] * (SERIES["train"] - len(split_of)) + ["dev"] * SERIES["dev"] + ["test"] * SERIES["test"]
    return split_of | dict(zip(rest, deal, strict=True))


def handbook_pages(products: Sequence[Product], rng: random.Random) -> dict[str, str]:
    """File name -> Markdown: the general pages, and a page for each kind with one short section per product."""
    pages = {f"handbook/{name}": text for name, text in GENERAL_PAGES.items()}
    for kind_name, kind in KINDS.items():
        sections = [f"## {p.name}\n\n{section_text(p, rng)}\n" for p in products if p.kind_name == kind_name]
        pages[f"handbook/{kind.file}"] = f"# {kind.title}\n\n" + "\n".join(sections)
    return pages


def section_text(product: Product, rng: random.Random) -> str:
    return rng.choice(LAYOUTS).format(
        product=product.name,
        noun=product.kind.nouns[0],
        colour=rng.choice(COLOURS),
        code=product.part_code,
        days=product.warranty_days,
        blurb=rng.choice(product.kind.blurbs),
    )


# --- tickets ----------------------------------------------------------------------------------------------------------


def draw_rows(products: Sequence[Product], rng: random.Random) -> dict[str, list[dict[str, str]]]:
    """Draws the rows of each split; a ticket too near to any earlier one, in any split, is drawn again."""
    seen: list[frozenset[str]] = []
    rows: dict[str, list[dict[str, str]]] = {}
    for split, count in ROWS.items():
        ours = [product for product in products if product.split == split]
        rows[split] = []
        for product in deal(ours, count, rng):
            said, text, grams = draw_fresh_ticket(product, ours, seen, rng)
            seen.append(grams)
            number = len(rows[split]) + 1
            rows[split].append(
                {
                    "id": f"{split}-{number:03}",
                    "prompt": text,
                    "completion": answer(said, product),
                    "group": product.name,
                }
            )
    return rows


def deal(products: Sequence[Product], count: int, rng: random.Random) -> Iterator[Product]:
    """Deals `count` products round after round, so that each has almost the same number of tickets."""
    for start in range(0, count, len(products)):
        yield from rng.sample(products, min(len(products), count - start))


def draw_fresh_ticket(
    product: Product, ours: Sequence[Product], seen: Sequence[frozenset[str]], rng: random.Random
) -> tuple[Situation, str, frozenset[str]]:
    while True:
        said = draw_situation(product, rng)
        text = write_ticket(said, product, ours, rng)
        grams = five_grams(text)
        if WORDS[0] <= len(text.split()) <= WORDS[1] and all(jaccard(grams, other) < NEAREST for other in seen):
            return said, text, grams


def draw_situation(product: Product, rng: random.Random) -> Situation:
    category = rng.choices(CATEGORIES, CATEGORY_WEIGHTS)[0]
    wishes = WISHES[category]
    wish = rng.choices(list(wishes), list(wishes.values()))[0]
    risk = {"defect": 0.55 if product.kind.risky else 0.0, "damaged": 0.4}.get(category, 0.0)
    danger = rng.random() < risk
    # After a fall few people talk about time; those who do must not fool the rule.
    deadline = rng.random() < (0.08 if danger else 0.4)
    return Situation(category, danger, deadline, wish)


def write_ticket(said: Situation, product: Product, ours: Sequence[Product], rng: random.Random) -> str:
    """Puts a situation into words: parts in some order, then the writer's own habits of typing."""
    parts = draw_parts(said, product, ours, rng)
    text = " ".join(parts[name] for name in rng.choice(ORDERS).split() if parts[name])
    return type_like_a_person(text, product.name, rng)


def draw_parts(said: Situation, product: Product, ours: Sequence[Product], rng: random.Random) -> dict[str, str]:
    def pick(lines: Sequence[str]) -> str:
        return pick_phrase(lines, product.split, rng)

    if said.category == "defect":
        problem = pick(phrases.SYMPTOM_FRAMES).replace("{symptom}", pick(SYMPTOMS[product.kind_name]))
        danger = pick(phrases.DANGER_RIDING)
    else:
        problem = pick(PROBLEMS[said.category])
        danger = pick(phrases.DANGER_HANDLING)
    detail = pick(smalltalk.DETAILS)
    if rng.random() < 0.04:
        other = rng.choice([one for one in ours if one.kind_name != product.kind_name])
        detail = smalltalk.OTHER_PRODUCT.format(other=other.name)
    urgency = pick(phrases.DEADLINE) if said.deadline else "" if said.danger else pick(phrases.NO_HURRY)
    parts = {
        "greeting": rng.choice(smalltalk.GREETINGS),
        "mention": pick(MENTIONS[said.category]),
        "problem": problem,
        "danger": danger if said.danger else "",
        "detail": detail,
        "urgency": urgency,
        "wish": pick(wish_phrases(said)),
        "closing": rng.choice(smalltalk.CLOSINGS),
    }
    return {name: fill(text, product, rng) for name, text in parts.items()}


def wish_phrases(said: Situation) -> Sequence[str]:
    """The lines that ask for the wish; a question asks by itself, and a parcel that never came cannot be exchanged."""
    if said.category == "question":
        return [""]
    return phrases.RESEND if (said.category, said.wish) == ("delivery", "replace") else WISH_PHRASES[said.wish]


def pick_phrase(lines: Sequence[str], split: str, rng: random.Random) -> str:
    """Train draws from three phrases in five; test and dev also, one time in four, from their own fifth."""
    own = [line for place, line in enumerate(lines) if place % 5 == HELD_OUT.get(split)]
    shared = [line for place, line in enumerate(lines) if place % 5 not in HELD_OUT.values()]
    return rng.choice(own if own and rng.random() < 0.25 else shared)


def fill(text: str, product: Product, rng: random.Random) -> str:
    """Fills the small slots; `{product}` stays, because its spelling is settled last."""
    past, recent, lately = (rng.choice(words) for words in (smalltalk.PAST, smalltalk.RECENT, smalltalk.LATELY))
    slots = {
        "noun": rng.choice(product.kind.nouns),
        "past": past,
        "Past": past[0].upper() + past[1:],
        "recent": recent,
        "Recent": recent[0].upper() + recent[1:],
        "month": rng.choice(smalltalk.MONTHS),
        "lately": lately,
        "Lately": lately[0].upper() + lately[1:],
        "use": rng.choice(smalltalk.USES),
        "name": rng.choice(smalltalk.NAMES),
        "town": rng.choice(smalltalk.TOWNS),
        "product": "{product}",
    }
    return text.format_map(slots)


if __name__ == "__main__":
    main()
