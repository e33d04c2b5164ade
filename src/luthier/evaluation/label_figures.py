"""The figures of classifiers and of regression, with bootstrap intervals where they are no means of scores.

Items, or whole clusters of them, are drawn anew; an interval is made of the percentiles of what comes out. Everything
is computed from counts per item, so that thousands of draws are one matrix product. Texts are not known here.

    f1_scores(counts_of(true_NL, said_NL)).mean()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Span = tuple[float, float]

RESAMPLES = 2000
_DRAWS_AT_ONCE = 1_000_000  # numbers of one matrix of draws


def outcomes(true_NL: Bools, said_NL: Bools) -> Floats:
    """Return for each item and label whether it is a true positive, a false positive, a false negative: [N, 3, L]."""
    return np.stack([true_NL & said_NL, ~true_NL & said_NL, true_NL & ~said_NL], axis=1).astype(np.float64)


def f1_scores(counts_3L: Floats) -> Floats:
    """Return F1 = 2 tp / (2 tp + fp + fn) of each label, NaN for one that nobody has and nobody says; [..., L]."""
    tp, fp, fn = (counts_3L[..., k, :] for k in range(3))
    whole = 2 * tp + fp + fn
    return np.divide(2 * tp, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def macro_f1(counts_3L: Floats) -> Floats:
    """Return the mean F1 over the labels that occur, 0 if none does; [...]."""
    scores = f1_scores(counts_3L)
    there = ~np.isnan(scores)
    total = np.where(there, scores, 0.0).sum(-1)
    return np.asarray(total / np.maximum(there.sum(-1), 1))


def micro_f1(counts_3L: Floats) -> float:
    """Return F1 over all labels' counts together."""
    return float(np.nan_to_num(f1_scores(counts_3L.sum(-1, keepdims=True)))[..., 0])


def macro_f1_interval(
    outcomes_N3L: Floats, clusters: Sequence[str] | None, *, level: float, seed: int, resamples: int = RESAMPLES
) -> Span:
    """Return the percentile bootstrap interval of macro-F1."""
    sums_C3L = _by_cluster(outcomes_N3L, clusters)
    flat_CK = sums_C3L.reshape(len(sums_C3L), -1)
    draws = [
        macro_f1((times_BC @ flat_CK).reshape(len(times_BC), *sums_C3L.shape[1:]))
        for times_BC in _times(len(flat_CK), resamples, seed)
    ]
    return _span(np.concatenate(draws), level)


def value_figures(
    true_N: Floats, said_N: Floats, clusters: Sequence[str] | None, *, level: float, seed: int, resamples: int = 1000
) -> dict[str, tuple[float, Span]]:
    """Return mean absolute and root mean squared error, Pearson's and Spearman's correlation, each with its interval.

    A correlation of what does not vary is 0.
    """
    functions: dict[str, Callable[[Floats, Floats], float]] = {
        "mean_absolute_error": lambda a, b: float(np.abs(a - b).mean()),
        "root_mean_squared_error": lambda a, b: float(np.sqrt(np.square(a - b).mean())),
        "pearson": pearson,
        "spearman": lambda a, b: pearson(rankdata(a), rankdata(b)),
    }
    members = _members(len(true_N), clusters)
    random = np.random.default_rng(seed)
    picks = [
        np.concatenate([members[c] for c in random.integers(0, len(members), len(members))]) for _ in range(resamples)
    ]
    return {
        name: (
            function(true_N, said_N),
            _span(np.array([function(true_N[pick], said_N[pick]) for pick in picks]), level),
        )
        for name, function in functions.items()
    }


def pearson(a_N: Floats, b_N: Floats) -> float:
    """Return Pearson's correlation; 0 if one of both does not vary."""
    a, b = a_N - a_N.mean(), b_N - b_N.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def _members(count: int, clusters: Sequence[str] | None) -> list[npt.NDArray[np.int64]]:
    if clusters is None:
        return [np.array([item], dtype=np.int64) for item in range(count)]
    found: dict[str, list[int]] = {}
    for item, name in enumerate(clusters):
        found.setdefault(name, []).append(item)
    return [np.array(items, dtype=np.int64) for items in found.values()]


def _by_cluster(values_N: Floats, clusters: Sequence[str] | None) -> Floats:
    if clusters is None:
        return values_N
    return np.stack([values_N[items].sum(0) for items in _members(len(values_N), clusters)])


def _times(units: int, resamples: int, seed: int) -> list[Floats]:
    """Return how often each unit is drawn in each resample, [B, C], in parts."""
    random = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // max(units, 1))
    parts = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    return [random.multinomial(units, np.full(units, 1 / units), size=part).astype(np.float64) for part in parts]


def _span(draws: Floats, level: float) -> Span:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
