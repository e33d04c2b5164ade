"""Recognise the shapes in which people keep examples, and make a `Row` of each record.

| shape | fields |
|---|---|
| messages | `messages`: a list of {role, content} |
| sharegpt | `conversations`: a list of {from, value} (human, gpt, system), or of {role, content} |
| alpaca | `instruction`, `output` (or `response`), optional `input` and `system` |
| pair | `prompt`/`completion`, `prompt`/`response`, `input`/`output`, `question`/`answer`, `instruction`/`response` |
| label | `text`, `label` |
| text | `text` alone |

The shape is decided for each record, so files of mixed shapes are read. An answer that is an object, a list or a number
becomes its JSON text. Nothing is repaired: a record that is not quite right is told by its own kind of fault.

    >>> row_of({"prompt": "2+2?", "completion": 4}, "t:1").reference
    '4'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.ground.errors import BadInput, nearest
from luthier.ground.strict_json import dump_json
from luthier.rows.types import Message, Row

PAIRS = (("prompt", "completion"), ("prompt", "response"), ("input", "output"), ("question", "answer"))
ROLES = ("system", "user", "assistant", "tool")
SHARE_ROLES = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "tool": "tool", "function_response": "tool",
    "observation": "tool",
}  # fmt: skip
WANTED = (
    "messages, conversations, instruction/output, prompt/completion, input/output, question/answer, text/label, text"
)


class ShapeFault(Exception):
    """What is wrong with one record; `kind` counts it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def row_of(record: object, place: str, *, id_field: str = "id", group_field: str = "group") -> Row:
    """Return the row that a record describes.

    Raises:
        ShapeFault: the record is not a usable example.
    """
    if not isinstance(record, Mapping):
        raise ShapeFault("bad_shape", f"an object with fields was wanted, {_kind(record)} was found")
    messages, text = _content(record)
    for content in [message.content for message in messages or ()] + ([text] if text is not None else []):
        if "\x00" in content:
            raise ShapeFault("nul_character", "a NUL character stands in the text; remove it")
    name = _name(record, id_field)
    return Row(
        id=place if name is None else name,
        place=place,
        messages=None if messages is None else tuple(messages),
        text=text,
        group=_name(record, group_field),
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
    if "text" in record:
        return "label" if "label" in record else "text"
    return None


def _content(record: Mapping[str, Any]) -> tuple[list[Message] | None, str | None]:
    if "messages" in record:
        return _conversation(record["messages"], "messages", ("role", "content")), None
    if "conversations" in record:
        return _share(record["conversations"]), None
    shape = shape_of(record)
    if shape == "alpaca":
        return _alpaca(record), None
    if shape == "pair":
        return _pair(record), None
    if shape == "label":
        return [Message("user", _asked(record, "text")), Message("assistant", _answer(record, "label"))], None
    if shape == "text":
        return None, _asked(record, "text")
    found = ", ".join(map(str, list(record)[:8])) or "none"
    known = {"messages", "conversations", "instruction", "text", "label", *(name for pair in PAIRS for name in pair)}
    hint = next((near for key in record if (near := nearest(str(key), known))), "")
    raise ShapeFault("unknown_shape", f"the fields ({found}) are none of the known shapes{hint}; wanted: {WANTED}")


# -- conversations -------------------------------------------------------------------------------------------------


def _share(turns: object) -> list[Message]:
    if isinstance(turns, list) and turns and isinstance(turns[0], Mapping) and "role" in turns[0]:
        return _conversation(turns, "conversations", ("role", "content"))
    return _conversation(turns, "conversations", ("from", "value"))


def _conversation(turns: object, field: str, names: tuple[str, str]) -> list[Message]:
    if not isinstance(turns, list):
        raise ShapeFault("bad_messages", f"{field} must be a list of turns, not {_kind(turns)}")
    if not turns:
        raise ShapeFault("bad_messages", f"{field} is an empty list")
    messages = [_turn(turn, number, names) for number, turn in enumerate(turns, 1)]
    _check_order(messages)
    return messages


def _turn(turn: object, number: int, names: tuple[str, str]) -> Message:
    if not isinstance(turn, Mapping):
        raise ShapeFault("bad_messages", f"turn {number} must be an object, not {_kind(turn)}")
    missing = [name for name in names if name not in turn]
    if missing and not turn.get("tool_calls"):
        raise ShapeFault("missing_field", f"turn {number} has no {missing[0]}; it has {', '.join(map(str, turn))}")
    role = _role(turn.get(names[0]), number, share=names[0] == "from")
    if turn.get("tool_calls") or turn.get("function_call"):
        raise ShapeFault("tool_calls", f"turn {number} calls a tool, which cannot be trained here; write it as text")
    content = _text_of(turn[names[1]], number)
    if role != "system" and not content.strip():
        kind = "empty_target" if role == "assistant" else "empty_content"
        raise ShapeFault(kind, f"turn {number} ({role}) is empty")
    return Message(role, content)


def _role(role: object, number: int, *, share: bool) -> str:
    known: Sequence[str] = list(SHARE_ROLES) if share else ROLES
    if not isinstance(role, str):
        raise ShapeFault("unknown_role", f"the role of turn {number} must be text, not {_kind(role)}")
    if role not in known:
        means = SHARE_ROLES.get(role)
        hint = f' (did you mean "{means}"?)' if means else nearest(role, known)
        raise ShapeFault("unknown_role", f'turn {number} has the role "{role[:40]}"{hint}; known: {", ".join(known)}')
    return SHARE_ROLES[role] if share else role


def _text_of(content: object, number: int) -> str:
    """Return the text of a turn; a list of text parts is joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ShapeFault("bad_content", f"the content of turn {number} must be text, not {_kind(content)}")
    texts = []
    for part in content:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str) or (isinstance(part, Mapping) and part.get("type", "text") != "text"):
            kind = part.get("type") if isinstance(part, Mapping) else _kind(part)
            raise ShapeFault("bad_content", f"turn {number} has a part that is not text ({str(kind)[:40]})")
        texts.append(text)
    return "".join(texts)


def _check_order(messages: Sequence[Message]) -> None:
    roles = [message.role for message in messages]
    if "system" in roles[1:]:
        raise ShapeFault(
            "misplaced_system", f"turn {roles.index('system', 1) + 1} is a system turn; it must be the first"
        )
    if "assistant" not in roles:
        raise ShapeFault("no_assistant", "no turn is the assistant's: there is nothing to learn or to compare with")
    if "user" not in roles[: roles.index("assistant")]:
        raise ShapeFault("assistant_first", "the assistant speaks before any user does")
    if roles[-1] != "assistant":
        raise ShapeFault("no_final_answer", f"the last turn is the {roles[-1]}'s; it must be the assistant's")


# -- records of fields ---------------------------------------------------------------------------------------------


def _alpaca(record: Mapping[str, Any]) -> list[Message]:
    asked = _asked(record, "instruction")
    extra = record.get("input")
    if extra is not None and not isinstance(extra, str):
        raise ShapeFault("bad_content", f"input must be text, not {_kind(extra)}")
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
        return _conversation([*record[asked], *record[answer]], f"{asked} + {answer}", ("role", "content"))
    return [*_system(record), Message("user", _asked(record, asked)), Message("assistant", _answer(record, answer))]


def _pairs_in(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [pair for pair in PAIRS if pair[0] in record and pair[1] in record]


def _system(record: Mapping[str, Any]) -> list[Message]:
    system = record.get("system")
    return [Message("system", system)] if isinstance(system, str) and system.strip() else []


def _asked(record: Mapping[str, Any], field: str) -> str:
    value = record[field]
    if value is None:
        raise ShapeFault("missing_field", f"{field} is null")
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = dump_json(value)
    if not isinstance(value, str):
        raise ShapeFault("bad_content", f"{field} must be text, not {_kind(value)}")
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


def _name(record: Mapping[str, Any], field: str) -> str | None:
    value = record.get(field)
    if isinstance(value, str) and value:
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")
