"""Recognise the shapes in which people keep examples, and make a `Row` of each record.

| shape | fields |
|---|---|
| messages | `messages`: a list of {role, content}, with `tool_calls` where the assistant calls a tool |
| sharegpt | `conversations`: a list of {from, value} (human, gpt, function_call, observation …) or {role, content} |
| alpaca | `instruction`, `output` (or `response`), optional `input` and `system` |
| pair | `prompt`/`completion`, `prompt`/`response`, `input`/`output`, `question`/`answer`, `instruction`/`response` |
| label | `text` and one of `label` (a name), `labels` (a list of names), `value` or `score` (a number) |
| gap | `prefix`, `middle` and `suffix`, or `text` and `gap` ([first, end) in characters) |
| text | `text` alone |

Any record may have a `weight` (what its targets count in the loss) and `tools` (functions that the assistant may
call). The shape is decided for each record, so files of mixed shapes are read. An answer that is an object, a list or a
number becomes its JSON text. Nothing is repaired: a record that is not quite right is told by its own kind of fault.

    >>> row_of({"prompt": "2+2?", "completion": 4}, "t:1").reference
    '4'
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from luthier.ground.errors import BadInput, nearest
from luthier.ground.strict_json import dump_json, parse_json
from luthier.rows.shape_fault import ShapeFault as ShapeFault
from luthier.rows.shape_fault import kind_of
from luthier.rows.tools import refuse_unknown_tools, tools_of
from luthier.rows.turns import conversation
from luthier.rows.types import Message, Row

PAIRS = (("prompt", "completion"), ("prompt", "response"), ("input", "output"), ("question", "answer"))
LABELS = ("label", "labels", "value", "score")
GAPS = ("prefix", "middle", "suffix")
WANTED = (
    "messages, conversations, instruction/output, prompt/completion, input/output, question/answer, text/label, "
    "prefix/middle/suffix, text"
)


@dataclass(frozen=True)
class _Content:
    messages: list[Message] | None = None
    text: str | None = None
    gap: tuple[int, int] | None = None


def row_of(
    record: object, place: str, *, id_field: str = "id", group_field: str = "group", only_text: bool = False
) -> Row:
    """Return the row that a record describes.

    Args:
        only_text: take `text` alone, whatever else stands beside it (a corpus may score or label its documents).

    Raises:
        ShapeFault: the record is not a usable example.
    """
    if not isinstance(record, Mapping):
        raise ShapeFault("bad_shape", f"an object with fields was wanted, {kind_of(record)} was found")
    content = _Content(text=_asked(record, "text")) if only_text and "text" in record else _content(record)
    tools = tools_of(record["tools"] if record.get("tools") is not None else record.get("functions"))
    messages = tuple(content.messages) if content.messages is not None else None
    refuse_unknown_tools(messages or (), tools)
    _refuse_nul(messages or (), content.text or "", tools or "")
    name = _name(record, id_field)
    return Row(
        id=place if name is None else name,
        place=place,
        messages=messages,
        text=content.text,
        group=_name(record, group_field),
        weight=_weight(record),
        tools=tools if messages is not None else None,
        gap=content.gap,
    )


def shape_of(record: object) -> str | None:
    """Return the name of a record's shape (the table above), or None."""
    if not isinstance(record, Mapping):
        return None
    if isinstance(record.get("messages"), list):
        return "messages"
    if isinstance(record.get("conversations"), list):
        return "sharegpt"
    if "instruction" in record and ("output" in record or "response" in record):
        return "alpaca"
    if _pairs_in(record):
        return "pair"
    if all(name in record for name in GAPS):
        return "gap"
    if "text" in record:
        return "gap" if record.get("gap") is not None else "label" if _labels_in(record) else "text"
    return None


def _content(record: Mapping[str, Any]) -> _Content:
    if "messages" in record:
        return _Content(conversation(record["messages"], "messages"))
    if "conversations" in record:
        return _Content(conversation(record["conversations"], "conversations"))
    shape = shape_of(record)
    if shape == "alpaca":
        return _Content(_alpaca(record))
    if shape == "pair":
        return _Content(_pair(record))
    if shape == "gap":
        return _gap(record)
    if shape == "label":
        return _Content([Message("user", _asked(record, "text")), Message("assistant", _label(record))])
    if shape == "text":
        return _Content(text=_asked(record, "text"))
    found = ", ".join(map(str, list(record)[:8])) or "none"
    known = {"messages", "conversations", "instruction", "text", "label", *GAPS, *(n for pair in PAIRS for n in pair)}
    hint = next((near for key in record if (near := nearest(str(key), known))), "")
    raise ShapeFault("unknown_shape", f"the fields ({found}) are none of the known shapes{hint}; wanted: {WANTED}")


# -- records of fields ---------------------------------------------------------------------------------------------


def _alpaca(record: Mapping[str, Any]) -> list[Message]:
    asked = _asked(record, "instruction")
    extra = record.get("input")
    if extra is not None and not isinstance(extra, str):
        raise ShapeFault("bad_content", f"input must be text, not {kind_of(extra)}")
    if extra and extra.strip():
        asked = f"{asked}\n\n{extra}"
    answer = _answer(record, "output" if "output" in record else "response")
    return [*_system(record), Message("user", asked), Message("assistant", answer)]


def _pair(record: Mapping[str, Any]) -> list[Message]:
    pairs = _pairs_in(record)
    if len(pairs) > 1:
        names = " and ".join("/".join(pair) for pair in pairs)
        raise ShapeFault("ambiguous_shape", f"the record has {names}; keep one pair")
    asked, answer = pairs[0]
    if isinstance(record[asked], list) and isinstance(record[answer], list):
        return conversation([*record[asked], *record[answer]], f"{asked} + {answer}")
    return [*_system(record), Message("user", _asked(record, asked)), Message("assistant", _answer(record, answer))]


def _pairs_in(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [pair for pair in PAIRS if pair[0] in record and pair[1] in record]


def _system(record: Mapping[str, Any]) -> list[Message]:
    system = record.get("system")
    return [Message("system", system)] if isinstance(system, str) and system.strip() else []


def _labels_in(record: Mapping[str, Any]) -> list[str]:
    return [name for name in LABELS if name in record]


def _label(record: Mapping[str, Any]) -> str:
    """Return what the record is labelled with: a name, the JSON text of a list of names, or that of a number."""
    names = _labels_in(record)
    if "label" in names and "labels" not in names:  # a score beside a label is how sure somebody was of it
        return _answer(record, "label")
    if len(names) > 1:
        raise ShapeFault("ambiguous_shape", f"the record has {' and '.join(names)}; keep one")
    value = record[names[0]]
    if value is None:
        raise ShapeFault("missing_field", f"{names[0]} is null")
    if names[0] == "labels":
        return _names(value)
    number = _number(value)
    if number is None:
        raise ShapeFault("bad_value", f"{names[0]} must be a number, not {_shown(value)}")
    return dump_json(number)


def _names(value: object) -> str:
    if isinstance(value, str) and value.lstrip().startswith("["):  # CSV knows no lists
        try:
            value = parse_json(value)
        except BadInput as error:
            raise ShapeFault("bad_value", f"labels: {error.what}") from None
    if not isinstance(value, list) or any(isinstance(name, bool) or not isinstance(name, str | int) for name in value):
        raise ShapeFault("bad_value", f"labels must be a list of names, not {_shown(value)}")
    names = [str(name) for name in value]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or not all(name.strip() for name in names):
        fault = "an empty name" if twice is None else f'"{twice[:40]}" twice'
        raise ShapeFault("bad_value", f"labels has {fault}")
    return dump_json(names)


def _gap(record: Mapping[str, Any]) -> _Content:
    if all(name in record for name in GAPS):
        prefix, middle, suffix = (_part(record, name) for name in GAPS)
        if not middle:
            raise ShapeFault("empty_target", "middle is empty, so there is nothing to fill in")
        if not (prefix + suffix).strip():
            raise ShapeFault("empty_content", "prefix and suffix are empty, so nothing stands around the gap")
        return _Content(text=prefix + middle + suffix, gap=(len(prefix), len(prefix) + len(middle)))
    text, gap = _asked(record, "text"), record["gap"]
    if not isinstance(gap, list) or len(gap) != 2 or any(isinstance(at, bool) or not isinstance(at, int) for at in gap):
        raise ShapeFault("bad_gap", f"gap must be two whole numbers, [first, end), not {_shown(gap)}")
    first, end = gap
    if not 0 <= first < end <= len(text):
        raise ShapeFault(
            "bad_gap", f"the gap [{first}, {end}) is empty or does not lie in the {len(text):,} characters"
        )
    if not (text[:first] + text[end:]).strip():
        raise ShapeFault("bad_gap", "the gap takes the whole text, so nothing stands around it")
    return _Content(text=text, gap=(first, end))


def _part(record: Mapping[str, Any], field: str) -> str:
    value = record[field]
    if not isinstance(value, str):
        raise ShapeFault(
            "missing_field" if value is None else "bad_content", f"{field} must be text, not {kind_of(value)}"
        )
    return value


def _asked(record: Mapping[str, Any], field: str) -> str:
    value = record[field]
    if value is None:
        raise ShapeFault("missing_field", f"{field} is null")
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = dump_json(value)
    if not isinstance(value, str):
        raise ShapeFault("bad_content", f"{field} must be text, not {kind_of(value)}")
    if not value.strip():
        raise ShapeFault("empty_content", f"{field} is empty")
    return value


def _answer(record: Mapping[str, Any], field: str) -> str:
    value = record[field]
    if value is None:
        raise ShapeFault("missing_field", f"{field} is null")
    if not isinstance(value, str):
        try:
            value = dump_json(value)
        except BadInput as error:
            raise ShapeFault("bad_content", f"{field}: {error.what}") from None
    if not value.strip():
        raise ShapeFault("empty_target", f"{field} is empty")
    return str(value)


# -- what any record may have --------------------------------------------------------------------------------------


def _weight(record: Mapping[str, Any]) -> float:
    value = record.get("weight")
    number = 1.0 if value is None or value == "" else _number(value)
    if number is None or number < 0:
        raise ShapeFault("bad_weight", f"the row's weight must be a number from 0 on, not {_shown(value)}")
    return float(number)


def _number(value: object) -> int | float | None:
    """Return a finite number, or the one that a text spells (CSV knows no numbers); None if it is neither."""
    if isinstance(value, str):
        try:
            value = parse_json(value.strip())
        except BadInput:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _refuse_nul(messages: tuple[Message, ...], text: str, tools: str) -> None:
    calls = [part for message in messages for call in message.tool_calls for part in (call.name, call.arguments)]
    found = any("\x00" in part for part in [*(message.content for message in messages), text, *calls])
    if found or any("\\u0000" in part for part in [*calls, tools]):
        raise ShapeFault("nul_character", "a NUL character stands in the text; remove it")


def _name(record: Mapping[str, Any], field: str) -> str | None:
    value = record.get(field)
    if isinstance(value, str) and value:
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _shown(value: object) -> str:
    return (
        f'"{value[:40]}"'
        if isinstance(value, str)
        else kind_of(value)
        if not isinstance(value, int | float)
        else str(value)
    )
