"""The metrics of answers that are one number: `closeness`, which is graded, and `within`, which is yes or no.

Both are relative, so they need no scale. Correlations over all items are in `luthier.evaluation.classification`.

>>> within.score("about 104", "100", MetricContext()).value
1.0
>>> round(closeness.score("50", "100", MetricContext()).value, 3)
0.667
"""

from __future__ import annotations

import math
import re

from luthier.evaluation.metrics.base import MetricContext, Part, Score, metric
from luthier.ground.errors import BadInput

TOLERANCE = 0.1  # of `within`: a share of the reference
_NUMBER = re.compile(r"[-+−]?(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]*\.?[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")


@metric("closeness", binary=False, parts=(Part("number"), Part("within")))
def closeness(output: str, reference: str, context: MetricContext) -> Score:  # noqa: ARG001  # the contract's
    """1 − |answer − reference| / (|answer| + |reference|) (Canberra); 0 without a number or with the wrong sign.

    Part `number`: there is a number in the answer. Part `within`: it is within 10 % of the reference.
    """
    wanted, said = _reference(reference), number_in(output)
    if said is None:
        return Score(0.0, {"number": 0.0, "within": 0.0})
    size = abs(said) + abs(wanted)
    value = 1.0 if said == wanted else max(0.0, 1 - abs(said - wanted) / size) if math.isfinite(size) else 0.0
    return Score(value, {"number": 1.0, "within": _within(said, wanted)})


@metric("within", binary=True, parts=(Part("number"),))
def within(output: str, reference: str, context: MetricContext) -> Score:  # noqa: ARG001  # the contract's
    """1 if the first number of the answer is within 10 % of the reference. Part `number`: there is one."""
    wanted, said = _reference(reference), number_in(output)
    if said is None:
        return Score(0.0, {"number": 0.0})
    return Score(_within(said, wanted), {"number": 1.0})


def number_in(text: str) -> float | None:
    """Return the first number that is written in a text, or None."""
    found = _NUMBER.search(text)
    if found is None:
        return None
    value = float(found[0].replace(",", "").replace("−", "-"))
    return value if math.isfinite(value) else None


def _within(said: float, wanted: float) -> float:
    return float(abs(said - wanted) <= TOLERANCE * abs(wanted))


def _reference(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInput("the reference is not a number", fix="write it in digits")
    return value
