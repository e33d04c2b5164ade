"""Several contrasts at once: p values adjusted for their number, and one of four verdicts for each.

Two states are never enough: *better*, *worse*, *non-inferior* (not worse by more than the margin) and *no evidence*,
which is not "equal". It does not compute intervals.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from luthier.evaluation.intervals import Interval
from luthier.evaluation.paired import MIN_CLUSTERS, PairedResult, detectable
from luthier.evaluation.power import items_for_moment, items_needed

Verdict = Literal["better", "worse", "no evidence", "non-inferior"]


@dataclass(frozen=True)
class Finished:
    """A contrast judged among its fellows.

    Attributes:
        result: the contrast itself.
        p_holm: its p adjusted for the number of contrasts.
        verdict: of the first system against the second.
        detectable: smallest difference that would have been seen with 80 % power even as the first of all in Holm's
            order (at alpha divided by the number of contrasts).
        more_items: how many items more would show the difference that was seen, by the same standard; `None` when it
            is shown already, when it is 0, or when more items alone would not do (too few clusters).
    """

    result: PairedResult
    p_holm: float
    verdict: Verdict
    detectable: float
    more_items: int | None


def finish(contrasts: Sequence[PairedResult], margin: float, *, alpha: float = 0.05) -> list[Finished]:
    """Adjust the p values of all pre-declared contrasts (Holm) and give each its verdict.

    `margin` is the loss that would still count as non-inferior.
    """
    adjusted = holm([result.p for result in contrasts])
    strict_alpha = alpha / max(1, len(contrasts))
    return [_finish_one(result, p, margin, alpha, strict_alpha) for result, p in zip(contrasts, adjusted, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted by Holm's (1979) step-down: the k-th smallest of m times m - k + 1, made monotone."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def verdict(difference: float, interval: Interval, p_holm: float, margin: float, *, alpha: float = 0.05) -> Verdict:
    """Return what may be said. A difference is claimed only when interval and adjusted p both exclude none.

    Non-inferior means that the whole interval lies above -margin; a shown loss is called worse even within the margin.
    """
    if p_holm <= alpha and difference > 0 and interval.low > 0:
        return "better"
    if p_holm <= alpha and difference < 0 and interval.high < 0:
        return "worse"
    return "non-inferior" if interval.low > -margin else "no evidence"


def _finish_one(result: PairedResult, p_holm: float, margin: float, alpha: float, strict_alpha: float) -> Finished:
    judged = verdict(result.difference, result.interval, p_holm, margin, alpha=alpha)
    seen = detectable(result.n / result.design_effect, result.second_moment, binary=result.binary, alpha=strict_alpha)
    return Finished(
        result=result,
        p_holm=p_holm,
        verdict=judged,
        detectable=seen if result.claimable else 1.0,
        more_items=None if judged in ("better", "worse") else _more_items(result, strict_alpha),
    )


def _more_items(result: PairedResult, alpha: float) -> int | None:
    if result.n == 0 or (result.clusters is not None and result.clusters < MIN_CLUSTERS):
        return None
    solve = items_needed if result.binary else items_for_moment
    needed = solve(result.difference, result.second_moment, alpha=alpha)
    return None if needed is None else max(1, math.ceil(needed * result.design_effect) - result.n)
