"""What the answers say about the task: the metric, the labels, a JSON schema, the facts, the longest answer.

guess_metric(["yes", "no", "no", "yes", …])      # ("label", why)
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from luthier.ground.errors import BadInput
from luthier.ground.strict_json import JsonValue, parse_json

MAX_LABELS = 20
MAX_ENUM = 20
_PER_VALUE = 5  # rows per distinct value before a set of values is taken as closed


def guess_metric(answers: Sequence[str]) -> tuple[str, str]:
    """Return the metric and why."""
    objects = [value for answer in answers if (value := as_object(answer)) is not None]
    if answers and len(objects) >= 0.95 * len(answers):
        return "json_match", f"{len(objects):,} of {len(answers):,} answers are JSON objects"
    labels = guess_labels(answers)
    if labels:
        return "label", f"the {len(answers):,} answers have only {len(labels)} different short values"
    words = statistics.median(len(answer.split()) for answer in answers) if answers else 0
    if words <= 8:
        return "exact_match", f"half of the answers have at most {words:g} words"
    if words <= 40:
        return "token_f1", f"half of the answers have at most {words:g} words: some words may differ in a right answer"
    return "chrf", f"half of the answers have {words:g} words or more: likeness is scored, not equality"


def guess_labels(answers: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of a classification task, the most frequent first; empty if it is none."""
    counts = Counter(answer.strip() for answer in answers)
    closed = 2 <= len(counts) <= MAX_LABELS and len(answers) >= _PER_VALUE * len(counts)
    short = all(len(label) <= 60 and "\n" not in label for label in counts)
    return tuple(label for label, _ in counts.most_common()) if closed and short else ()


def as_object(answer: str) -> dict[str, JsonValue] | None:
    """Return an answer that is a JSON object, or None."""
    if not answer.lstrip().startswith("{"):
        return None
    try:
        value = parse_json(answer)
    except BadInput:
        return None
    return value if isinstance(value, dict) else None


def guess_schema(values: Sequence[JsonValue]) -> dict[str, Any]:
    """Return a JSON schema (draft 2020-12) that all values fit, as tight as so many values allow.

    Objects list their properties and allow no others; a property that all have is required; strings of few
    different values become an enumeration.
    """
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_schema(values)}


def guess_facts(pairs: Sequence[tuple[str, dict[str, JsonValue]]], documents: str) -> tuple[str, ...]:
    """Return the fields whose values stand in the documents and not in what is asked.

    Args:
        pairs: what is asked, and the answer.
        documents: the text of all documents.
    """
    text = documents.casefold()
    found = []
    for field in dict.fromkeys(name for _, answer in pairs for name in answer):
        values = [(asked.casefold(), _word(answer.get(field))) for asked, answer in pairs]
        words = [(asked, word) for asked, word in values if word]
        distinct = {word for _, word in words}
        closed = len(distinct) <= MAX_ENUM and len(words) >= _PER_VALUE * len(distinct)  # a vocabulary, no facts
        if len(words) < 0.5 * len(pairs) or closed:
            continue
        in_documents = sum(word in text for _, word in words)
        in_asked = sum(word in asked for asked, word in words)
        if in_documents >= 0.9 * len(words) and in_asked <= 0.2 * len(words):
            found.append(field)
    return tuple(found)


def longest_answer_tokens(answers: Sequence[str]) -> int:
    """Return a safe limit for generated tokens: one for every two characters of the longest answer, rounded up."""
    longest = max((len(answer) for answer in answers), default=0)
    return min(max(-(-(longest // 2 + 16) // 32) * 32, 32), 2048)


def _word(value: JsonValue) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    word = str(value).casefold().strip()
    return word if len(word) >= 2 else ""


def _schema(values: Sequence[JsonValue]) -> dict[str, Any]:
    kinds = sorted({_type(value) for value in values})
    if "integer" in kinds and "number" in kinds:
        kinds.remove("integer")
    schema: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds} if kinds else {}
    objects = [value for value in values if isinstance(value, dict)]
    if objects:
        names = list(dict.fromkeys(name for value in objects for name in value))
        schema["properties"] = {n: _schema([value[n] for value in objects if n in value]) for n in names}
        schema["required"] = [name for name in names if all(name in value for value in objects)]
        schema["additionalProperties"] = False
    lists = [value for value in values if isinstance(value, list)]
    if lists:
        items = [item for value in lists for item in value]
        schema["items"] = _schema(items) if items else {}
    if kinds == ["string"]:
        schema |= _enumeration([value for value in values if isinstance(value, str)])
    return schema


def _enumeration(values: Sequence[str]) -> dict[str, Any]:
    distinct = sorted(set(values))
    closed = len(distinct) <= MAX_ENUM and len(values) >= _PER_VALUE * len(distinct)
    return {"enum": distinct} if closed else {}


def _type(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = {dict: "object", list: "array", str: "string", int: "integer", float: "number"}
    return names.get(type(value), "null")
