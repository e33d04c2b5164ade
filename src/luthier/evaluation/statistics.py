"""The statistics of a comparison, in the order of use: summarise each system, contrast pairs, finish all contrasts.

This is the door to `intervals`, `paired`, `power` and `multiplicity`, where the methods and their sources stand. It
knows scores per item and nothing of models, prompts or metrics.

    summary = summarise(scores, binary=True)
    results = [contrast(finetuned, prompt, binary=True, clusters=None, seed=0)]
    verdicts = finish(results, margin=0.03)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.evaluation.intervals import Interval, bootstrap_interval, newcombe_paired, t_interval, wilson
from luthier.evaluation.multiplicity import Finished, Verdict, finish, holm, verdict
from luthier.evaluation.paired import (
    MIN_CLUSTERS,
    RESAMPLES,
    PairedResult,
    check_scores,
    contrast,
    mcnemar_midp,
    paired_bootstrap,
    sign_flip_p,
)
from luthier.evaluation.power import detectable_difference, items_needed
from luthier.evaluation.units import group_units

__all__ = [
    "MIN_CLUSTERS",
    "Finished",
    "Interval",
    "PairedResult",
    "Summary",
    "Verdict",
    "bootstrap_mean",
    "contrast",
    "detectable_difference",
    "finish",
    "holm",
    "items_needed",
    "mcnemar_midp",
    "newcombe_paired",
    "paired_bootstrap",
    "sign_flip_p",
    "summarise",
    "verdict",
    "wilson",
]


@dataclass(frozen=True)
class Summary:
    """The mean score of one system and what it is worth."""

    mean: float
    interval: Interval
    n: int
    method: str


def summarise(
    scores: Sequence[float],
    *,
    binary: bool,
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Summary:
    """Return mean and interval of one system's scores in [0, 1]: Wilson for right or wrong, otherwise the bootstrap.

    Binary scores in clusters get the wider of Wilson and the cluster-robust t interval.
    """
    check_scores(scores, binary=binary)
    units = group_units([float(score) for score in scores], clusters)
    if not binary:
        interval = bootstrap_mean(scores, seed=seed, level=level, clusters=clusters)
        return Summary(units.mean, interval, units.n, "bootstrap (BCa)")
    interval = wilson(round(sum(scores)), len(scores), level)
    if not units.clustered:
        return Summary(units.mean, interval, units.n, "Wilson")
    robust = t_interval(units, 0.0, 1.0, level=level)
    return Summary(units.mean, interval.hull(robust), units.n, f"cluster-robust t over {len(units)} clusters")


def bootstrap_mean(
    values: Sequence[float],
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    clusters: Sequence[str] | None = None,
) -> Interval:
    """Return the interval of the mean of scores in [0, 1], resampling items or whole clusters; (0, 1) without items."""
    check_scores(values, binary=False)
    units = group_units([float(value) for value in values], clusters)
    return bootstrap_interval(units, 0.0, 1.0, level=level, resamples=resamples, seed=seed)
