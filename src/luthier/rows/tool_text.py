"""Write tools, calls and their results as plain text, for chat templates that do not know them.

The tools stand at the end of the system text, one JSON object a line, with a sentence on how to call one; a call is a
line of JSON in the assistant's turn; where a template has no tool role, a result is a turn of the user. Training and
generation write them by the same functions, so that a model is asked as it was trained.

    >>> talk = (Message("user", "1 + 2?"), Message("assistant", "", tool_calls=(ToolCall("add", '{"a":1}'),)))
    >>> [message.content for message in written_out(talk, None, has_tool_role=True)]
    ['1 + 2?', '{"name":"add","arguments":{"a":1}}']
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from luthier.ground.strict_json import dump_json, parse_json
from luthier.rows.tools import list_of
from luthier.rows.types import Message, ToolCall

LISTED = "You can call these tools, one a line:"
HOW = 'To call one, write a line of JSON: {"name": …, "arguments": {…}}'


def written_out(messages: Sequence[Message], tools: str | None, *, has_tool_role: bool) -> tuple[Message, ...]:
    """Return the messages without anything that only a template with tools could render."""
    told = [dataclasses.replace(m, content=m.written, tool_calls=()) for m in messages]
    if tools is not None:
        told = _with_tools(told, tools)
    return tuple(told if has_tool_role else _results_by_user(told))


def _with_tools(messages: list[Message], tools: str) -> list[Message]:
    lines = [dump_json(tool.get("function", tool)) for tool in list_of(tools)]
    text = "\n".join([LISTED, *lines, HOW])
    if messages and messages[0].role == "system":
        own = messages[0].content
        return [Message("system", f"{own}\n\n{text}" if own.strip() else text), *messages[1:]]
    return [Message("system", text), *messages]


def _results_by_user(messages: Sequence[Message]) -> list[Message]:
    """Return tools' turns as the user's, those that follow each other as one."""
    told: list[Message] = []
    after_result = False
    for message in messages:
        if message.role != "tool":
            told.append(message)
        else:
            text = f"Result of {message.name}:\n{message.content}" if message.name else f"Result:\n{message.content}"
            text = f"{told.pop().content}\n{text}" if after_result else text
            told.append(Message("user", text))
        after_result = message.role == "tool"
    return told


def as_dicts(
    messages: Sequence[Message], *, arguments_are_objects: bool = True, no_text: str | None = ""
) -> list[dict[str, object]]:
    """Return messages as chat templates get them; what a message has not is no key of its own.

    Args:
        arguments_are_objects: hand arguments over as objects, not as their JSON text.
        no_text: the content of a turn that only calls tools.
    """
    told: list[dict[str, object]] = []
    waiting: list[tuple[str, str]] = []  # calls that no tool has answered yet: (name, id)
    number = 0
    for message in messages:
        one: dict[str, object] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            ids = [call.id or f"call{number + n:05d}" for n, call in enumerate(message.tool_calls, 1)]
            number += len(ids)
            waiting = [(call.name, given) for call, given in zip(message.tool_calls, ids, strict=True)]
            one["content"] = message.content or no_text
            one["tool_calls"] = [
                _call(call, given, arguments_are_objects) for call, given in zip(message.tool_calls, ids, strict=True)
            ]
        elif message.role == "tool":
            one |= _answered(message, waiting)
        told.append(one)
    return told


def _call(call: ToolCall, given: str, arguments_are_objects: bool) -> dict[str, object]:
    arguments = parse_json(call.arguments) if arguments_are_objects else call.arguments
    return {"id": given, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _answered(message: Message, waiting: list[tuple[str, str]]) -> dict[str, object]:
    """Return the name and the id of the call that a tool's turn answers: by its name, else the first that waits."""
    found = next((call for call in waiting if call[0] == message.name), waiting[0] if waiting else None)
    if found is None:
        return {"name": message.name} if message.name else {}
    waiting.remove(found)
    return {"name": message.name or found[0], "tool_call_id": found[1]}
