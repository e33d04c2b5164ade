"""Find out how a chat template takes tools, by rendering a conversation with a call, and looking for what was said.

A template knows tools when it writes their list, a call with its arguments as JSON (or another notation of its own, but
not as Python's repr or a quoted string), and a tool's result. Arguments are handed over as objects, as `transformers`
does, or as their JSON text where only that comes out right. Nothing is decided by a template's name.

    use = probe_tools(lambda jobs: try_render(key, source, {}, jobs))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from luthier.rows.sandbox import Job, TemplateFault
from luthier.rows.tool_text import as_dicts
from luthier.rows.tools import list_of
from luthier.rows.types import Message, ToolCall

NAME, TOLD, KEY, VALUE, RESULT = "quincetool", "quincedescription", "quincekey", "quincevalue", "quinceresult"
TOOLS = (
    f'[{{"type":"function","function":{{"name":"{NAME}","description":"{TOLD}","parameters":{{"type":"object",'
    f'"properties":{{"{KEY}":{{"type":"string","description":"{KEY}"}}}},"required":["{KEY}"]}}}}}}]'
)
_USER = Message("user", "quinceuser")
_CALL = Message("assistant", "", tool_calls=(ToolCall(NAME, f'{{"{KEY}":"{VALUE}"}}'),))
_RESULT = Message("tool", RESULT, name=NAME)


@dataclass(frozen=True)
class ToolUse:
    """What a template makes of tools.

    Attributes:
        native: it lists them and writes calls; otherwise both are written as plain text.
        has_role: it writes a tool's turn.
        arguments_are_objects, no_text: how `as_dicts` is to hand calls over.
        tail: what it writes after the prompt for a call, for who wants to know how a call ends.
    """

    native: bool
    has_role: bool
    arguments_are_objects: bool = True
    no_text: str | None = ""
    tail: str = ""


def probe_tools(render: Callable[[Sequence[Job]], Sequence[str | TemplateFault]]) -> ToolUse:
    """Return how a template takes tools; `render` renders jobs by it."""
    for are_objects in (True, False):
        for no_text in ("", None):
            found = _native(render, are_objects, no_text)
            if found is not None:
                return found
    talk = [_USER, Message("assistant", _CALL.written), _RESULT]
    [after] = render([Job(as_dicts(talk), True)])
    return ToolUse(native=False, has_role=isinstance(after, str) and RESULT in after)


def _native(
    render: Callable[[Sequence[Job]], Sequence[str | TemplateFault]], are_objects: bool, no_text: str | None
) -> ToolUse | None:
    talk = as_dicts([_USER, _CALL, _RESULT], arguments_are_objects=are_objects, no_text=no_text)
    tools = list_of(TOOLS)
    prompt, whole, after = render([Job(talk[:1], True, tools), Job(talk[:2], False, tools), Job(talk, True, tools)])
    if not (isinstance(prompt, str) and isinstance(whole, str) and isinstance(after, str)):
        return None
    if not (NAME in prompt and TOLD in prompt and RESULT in after and whole.startswith(prompt)):
        return None
    tail = whole[len(prompt) :]
    if not all(word in tail for word in (NAME, KEY, VALUE)) or f"'{KEY}'" in tail or f'\\"{KEY}' in tail:
        return None
    return ToolUse(True, True, are_objects, no_text, tail)
