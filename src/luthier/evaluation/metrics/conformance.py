"""The check that every metric must pass, built in or not. It judges the contract, not whether the metric is wise.

>>> from luthier.evaluation.metrics.base import METRICS
>>> check_metric(METRICS.get("exact_match"))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from luthier.evaluation.metrics.base import Metric, MetricContext, Part, Score, broken_promises
from luthier.ground.errors import BadInput, Refused

REFERENCES = (
    "",
    "yes",
    "The answer is 42.",
    "-12.5",
    '["yes", "no"]',
    "größer\n — 漢字 🙂",
    '{"code": "BX-36", "days": 365, "actions": ["ship"]}',
)
OUTPUTS = (
    "", " \n\t", "no", "42", "NaN", "null", "[]", "{}", '{"code": "BX-36"', '```json\n{"days": 365}\n```', "[" * 2000,
    "\x00\u2028\u200b", "e\u0301", "\\ud800", "a" * 5000, '"' * 999, "٣٦", "{" + "\\" * 99, "- - -", "%s %d {0}",
)  # fmt: skip


def check_metric(
    metric: Metric,
    *,
    references: Sequence[str] = REFERENCES,
    outputs: Sequence[str] = OUTPUTS,
    context: MetricContext | None = None,
) -> None:
    """Refuse a metric that breaks its contract, naming up to five faults.

    A reference that the metric itself refuses (`BadInput`) is passed over, but not all of them may be.

    Raises:
        Refused: a number outside [0, 1], a reference that is not 1 against itself, an answer on which it raises,
            another score the second time, parts that are not as declared, or a declaration that is none.
    """
    faults = list(dict.fromkeys(_faults(metric, references, outputs, context or MetricContext())))
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        what = f"the metric {getattr(metric, 'name', metric)!s} breaks its contract: {', '.join(faults[:5])}{more}"
        raise Refused(what, fix="mend the metric")


def _faults(metric: Metric, references: Sequence[str], outputs: Sequence[str], context: MetricContext) -> Iterator[str]:
    yield from _declaration_faults(metric)
    accepted = 0
    for reference in references:
        try:
            itself = metric.score(reference, reference, context)
        except BadInput:
            continue
        except Exception as error:
            yield f"it raises {type(error).__name__} on the reference {_short(reference)}"
            continue
        accepted += 1
        if isinstance(itself, Score) and (itself.value != 1.0 or itself.graded != 1.0):
            yield f"the reference {_short(reference)} against itself gets {itself.value:g} (graded {itself.graded:g})"
        for output in (reference, "", *outputs):
            yield from _output_faults(metric, output, reference, context)
    if not accepted:
        yield "it accepts none of the references"


def _declaration_faults(metric: Metric) -> Iterator[str]:
    if not isinstance(metric.name, str) or not metric.name:
        yield "its name is not a text"
    if not isinstance(metric.binary, bool):
        yield "binary is not a truth value"
    if not isinstance(metric.parts, tuple) or not all(isinstance(part, Part) for part in metric.parts):
        yield "its parts are not a tuple of Part"
    elif len({part.name for part in metric.parts}) < len(metric.parts):
        yield "two of its parts share a name"


def _output_faults(metric: Metric, output: str, reference: str, context: MetricContext) -> Iterator[str]:
    try:
        first, second = (metric.score(output, reference, context) for _ in range(2))
    except Exception as error:
        yield f"it raises {type(error).__name__} on the answer {_short(output)}"
        return
    if not isinstance(first, Score):
        yield f"it returns a {type(first).__name__}, not a Score"
        return
    if first != second:
        yield f"it gives the answer {_short(output)} two different scores"
    yield from broken_promises(metric, first, context)


def _short(text: str) -> str:
    return ascii(text if len(text) <= 30 else text[:29] + "…")
