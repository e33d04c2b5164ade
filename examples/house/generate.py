"""Make the data of this example: requests to the assistant of an invented house, which answers by calling tools.

Writes train.jsonl, dev.jsonl and test.jsonl beside itself, byte for byte the same each time. One in four wordings of
each wish is kept for the test items. Reads nothing.

    python examples/house/generate.py
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SEED = 7
SIZES = {"train": 360, "dev": 40, "test": 100}
FOLDER = Path(__file__).parent

ROOMS = ("kitchen", "study", "hall", "attic", "bathroom", "nursery", "living room", "cellar")
DOORS = ("front", "back", "garage", "garden")
LABELS = ("eggs", "tea", "laundry", "bread", "pasta", "homework")

WISHES = {
    "light": (
        "set the lights in the {room} to {level} percent", "{room} lights at {level} percent please",
        "can you dim the {room} to {level} percent", "I want the light in the {room} at {level} percent",
        "bring the {room} light to {level} percent", "make it {level} percent light in the {room}",
        "the {room} needs {level} percent light", "put the lamps in the {room} on {level} percent",
    ),
    "dark": (
        "turn off the lights in the {room}", "lights out in the {room}", "no light in the {room} please",
        "switch the {room} lights off", "make the {room} dark", "kill the lights in the {room}",
        "the {room} light can go off", "it should be dark in the {room}",
    ),
    "heating": (
        "heat the {room} to {celsius} degrees", "{celsius} degrees in the {room} please",
        "set the {room} to {celsius} degrees", "I would like {celsius} degrees in the {room}",
        "can the {room} have {celsius} degrees", "warm up the {room} to {celsius} degrees",
        "make the {room} {celsius} degrees warm", "the {room} should be at {celsius} degrees",
    ),
    "timer": (
        "set a timer of {minutes} minutes for the {label}", "{minutes} minutes for the {label} please",
        "remind me of the {label} in {minutes} minutes", "timer for the {label}, {minutes} minutes",
        "I need {minutes} minutes for the {label}", "tell me when {minutes} minutes for the {label} are over",
        "start {minutes} minutes for the {label}", "count {minutes} minutes for the {label}",
    ),
    "lock": (
        "lock the {door} door", "please lock the {door} door", "is the {door} door open? lock it",
        "I forgot to lock the {door} door", "the {door} door should be locked", "bolt the {door} door",
        "make sure that the {door} door is locked", "nobody should get in by the {door} door",
    ),
}  # fmt: skip
VAGUE = {
    "light": ("set the lights to {level} percent", "dim it to {level} percent", "{level} percent light please"),
    "heating": ("set it to {celsius} degrees", "make it {celsius} degrees", "{celsius} degrees please"),
    "lock": ("lock the door", "please lock up", "the door should be locked"),
}
WHICH = {"light": "Which room?", "heating": "Which room?", "lock": "Which door?"}
SAME = ("and the {room} too", "the same in the {room}", "do that in the {room} as well", "now the {room} like that")
WRONG = ("no, I meant the {room}", "not there, the {room}", "wrong room, I said the {room}", "I said {room}")
THANKS = ("thanks", "thank you, that is all", "great, thanks a lot", "very good")
DONE = {"light": "The light in the {room} is at {level} percent.", "heating": "The {room} will have {celsius} degrees."}


def function(name: str, description: str, **parameters: str) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    return {"name": name, "description": description, "parameters": {"type": "object", "properties": properties}}


TOOLS = [
    function("set_light", "Brightness of a room in percent; 0 is off.", room="string", percent="integer"),
    function("set_heating", "Temperature of a room.", room="string", celsius="integer"),
    function("start_timer", "Rings after some minutes.", minutes="integer", label="string"),
    function("lock_door", "Locks a door of the house.", door="string"),
]


def main() -> None:
    """Write the three files."""
    rng = random.Random(SEED)
    seen: set[str] = set()
    for split, size in SIZES.items():
        rows = []
        while len(rows) < size:
            messages = conversation(rng, split == "test")
            key = json.dumps(messages)
            if key not in seen:
                seen.add(key)
                rows.append({"id": f"{split}-{len(rows) + 1}", "messages": messages, "tools": TOOLS})
        text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
        (FOLDER / f"{split}.jsonl").write_text(text, encoding="utf-8")


def conversation(rng: random.Random, is_test: bool) -> list[dict[str, Any]]:
    """Return one conversation, which ends with an answer of the assistant."""
    kinds = {one_wish: 6, two_wishes: 3, same_again: 4, asked_back: 4, corrected: 2, thanked: 1}
    make = rng.choices(list(kinds), list(kinds.values()))[0]
    return list(make(rng, is_test))


def one_wish(rng: random.Random, is_test: bool) -> Iterator[dict[str, Any]]:
    said, call = wish(rng, is_test)
    yield user(said)
    yield calling(call)


def two_wishes(rng: random.Random, is_test: bool) -> Iterator[dict[str, Any]]:
    (first, call), (second, other) = wish(rng, is_test), wish(rng, is_test)
    yield user(f"{first} and {second}")
    yield calling(call, other)


def same_again(rng: random.Random, is_test: bool) -> Iterator[dict[str, Any]]:
    kind = rng.choice(("light", "heating"))
    values = draw(rng)
    yield user(worded(rng, WISHES[kind], is_test, values))
    yield from done(kind, values)
    values = values | {"room": rng.choice([room for room in ROOMS if room != values["room"]])}
    yield user(worded(rng, SAME, is_test, values))
    yield calling(call_of(kind, values))


def asked_back(rng: random.Random, is_test: bool) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    kind = rng.choice(list(VAGUE))
    values = draw(rng)
    yield user(worded(rng, VAGUE[kind], False, values))
    yield {"role": "assistant", "content": WHICH[kind]}
    if rng.random() < 0.75:
        yield user(rng.choice(("the {0}", "{0}", "{0} please")).format(values["door" if kind == "lock" else "room"]))
        yield calling(call_of(kind, values))


def corrected(rng: random.Random, is_test: bool) -> Iterator[dict[str, Any]]:
    """The assistant takes the wrong room: such an answer is shown, and not trained."""
    kind = rng.choice(("light", "heating"))
    right = draw(rng)
    wrong = right | {"room": rng.choice([room for room in ROOMS if room != right["room"]])}
    yield user(worded(rng, WISHES[kind], is_test, right))
    call, result, say = done(kind, wrong)
    yield from (call | {"train": False}, result, say | {"train": False})
    yield user(worded(rng, WRONG, is_test, right))
    yield calling(call_of(kind, right))


def thanked(rng: random.Random, is_test: bool) -> Iterator[dict[str, Any]]:
    kind = rng.choice(("light", "heating"))
    values = draw(rng)
    yield user(worded(rng, WISHES[kind], is_test, values))
    yield from done(kind, values)
    yield user(worded(rng, THANKS, is_test, values))
    yield {"role": "assistant", "content": "You are welcome."}


# -- parts ---------------------------------------------------------------------------------------------------------


def wish(rng: random.Random, is_test: bool) -> tuple[str, dict[str, Any]]:
    kind, values = rng.choice(list(WISHES)), draw(rng)
    return worded(rng, WISHES[kind], is_test, values), call_of(kind, values)


def draw(rng: random.Random) -> dict[str, Any]:
    return {
        "room": rng.choice(ROOMS), "door": rng.choice(DOORS), "label": rng.choice(LABELS),
        "level": rng.randrange(10, 100, 5), "celsius": rng.randrange(16, 26), "minutes": rng.randrange(2, 60),
    }  # fmt: skip


def worded(rng: random.Random, wordings: Sequence[str], is_test: bool, values: dict[str, Any]) -> str:
    """Return a wording with its values; the last quarter of them is for the test."""
    kept = len(wordings) - len(wordings) // 4
    return rng.choice(wordings[kept:] if is_test and kept < len(wordings) else wordings[:kept]).format(**values)


def call_of(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    name, arguments = {
        "light": ("set_light", {"room": values["room"], "percent": values["level"]}),
        "dark": ("set_light", {"room": values["room"], "percent": 0}),
        "heating": ("set_heating", {"room": values["room"], "celsius": values["celsius"]}),
        "timer": ("start_timer", {"minutes": values["minutes"], "label": values["label"]}),
        "lock": ("lock_door", {"door": values["door"]}),
    }[kind]
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def done(kind: str, values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return a call, what the tool gave, and what is said of it."""
    call = call_of(kind, values)
    result = {"role": "tool", "name": call["function"]["name"], "content": "ok"}
    return calling(call), result, {"role": "assistant", "content": DONE[kind].format(**values)}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def calling(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


if __name__ == "__main__":
    main()
