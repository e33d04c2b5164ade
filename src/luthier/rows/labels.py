"""The labels of a classification task: which there are, how often, and how an answer becomes numbers and back.

A row's answer is its label: a name, the JSON list of several names, or a number. What is trained are numbers [L]:
one-hot, multi-hot, or the value less the training rows' mean, in units of their deviation. Losses are not known here.

    >>> labels = LabelSet("single", ("card", "loan"))
    >>> labels.numbers_of("loan").tolist(), labels.answer_of([0.2, 0.8])
    ([0.0, 1.0], 'loan')
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from luthier.ground.errors import BadInput, nearest
from luthier.rows.types import FloatArray, Row

LabelsKind = Literal["single", "multi", "regression"]
WEIGHTS_WHERE = "train.class_weights"


class LabelFault(BadInput):
    """An answer that is no label of the task; `kind` counts it: unknown_label, bad_label."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


@dataclass(frozen=True)
class LabelSet:
    """What a task's answers may be.

    Attributes:
        kind: one label a row, any number of them, or a number.
        labels: in the order of the numbers; empty for regression.
        counts: training rows of each label.
        rows: training rows.
        mean, scale: of the training rows' values.
        listed: the task file lists the labels; otherwise they are those of the training rows.
    """

    kind: LabelsKind
    labels: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    mean: float = 0.0
    scale: float = 1.0
    listed: bool = True

    def names_of(self, answer: str) -> list[str]:
        """Return the labels that an answer names.

        Raises:
            LabelFault: it is no label, or none of the task's.
        """
        names = _list_of(answer) if self.kind == "multi" else [answer.strip()]
        for name in names:
            if name not in self.labels:
                never = "is never seen in training" if not self.listed else "is not among the task's labels"
                known = ", ".join(self.labels[:20])
                raise LabelFault(
                    "unknown_label", f'the label "{name[:60]}" {never}{nearest(name, self.labels)}: {known}'
                )
        return names

    def numbers_of(self, answer: str) -> FloatArray:
        """Return what is trained for an answer, [L].

        Raises:
            LabelFault: it is no label of the task.
        """
        if self.kind == "regression":
            return np.array([(value_of(answer) - self.mean) / self.scale], dtype=np.float32)
        names = self.names_of(answer)
        return np.array([label in names for label in self.labels], dtype=np.float32)

    def answer_of(self, numbers_L: Sequence[float]) -> str:
        """Return the answer that probabilities (of regression: the trained number) stand for."""
        if self.kind == "regression":
            return f"{self.mean + self.scale * float(numbers_L[0]):.6g}"
        if self.kind == "single":
            return self.labels[int(np.argmax(np.asarray(numbers_L)))]
        chosen = [label for label, number in zip(self.labels, numbers_L, strict=True) if number >= 0.5]
        return json.dumps(chosen, ensure_ascii=False)

    def weights(self, wanted: Literal["none", "balanced"] | Mapping[str, float]) -> dict[str, float] | None:
        """Return the weight of each label; None if all are 1.

        balanced: rows / (labels · rows of the label), as in King and Zeng (2001), so that each label counts alike; a
        label without a row gets 1.

        Raises:
            BadInput: there are no labels, or a weight is of none of them.
        """
        if wanted == "none":
            return None
        if self.kind == "regression":
            raise BadInput("regression has no labels that could be weighted", where=WEIGHTS_WHERE, fix="leave it out")
        if isinstance(wanted, Mapping):
            unknown = next((name for name in wanted if name not in self.labels), None)
            if unknown is not None:
                raise BadInput(
                    f'"{unknown}" is not among the task\'s labels{nearest(unknown, self.labels)}',
                    where=WEIGHTS_WHERE,
                    fix=f"name some of {', '.join(self.labels[:20])}",
                )
            return {label: float(wanted.get(label, 1.0)) for label in self.labels}
        total = sum(self.counts.get(label, 0) for label in self.labels)
        return {
            label: total / (len(self.labels) * count) if (count := self.counts.get(label, 0)) else 1.0
            for label in self.labels
        }

    @property
    def commonest(self) -> str:
        """The answer that needs no text: the commonest label, the labels of more than half the rows, or the mean."""
        if self.kind == "single":
            return max(self.labels, key=lambda label: (self.counts.get(label, 0), label)) if self.labels else ""
        return self.answer_of([0.0] if self.kind == "regression" else [self._share(label) for label in self.labels])

    def _share(self, label: str) -> float:
        return self.counts.get(label, 0) / max(1, self.rows)


def find_labels(kind: LabelsKind, listed: Sequence[str], rows: Sequence[Row]) -> LabelSet:
    """Return the labels of a task: those that it lists, or those of its training rows, sorted; and how often they are.

    Rows whose answer is no label of any kind are passed over; encoding refuses them.

    Raises:
        BadInput: there is nothing to tell apart, or labels are listed for numbers.
    """
    if kind == "regression":
        return _numbers(listed, rows)
    counts, used = _counts(kind, rows)
    labels = tuple(listed) if listed else tuple(sorted(counts))
    if len(set(labels)) < len(labels):
        raise BadInput("a label is listed twice", where="labels", fix="list each once")
    if len(labels) < (2 if kind == "single" else 1):
        what = f'there is only one label, "{labels[0][:60]}"' if labels else "there are no labels"
        raise BadInput(f"{what}, so there is nothing to tell apart", where="labels", fix="give rows of several labels")
    return LabelSet(kind, labels, {label: counts[label] for label in labels}, used, listed=bool(listed))


def count_labels(kind: LabelsKind, rows: Sequence[Row]) -> dict[str, int]:
    """Return how many rows have each label, the commonest first; nothing for numbers."""
    if kind == "regression":
        return {}
    return dict(sorted(_counts(kind, rows)[0].items(), key=lambda entry: (-entry[1], entry[0])))


def value_of(answer: str) -> float:
    """Return the number that an answer is.

    Raises:
        LabelFault: it is none, or not finite.
    """
    try:
        value = float(answer)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LabelFault("bad_label", f'the label "{answer[:60]}" is not a number, and labels_kind is regression')
    return value


def _numbers(listed: Sequence[str], rows: Sequence[Row]) -> LabelSet:
    if listed:
        raise BadInput("labels_kind: regression has numbers, not labels", where="labels", fix="leave labels out")
    values = []
    for row in rows:
        try:
            values.append(value_of(row.reference))
        except LabelFault:
            continue
    if not values:
        return LabelSet("regression")
    scale = float(np.std(values))
    if len(values) > 1 and not scale:
        raise BadInput(f"every value is {values[0]:g}, so there is nothing to learn", where="data.train")
    return LabelSet("regression", rows=len(values), mean=float(np.mean(values)), scale=scale or 1.0)


def _counts(kind: LabelsKind, rows: Sequence[Row]) -> tuple[Counter[str], int]:
    counts: Counter[str] = Counter()
    used = 0
    for row in rows:
        try:
            names = _list_of(row.reference) if kind == "multi" else [row.reference.strip()]
        except LabelFault:
            continue
        if row.messages is not None and (names != [""]):
            counts.update(names)
            used += 1
    return counts, used


def _list_of(answer: str) -> list[str]:
    try:
        names = json.loads(answer)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise LabelFault(
            "bad_label", f'the label "{answer[:60]}" is not a JSON list of names, and labels_kind is multi'
        )
    return names
