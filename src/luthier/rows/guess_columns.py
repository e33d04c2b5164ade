"""Which column of a table is asked, which is the answer, which names a row and which a group.

Names are looked at first, then lengths and repetition. A table with an input and several columns of few values becomes
a task that answers with one JSON object of those columns.

    choose_columns([{"mail": "My wheel is broken …", "team": "repairs"}, …])
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

INPUTS = (
    "prompt", "question", "input", "text", "body", "message", "query", "ticket", "email", "mail", "review", "sentence",
    "utterance", "request", "description", "content", "document", "article", "comment", "instruction", "title",
)  # fmt: skip
OUTPUTS = (
    "completion", "answer", "output", "response", "label", "target", "reply", "expected", "gold", "result", "solution",
    "category", "class", "intent", "sentiment", "summary", "translation", "tag", "topic", "json", "sql",
)  # fmt: skip
GROUPS = (
    "group", "user", "customer", "client", "author", "account", "session", "conversation", "thread", "document", "doc",
    "product", "patient", "company", "project", "template", "source", "speaker",
)  # fmt: skip
IDS = ("id", "_id", "uuid", "key", "row_id", "index")
FEW_VALUES = 30


@dataclass(frozen=True)
class Columns:
    """The columns chosen. `answers` holds one column, or several that become one JSON object."""

    asked: str
    answers: tuple[str, ...]
    why: str


def choose_columns(records: Sequence[Mapping[str, Any]]) -> Columns | None:
    """Return the input and the answer, or None if the records do not look like examples."""
    names = _columns(records)
    group, row_id = choose_group(records, taken=()), choose_id(records)
    free = [name for name in names if name != row_id and _tells(records, name)]
    asked = _by_name(free, INPUTS) or _longest(records, free)
    if asked is None:
        return None
    rest = [name for name in free if name != asked]
    named = [name for name in rest if _matches(name, OUTPUTS)]
    if len(named) == 1:
        why = f'"{asked}" is what is asked and "{named[0]}" the answer, by their names'
        return Columns(asked, (named[0],), why)
    labels = [name for name in rest if name != group and _few_values(records, name)]
    if len(labels) > 1:
        why = f'"{asked}" is what is asked; the columns {", ".join(labels)} have few values and become one JSON object'
        return Columns(asked, tuple(labels), why)
    left = named or labels or [name for name in rest if name != group]
    if not left:
        return None
    why = f'"{asked}" is taken as what is asked and "{left[-1]}" as the answer: other columns fit less'
    return Columns(asked, (left[-1],), why)


def choose_id(records: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the column that names each row, each name once."""
    for name in _columns(records):
        values = [record.get(name) for record in records]
        if (
            _is_id(name)
            and all(isinstance(v, str | int) and v != "" for v in values)
            and len(set(values)) == len(values)
        ):
            return name
    return None


def choose_group(records: Sequence[Mapping[str, Any]], taken: Iterable[str]) -> str | None:
    """Return the column whose equal values belong together: a known name, values that repeat, none that has it all."""
    for name in sorted(_columns(records), key=_group_rank):
        if _group_rank(name) == len(GROUPS) or name in taken:
            continue
        values = [record.get(name) for record in records]
        if not all(isinstance(value, str | int) and value != "" for value in values):
            continue
        counts = Counter(values)
        if 5 <= len(counts) <= 0.9 * len(values) and max(counts.values()) <= 0.4 * len(values):
            return name
    return None


def _columns(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(name) for record in records for name in record))


def _words(name: str) -> list[str]:
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower().replace("-", "_").replace(" ", "_").split("_")


def _matches(name: str, known: Sequence[str]) -> bool:
    return any(word in known or word.rstrip("s") in known for word in _words(name))


def _is_id(name: str) -> bool:
    return name.lower() in IDS or _words(name)[-1] in ("id", "uuid")


def _group_rank(name: str) -> int:
    words = [word for word in _words(name) if word != "id"]
    return min((GROUPS.index(word) for word in words if word in GROUPS), default=len(GROUPS))


def _by_name(names: Sequence[str], known: Sequence[str]) -> str | None:
    for word in known:
        for name in names:
            if word in _words(name) and not _matches(name, OUTPUTS):
                return name
    return None


def _tells(records: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Tell whether a column is filled, and not with one value alone."""
    values = [str(record.get(name)) for record in records if record.get(name) not in (None, "")]
    return len(values) >= 0.95 * len(records) and (len(set(values)) > 1 or len(records) < 5)


def _longest(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str | None:
    def mean_length(name: str) -> float:
        return sum(len(str(record.get(name))) for record in records) / len(records)

    texts = [n for n in names if all(isinstance(r.get(n), str) for r in records) and not _few_values(records, n)]
    longest = max(texts, key=mean_length, default=None)
    return longest if longest is not None and mean_length(longest) >= 8 else None


def _few_values(records: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = {str(record.get(name)) for record in records}
    return len(values) <= min(FEW_VALUES, max(2, len(records) // 3)) and max(map(len, values)) <= 60
