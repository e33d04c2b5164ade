"""Keep special tokens that stand in somebody's text from becoming control tokens.

Before a conversation is rendered, each special token inside a message is wrapped in two private-use characters that
occur nowhere else in it; after rendering they are taken out again, and what they wrapped is known by its place. A
message without special tokens passes through untouched, so ordinary rows are rendered exactly as they are.

    >>> guarded = protect([Message("user", "what is <e>?")], re.compile("<e>"))
    >>> unprotect(guarded.messages[0].content, guarded)
    ('what is <e>?', [(8, 11)])
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from luthier.ground.errors import BadInput
from luthier.rows.types import Message

Literals = list[tuple[int, int]]  # character ranges


@dataclass(frozen=True)
class Protected:
    """What is to be rendered; `marks` is the opening and the closing character, or None if nothing was wrapped."""

    messages: tuple[Message, ...]
    tools: str | None = None
    marks: tuple[str, str] | None = None


def protect(messages: Sequence[Message], controls: re.Pattern[str] | None, tools: str | None = None) -> Protected:
    """Wrap every special token that stands in a message, in a call of it, or in the description of a tool."""
    texts = [text for message in messages for text in _texts(message)] + [tools or ""]
    if controls is None or not any(controls.search(text) for text in texts):
        return Protected(tuple(messages), tools)
    opening, closing = _unused("".join(texts))
    wrapping = rf"{opening}\g<0>{closing}"
    wrapped = tuple(_wrapped(message, controls, wrapping) for message in messages)
    return Protected(wrapped, None if tools is None else controls.sub(wrapping, tools), (opening, closing))


def _texts(message: Message) -> list[str]:
    return [message.content, message.name or "", *(part for c in message.tool_calls for part in (c.name, c.arguments))]


def _wrapped(message: Message, controls: re.Pattern[str], wrapping: str) -> Message:
    calls = (
        replace(call, name=controls.sub(wrapping, call.name), arguments=controls.sub(wrapping, call.arguments))
        for call in message.tool_calls
    )
    name = None if message.name is None else controls.sub(wrapping, message.name)
    return replace(message, content=controls.sub(wrapping, message.content), name=name, tool_calls=tuple(calls))


def unprotect(text: str, guarded: Protected) -> tuple[str, Literals]:
    """Return the rendered text without marks, and the ranges of what they wrapped."""
    if guarded.marks is None:
        return text, []
    opening, closing = guarded.marks
    parts: list[str] = []
    literals: Literals = []
    size = start = 0
    for part in re.split(f"([{opening}{closing}])", text):
        if part == opening:
            start = size
        elif part == closing:
            literals.append((start, size))
        else:
            parts.append(part)
            size += len(part)
    return "".join(parts), literals


def _unused(text: str) -> tuple[str, str]:
    used = set(text)
    free = [chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in used][:2]
    if len(free) < 2:
        raise BadInput("the row uses all private-use characters", fix="delete the row")
    return free[0], free[1]
