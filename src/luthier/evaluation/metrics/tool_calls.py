"""Whether an answer calls the right tools with the right arguments; what is said beside the calls is not judged.

Calls are found in whichever notation a model writes: a JSON object with a name and `arguments` (or `parameters`),
alone, in a list, line by line or inside tags. Arguments are compared as JSON values; calls in any order. Where the
reference calls nothing, an answer that calls nothing is right. Notations that are not JSON are not read.

    METRICS.get("tool_calls").score('<call>{"name": "f", "arguments": {}}</call>', row.reference, context)
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from luthier.evaluation.metrics.base import MetricContext, Part, Score, metric
from luthier.ground.errors import BadInput
from luthier.ground.strict_json import canonical, parse_json

_DECODER = json.JSONDecoder()


@metric("tool_calls", binary=True, parts=(Part("names"), Part("argument_f1", binary=False)))
def tool_calls(output: str, reference: str, context: MetricContext) -> Score:  # noqa: ARG001
    """1 if the answer makes exactly the reference's calls; parts: the names alone, and F1 over name, key and value."""
    found, wanted = calls_in(output), calls_in(reference)
    right = Counter(map(_key, found)) == Counter(map(_key, wanted))
    names = Counter(name for name, _ in found) == Counter(name for name, _ in wanted)
    f1 = _f1(_facts(found), _facts(wanted))
    return Score(float(right), {"names": float(names), "argument_f1": f1}, graded=1.0 if right else 0.99 * f1)


def calls_in(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls (name, arguments) that stand in a text, in order."""
    calls = []
    at = text.find("{")
    while at >= 0:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            at = text.find("{", at + 1)
            continue
        if (call := _as_call(value, text[at:end])) is not None:
            calls.append(call)
        at = text.find("{", end)
    return calls


def _as_call(value: object, text: str) -> tuple[str, dict[str, Any]] | None:
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    if isinstance(inner, dict):
        value = inner
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        arguments = _parsed(arguments)
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    return (name, arguments) if _parsed(text) is not None else None  # what strict JSON refuses is no call


def _parsed(text: str) -> object:
    try:
        return parse_json(text)
    except BadInput:
        return None


def _key(call: tuple[str, dict[str, Any]]) -> str:
    return canonical([call[0], call[1]])


def _facts(calls: list[tuple[str, dict[str, Any]]]) -> Counter[str]:
    """Return each call's name, and each of its arguments with its value."""
    facts: Counter[str] = Counter()
    for name, arguments in calls:
        facts[canonical([name])] += 1
        facts.update(canonical([name, key, value]) for key, value in arguments.items())
    return facts


def _f1(found: Counter[str], wanted: Counter[str]) -> float:
    if not found and not wanted:
        return 1.0
    return 2 * (found & wanted).total() / (found.total() + wanted.total())
