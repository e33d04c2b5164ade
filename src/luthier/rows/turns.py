"""Read a conversation: a list of turns, each {role, content} or ShareGPT's {from, value}, with calls of tools.

A turn of the assistant that calls tools may be without text. `train: false` (or OpenAI's `weight: 0`) keeps one of its
turns from being trained. Nothing is repaired.

    >>> conversation([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}], "messages")[1].content
    'yo'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.ground.errors import BadInput, nearest
from luthier.ground.strict_json import dump_json
from luthier.rows.shape_fault import ShapeFault, kind_of
from luthier.rows.tools import calls_in_text, calls_of
from luthier.rows.types import Message, ToolCall

ROLES = ("system", "user", "assistant", "tool")
SHARE_ROLES = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "function_call": "assistant", "tool": "tool",
    "function_response": "tool", "observation": "tool",
}  # fmt: skip


def conversation(turns: object, field: str) -> list[Message]:
    """Return the turns of a record's `field` as messages.

    Raises:
        ShapeFault: a turn is not one, or their order makes no sense.
    """
    if not isinstance(turns, list):
        raise ShapeFault("bad_messages", f"{field} must be a list of turns, not {kind_of(turns)}")
    if not turns:
        raise ShapeFault("bad_messages", f"{field} is an empty list")
    share = field == "conversations" and not (isinstance(turns[0], Mapping) and "role" in turns[0])
    messages = [_turn(turn, number, share) for number, turn in enumerate(turns, 1)]
    _check_order(messages)
    return messages


def _turn(turn: object, number: int, share: bool) -> Message:
    role_field, text_field = ("from", "value") if share else ("role", "content")
    if not isinstance(turn, Mapping):
        raise ShapeFault("bad_messages", f"turn {number} must be an object, not {kind_of(turn)}")
    calls = _calls(turn, number, share)
    missing = [name for name in (role_field, text_field) if name not in turn]
    if missing and not (calls and missing == [text_field]):
        raise ShapeFault("missing_field", f"turn {number} has no {missing[0]}; it has {', '.join(map(str, turn))}")
    role = _role(turn.get(role_field), number, share=share)
    if calls and role != "assistant":
        raise ShapeFault("bad_tool_call", f"turn {number} ({role}) calls a tool; only the assistant can")
    only_calls = share and turn.get("from") == "function_call"
    content = "" if only_calls else _content(turn.get(text_field), role, number, bool(calls))
    name = turn.get("name")
    named = name if role == "tool" and isinstance(name, str) and name else None
    return Message(role, content, train=_is_trained(turn, role, number), tool_calls=calls, name=named)


def _calls(turn: Mapping[Any, Any], number: int, share: bool) -> tuple[ToolCall, ...]:
    where = f"turn {number}"
    if share and turn.get("from") == "function_call":
        return calls_in_text(turn.get("value"), where)
    if turn.get("function_call") is not None:
        return calls_of([turn["function_call"]], where)
    return calls_of(turn.get("tool_calls"), where)


def _role(role: object, number: int, *, share: bool) -> str:
    known: Sequence[str] = list(SHARE_ROLES) if share else ROLES
    if not isinstance(role, str):
        raise ShapeFault("unknown_role", f"the role of turn {number} must be text, not {kind_of(role)}")
    if role not in known:
        means = SHARE_ROLES.get(role)
        hint = f' (did you mean "{means}"?)' if means else nearest(role, known)
        raise ShapeFault("unknown_role", f'turn {number} has the role "{role[:40]}"{hint}; known: {", ".join(known)}')
    return SHARE_ROLES[role] if share else role


def _content(value: object, role: str, number: int, has_calls: bool) -> str:
    if value is None and has_calls:
        return ""
    content = _result(value, number) if role == "tool" and isinstance(value, Mapping) else _text_of(value, number)
    may_be_empty = role in ("system", "tool") or has_calls  # a tool may return nothing
    if not may_be_empty and not content.strip():
        kind = "empty_target" if role == "assistant" else "empty_content"
        raise ShapeFault(kind, f"turn {number} ({role}) is empty")
    return content


def _result(value: object, number: int) -> str:
    """Return what a tool gave as an object, as JSON text."""
    try:
        return dump_json(value)
    except BadInput as error:
        raise ShapeFault("bad_content", f"the content of turn {number}: {error.what}") from None


def _text_of(content: object, number: int) -> str:
    """Return the text of a turn; a list of text parts is joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ShapeFault("bad_content", f"the content of turn {number} must be text, not {kind_of(content)}")
    texts = []
    for part in content:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str) or (isinstance(part, Mapping) and part.get("type", "text") != "text"):
            kind = part.get("type") if isinstance(part, Mapping) else kind_of(part)
            raise ShapeFault("bad_content", f"turn {number} has a part that is not text ({str(kind)[:40]})")
        texts.append(text)
    return "".join(texts)


def _is_trained(turn: Mapping[Any, Any], role: str, number: int) -> bool:
    """Return whether a turn may be a target: what `train` says, or OpenAI's `weight` (0 or 1)."""
    train, weight = turn.get("train"), turn.get("weight")
    if train is not None and not isinstance(train, bool):
        raise ShapeFault("bad_weight", f"train of turn {number} must be true or false, not {kind_of(train)}")
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        raise ShapeFault("bad_weight", f"the weight of turn {number} must be 0 or 1; whole rows may have other weights")
    said = {bool(value) for value in (train, weight) if value is not None}
    if len(said) > 1:
        raise ShapeFault("bad_weight", f"train and weight of turn {number} say opposite things; keep one")
    if role != "assistant" and True in said:
        raise ShapeFault(
            "bad_weight", f"turn {number} ({role}) is to be trained; only the assistant's turns are targets"
        )
    return False not in said


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
    for number, role in enumerate(roles):
        if role == "tool" and roles[number - 1] not in ("assistant", "tool"):
            raise ShapeFault(
                "misplaced_tool", f"turn {number + 1} is a tool's, but the assistant called none before it"
            )
    if roles[-1] != "assistant":
        raise ShapeFault("no_final_answer", f"the last turn is the {roles[-1]}'s; it must be the assistant's")
