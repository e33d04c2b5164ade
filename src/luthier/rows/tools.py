"""Functions that an assistant may call, and its calls, as people write them down; both in one form afterwards.

A tool is OpenAI's `{"type": "function", "function": {"name", "description", "parameters"}}`, or the inner object alone.
A call is OpenAI's `{"id", "type": "function", "function": {"name", "arguments"}}`, or `{"name", "arguments"}`, where
arguments are an object, or its JSON text. How a model gets to see either is the affair of `luthier.rows.template`.

    >>> calls_of([{"name": "add", "arguments": '{"a": 1}'}], "turn 2")
    (ToolCall(name='add', arguments='{"a":1}', id=''),)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.ground.errors import BadInput, nearest
from luthier.ground.strict_json import dump_json, parse_json
from luthier.rows.shape_fault import ShapeFault, kind_of
from luthier.rows.types import Message, ToolCall


def tools_of(value: object) -> str | None:
    """Return a record's tools as the JSON text of a list, each in OpenAI's form; None when there are none.

    Raises:
        ShapeFault: what is not a list of named functions.
    """
    if isinstance(value, str):
        value = _parsed(value, "tools", "bad_tools") if value.strip() else None
    if value is None:
        return None
    if not isinstance(value, list):
        raise ShapeFault("bad_tools", f"tools must be a list of functions, not {kind_of(value)}")
    tools = [_tool(tool, number) for number, tool in enumerate(value, 1)]
    names = [str(tool["function"]["name"]) for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ShapeFault("bad_tools", f'tools has "{twice[:40]}" twice; keep one')
    return _dumped(tools, "tools", "bad_tools") if tools else None


def calls_of(value: object, where: str) -> tuple[ToolCall, ...]:
    """Return the calls of a turn; `where` is how a fault names it.

    Raises:
        ShapeFault: what is not a list of calls.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ShapeFault("bad_tool_call", f"the tool_calls of {where} must be a list, not {kind_of(value)}")
    return tuple(_call(call, f"call {number} of {where}") for number, call in enumerate(value, 1))


def calls_in_text(text: object, where: str) -> tuple[ToolCall, ...]:
    """Return the calls of a ShareGPT turn "function_call", whose text is the JSON of one call or of a list of them."""
    value = _parsed(text, f"{where} (a function call)", "bad_tool_call") if isinstance(text, str) else text
    return calls_of(value if isinstance(value, list) else [value], where)


def refuse_unknown_tools(messages: Sequence[Message], tools: str | None) -> None:
    """Refuse a call, in a turn that is trained, of a function that the row's tools do not list."""
    if tools is None:
        return
    known = {tool["function"]["name"] for tool in list_of(tools)}
    for number, message in enumerate(messages, 1):
        for call in message.tool_calls if message.train else ():
            if call.name not in known:
                hint = nearest(call.name, known)
                raise ShapeFault(
                    "unknown_tool", f'turn {number} calls "{call.name[:40]}", which tools does not list{hint}'
                )


def list_of(tools: str | None) -> list[dict[str, Any]]:
    """Return the tools of a row as objects."""
    value = parse_json(tools) if tools is not None else []
    assert isinstance(value, list)
    return [tool for tool in value if isinstance(tool, dict)]


def _tool(tool: object, number: int) -> dict[str, Any]:
    if not isinstance(tool, Mapping):
        raise ShapeFault("bad_tools", f"tool {number} must be an object, not {kind_of(tool)}")
    function = tool.get("function", None if "function" in tool else tool)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"].strip():
        raise ShapeFault("bad_tools", f"tool {number} has no name; wanted: name, description and parameters")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise ShapeFault("bad_tools", f"the parameters of tool {number} must be an object, not {kind_of(parameters)}")
    inner = {
        name: part for name, part in function.items() if part is not None and not (name == "type" and function is tool)
    }
    return {"type": "function", "function": inner}


def _call(call: object, where: str) -> ToolCall:
    if not isinstance(call, Mapping):
        raise ShapeFault("bad_tool_call", f"{where} must be an object, not {kind_of(call)}")
    function = call["function"] if isinstance(call.get("function"), Mapping) else call
    name, arguments = function.get("name"), function.get("arguments", function.get("parameters"))
    if not isinstance(name, str) or not name.strip():
        raise ShapeFault("bad_tool_call", f"{where} has no name; wanted: name and arguments")
    given = call.get("id")
    return ToolCall(name, _arguments(arguments, where), given if isinstance(given, str) else "")


def _arguments(value: object, where: str) -> str:
    if isinstance(value, str):
        value = _parsed(value, f"the arguments of {where}", "bad_tool_call") if value.strip() else {}
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise ShapeFault("bad_tool_call", f"the arguments of {where} must be an object, not {kind_of(value)}")
    return _dumped(value, f"the arguments of {where}", "bad_tool_call")


def _parsed(text: str, what: str, kind: str) -> object:
    try:
        return parse_json(text)
    except BadInput as error:
        raise ShapeFault(kind, f"{what}: {error.what}") from None


def _dumped(value: object, what: str, kind: str) -> str:
    try:
        return dump_json(value)
    except BadInput as error:
        raise ShapeFault(kind, f"{what}: {error.what}") from None
