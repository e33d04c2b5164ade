"""The contract of a metric: it compares one answer with one reference and returns a score between 0 and 1.

A metric is a function `(output, reference, context) -> Score | float | bool` registered with `@metric(...)`, or any
object with `name`, `binary`, `parts` and `score`. Here stand the contract, the registry and the few functions through
which callers score; averages, intervals and verdicts are the business of `luthier.evaluation.statistics`.

    score = score_item(METRICS.get("exact_match"), "item-7", "42", "42", MetricContext())
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from luthier.ground.errors import BadInput
from luthier.ground.registry import Registry

_SAME_AS_VALUE = float("nan")  # the default of `Score.graded`, recognised by identity


@dataclass(frozen=True)
class Score:
    """What one answer is worth; every number lies in [0, 1].

    Args:
        value: the score itself.
        parts: named sub-scores, such as `{"parse": 1.0, "field_f1": 0.5}`.
        graded: a continuous tie-breaker for choosing prompts on dev, where `value` may be 0 for all (default: `value`).
    """

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    graded: float = _SAME_AS_VALUE

    def __post_init__(self) -> None:
        if self.graded is _SAME_AS_VALUE:
            object.__setattr__(self, "graded", self.value)
        for name, number in (("value", self.value), ("graded", self.graded), *self.parts.items()):
            if isinstance(number, bool) or not isinstance(number, int | float) or not 0.0 <= number <= 1.0:
                raise BadInput(f"the {name} of a score must be a number from 0 to 1, not {number!r}")


@dataclass(frozen=True)
class Part:
    """A named sub-score: 0/1 or continuous, and reported always or only when the context has what it needs."""

    name: str
    binary: bool = True
    needs: Literal["", "schema", "labels", "facts"] = ""

    def applies(self, context: MetricContext) -> bool:
        return not self.needs or bool(getattr(context, self.needs))


@dataclass(frozen=True)
class MetricContext:
    """What a task knows about its answers.

    Args:
        schema: the JSON schema of an answer.
        labels: the closed set of labels.
        facts: names of the fields of the reference object whose values are facts (dots reach into objects).
        before, after: the text around the gap that this answer fills, where the item is a text with a gap.
        source: the input of this item, such as the sentence that is to be corrected.
    """

    schema: Mapping[str, Any] | None = None
    labels: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    before: str = ""
    after: str = ""
    source: str = ""


class Metric(Protocol):
    """Anything that scores one answer.

    `binary` promises values of exactly 0 or 1, so that paired-binary statistics apply. `score` must be deterministic,
    must accept any text as output (the empty one included), and must give a reference compared with itself the value 1.
    It raises `BadInput` when the reference is not one it can use. `conformance.check_metric` checks all of this.
    """

    @property
    def name(self) -> str: ...

    @property
    def binary(self) -> bool: ...

    @property
    def parts(self) -> tuple[Part, ...]: ...

    def score(self, output: str, reference: str, context: MetricContext) -> Score: ...


MetricFunction = Callable[[str, str, MetricContext], Score | float | bool]


@dataclass(frozen=True)
class FunctionMetric:
    """A metric made of one function."""

    name: str
    function: MetricFunction
    binary: bool = False
    parts: tuple[Part, ...] = ()

    def score(self, output: str, reference: str, context: MetricContext) -> Score:
        return as_score(self.function(output, reference, context))


METRICS: Registry[Metric] = Registry(
    group="luthier.metrics",
    kind="metric",
    modules=tuple(
        f"luthier.evaluation.metrics.{room}"
        for room in ("text", "labels", "numbers", "json_match", "chrf", "gleu", "edit_similarity", "code", "tool_calls")
    ),
    missing=lambda entry: _what_is_missing(entry),
)


def metric(name: str, *, binary: bool, parts: tuple[Part, ...] = ()) -> Callable[[MetricFunction], FunctionMetric]:
    """Return a decorator that makes a function a metric and registers it as built in."""

    def enter(function: MetricFunction) -> FunctionMetric:
        made = FunctionMetric(name=name, function=function, binary=binary, parts=parts)
        METRICS.register(name)(made)
        return made

    return enter


def score_item(metric: Metric, item: str, output: str | None, reference: str, context: MetricContext) -> Score:
    """Score the answer to one item; a failed generation (`None`) is scored 0 in everything.

    Raises:
        BadInput: the metric cannot use the reference, fails, or breaks its promises; the sentence names the item.
    """
    if output is None:
        return failed_score(metric, context)
    try:
        score = as_score(metric.score(output, reference, context))
        _refuse_broken_promise(metric, score, context)
    except BadInput as error:
        where = f"{error.where}, item {item}" if error.where else f"item {item}"
        raise BadInput(error.what, where=where, fix=error.fix) from None
    except Exception as error:  # a plug-in may fail in any way, and its fault must not look like ours
        what = f"the metric {metric.name} fails with {type(error).__name__}: {' '.join(str(error).split())}"
        raise BadInput(what, where=f"item {item}", fix="mend the metric") from error
    return score


def failed_score(metric: Metric, context: MetricContext) -> Score:
    """Return the score of a failed or missing answer: 0 in the value and in every part that the context calls for."""
    return Score(0.0, {part.name: 0.0 for part in metric.parts if part.applies(context)})


def check_references(metric: Metric, references: Iterable[tuple[str, str]], context: MetricContext) -> None:
    """Refuse references (pairs of item and text) that would not be right even if a system answered with them.

    Worth calling before the first answer is generated: it finds references that are not JSON, break the schema, lack a
    fact or carry an unknown label.
    """
    for item, reference in references:
        score = score_item(metric, item, reference, reference, context)
        for name, number in (("value", score.value), *score.parts.items()):
            if number < 1.0:
                what = f"the reference itself gets only {number:g} in {name} of the metric {metric.name}"
                raise BadInput(what, where=f"item {item}", fix="mend the reference, or the schema, labels or facts")


def as_score(result: Score | float | bool) -> Score:
    """Return the score that a metric function meant: itself, or one made of a number or a truth value."""
    if isinstance(result, Score):
        return result
    if not isinstance(result, bool | int | float):
        raise BadInput(f"a metric must return a number from 0 to 1, a truth value or a Score, not {result!r:.60}")
    if not math.isfinite(result) or not 0.0 <= result <= 1.0:
        raise BadInput(f"a metric must return a number from 0 to 1, not {result!r}")
    return Score(float(result))


def broken_promises(metric: Metric, score: Score, context: MetricContext) -> list[str]:
    """Return in words what a score has that its metric did not promise, or lacks."""
    wanted = {part.name: part.binary for part in metric.parts if part.applies(context)}
    faults = []
    if set(score.parts) != set(wanted):
        faults.append(f"it has the parts {sorted(score.parts)} where {sorted(wanted)} were declared")
    if metric.binary and score.value not in (0.0, 1.0):
        faults.append(f"its value is {score.value:g} though it is declared binary")
    for name, number in score.parts.items():
        if wanted.get(name) and number not in (0.0, 1.0):
            faults.append(f"its part {name} is {number:g} though it is declared binary")
    return faults


def _refuse_broken_promise(metric: Metric, score: Score, context: MetricContext) -> None:
    faults = broken_promises(metric, score, context)
    if faults:
        raise BadInput(f"a score of the metric {metric.name} is not as declared: {faults[0]}", fix="mend the metric")


def _what_is_missing(entry: object) -> str | None:
    if isinstance(entry, type):
        return "the entry point names a class where an object was wanted"
    lacking = [name for name in ("name", "binary", "parts", "score") if not hasattr(entry, name)]
    return f"it lacks {', '.join(lacking)}" if lacking else None
