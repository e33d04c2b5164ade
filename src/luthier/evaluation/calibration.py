"""Calibration: whether answers that are called 80 % sure are right as often (Guo et al. 2017, arXiv:1706.04599).

Confidences are those of the answers given; which probability that is, the caller decides. Nothing is recalibrated here.

    >>> calibration_error(reliability([0.9, 0.9, 0.9, 0.9], [1, 1, 1, 0]))
    0.15
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luthier.ground.objective_results import CalibrationBin

BINS = 15


def reliability(confidences: Sequence[float], right: Sequence[float], bins: int = BINS) -> list[CalibrationBin]:
    """Return bins of equal width over [0, 1] with the mean confidence and accuracy of each; (low, high], none empty.

    Args:
        confidences: the probability of each answer given, [N].
        right: 1 for right answers, 0 for wrong ones, [N].
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    place_N = np.clip(np.ceil(np.asarray(confidences, float) * bins - 1e-9).astype(int) - 1, 0, bins - 1)
    return _bins(confidences, right, [(place_N == b, edges[b], edges[b + 1]) for b in range(bins)])


def adaptive_reliability(
    confidences: Sequence[float], right: Sequence[float], bins: int = BINS
) -> list[CalibrationBin]:
    """Return bins of equally many answers (Nixon et al. 2019), the least sure first."""
    order = np.argsort(np.asarray(confidences, float), kind="stable")
    masks = []
    for part in np.array_split(order, min(bins, len(order))) if len(order) else []:
        mask_N = np.zeros(len(order), bool)
        mask_N[part] = True
        masks.append((mask_N, confidences[int(part[0])], confidences[int(part[-1])]))
    return _bins(confidences, right, masks)


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Return the expected calibration error: Σ n_b / N · |accuracy_b − confidence_b|; 0 without answers."""
    total = sum(one.n for one in bins)
    error = sum(one.n * abs(one.accuracy - one.confidence) for one in bins) / total if total else 0.0
    return round(error, 12)


def _bins(
    confidences: Sequence[float], right: Sequence[float], parts: Sequence[tuple[np.ndarray, float, float]]
) -> list[CalibrationBin]:
    sure_N, right_N = np.asarray(confidences, float), np.asarray(right, float)
    return [
        CalibrationBin(
            low=float(low),
            high=float(high),
            n=int(mask_N.sum()),
            confidence=float(sure_N[mask_N].mean()),
            accuracy=float(right_N[mask_N].mean()),
        )
        for mask_N, low, high in parts
        if mask_N.any()
    ]
