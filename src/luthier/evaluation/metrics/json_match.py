"""The metric of extraction: `json_match`. Form and facts are scored apart, and the whole object decides.

What counts as an answer is strict: the text, trimmed, must be one JSON object (or array, where the reference is one) by
`luthier.ground.strict_json`; a Markdown code fence around all of it is allowed, because every caller can strip it in a
line, but words around it are not. Nothing is repaired.

    >>> json_match.score('{"b": 2, "a": 1}', '{"a": 1, "b": 2}', MetricContext()).value
    1.0
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from jsonschema.exceptions import SchemaError
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, validator_for
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from luthier.evaluation.metrics.appears import appears
from luthier.evaluation.metrics.base import MetricContext, Part, Score, metric
from luthier.ground.errors import BadInput
from luthier.ground.strict_json import JsonValue, canonical, parse_json

_FENCE = re.compile(r"```[A-Za-z]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_ANY_INDEX = None  # stands for the place in an array, so that a missing element does not shift all others

PARTS = (
    Part("parse"),
    Part("valid", needs="schema"),
    Part("field_f1", binary=False),
    Part("exact"),
    Part("form", needs="facts"),
    Part("facts", needs="facts"),
)


@metric("json_match", binary=True, parts=PARTS)
def json_match(output: str, reference: str, context: MetricContext) -> Score:
    """1 if the answer is the reference object: same keys and values, in any order of keys; 1 and 1.0 are equal.

    Parts:
        parse: the answer is JSON of the right kind at all (see the head of this file).
        valid: it also keeps the task's schema (only with a schema).
        field_f1: F1 over the leaves of the two objects (path and value); array elements in any order; 0 if no parse.
        exact: as the value.
        form: `valid`, or `parse` where there is no schema (only with facts).
        facts: every fact of the reference appears somewhere in the raw answer, JSON or not (only with facts).
    """
    wanted = _reference(reference)
    answer = _parse_answer(output, type(wanted))
    found = [appears(fact, _searchable(output, answer)) for fact in _facts(wanted, context.facts)]
    parts = {
        "parse": float(answer is not None),
        "exact": float(_same(answer, wanted)),
        "field_f1": field_f1(answer, wanted),
    }
    if context.schema:
        parts["valid"] = float(answer is not None and _keeps(answer, context.schema))
    if context.facts:
        parts["form"] = parts.get("valid", parts["parse"])
        parts["facts"] = float(all(found))
    return Score(parts["exact"], parts, _graded(output, wanted, parts, found))


def field_f1(answer: JsonValue, wanted: JsonValue) -> float:
    """Return the harmonic mean of precision and recall over leaves; `None` (no answer) gets 0."""
    if answer is None:
        return 0.0
    said, right = Counter(_leaves(answer)), Counter(_leaves(wanted))
    return 2 * (said & right).total() / (said.total() + right.total())


def reference_facts(reference: str, names: tuple[str, ...]) -> list[str]:
    """Return the facts of a reference as texts to look for with `appears`: the values of the fields called so."""
    return _facts(_reference(reference), names)


def _reference(text: str) -> JsonValue:
    try:
        wanted = parse_json(text)
    except BadInput as error:
        what = f"json_match needs JSON references, but in this one {error.what}"
        raise BadInput(what, fix="mend the reference, or choose another metric") from None
    if not isinstance(wanted, dict | list):
        raise BadInput(
            "json_match needs references that are JSON objects or arrays", fix="mend it, or choose another metric"
        )
    return wanted


def _parse_answer(output: str, kind: type) -> JsonValue:
    """Return the object (or array) that the whole answer is, or `None`."""
    text = output.strip()
    fenced = _FENCE.fullmatch(text)
    try:
        answer = parse_json(fenced[1] if fenced else text)
    except BadInput:
        return None
    return answer if isinstance(answer, kind) else None


def _same(answer: JsonValue, wanted: JsonValue) -> bool:
    return answer is not None and canonical(answer) == canonical(wanted)


def _leaves(value: JsonValue, path: tuple[str | None, ...] = ()) -> Iterator[tuple[tuple[str | None, ...], str]]:
    """Yield path and canonical text of every scalar and every empty object or array."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _leaves(inner, (*path, _ANY_INDEX))
    else:
        yield path, canonical(value)


def _keeps(answer: JsonValue, schema: Mapping[str, Any]) -> bool:
    try:
        return _validator(canonical(schema)).is_valid(answer)
    except Unresolvable as error:
        what = f"the schema refers to something that is not in it: {error.ref}"
        raise BadInput(what, fix="mend the schema") from None
    except RecursionError:  # a recursive schema on a deep answer
        return False


@lru_cache(maxsize=16)
def _validator(schema_text: str) -> Validator:
    schema: Any = parse_json(schema_text)
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        place = "/".join(str(step) for step in error.absolute_path) or "its top"
        raise BadInput(f"the JSON schema is not one, at {place}: {error.message:.120}", fix="mend the schema") from None
    return kind(schema, registry=EMPTY_REGISTRY)  # the default registry would fetch references from the network


def _facts(wanted: JsonValue, names: tuple[str, ...]) -> list[str]:
    """Return the texts to look for. A null is no fact; a field that is not there is a fault of the reference."""
    objects = wanted if isinstance(wanted, list) else [wanted]
    return [text for item in objects for name in names for text in _texts(_field(item, name))]


def _field(wanted: JsonValue, name: str) -> JsonValue:
    value = wanted
    for key in [name] if isinstance(value, dict) and name in value else name.split("."):
        if not isinstance(value, dict) or key not in value:
            what = f'the reference has no field "{name}", which the task names as a fact'
            raise BadInput(what, fix="write null there")
        value = value[key]
    return value


def _texts(value: JsonValue) -> Iterator[str]:
    """Yield the scalars of a value as they would stand in a text."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        if value.strip():
            yield value
    elif value is not None:
        yield canonical(value)


def _searchable(output: str, answer: JsonValue) -> str:
    """The raw answer and, below it, its decoded values one a line: escapes and `[30,365]` hide facts in raw JSON."""
    return "\n".join([output, *_texts(answer)])


def _graded(output: str, wanted: JsonValue, parts: Mapping[str, float], found: list[bool]) -> float:
    """Mean of form, fields and facts, where the fields of an object with words around it also count."""
    start, end = ("{", "}") if isinstance(wanted, dict) else ("[", "]")
    inside = _parse_answer(output[max(0, output.find(start)) : output.rfind(end) + 1], type(wanted))
    grades = [parts["parse"], parts.get("valid", parts["parse"]), max(parts["field_f1"], field_f1(inside, wanted))]
    if found:
        grades.append(sum(found) / len(found))
    return sum(grades) / len(grades)
