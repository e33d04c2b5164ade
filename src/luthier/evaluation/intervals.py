"""Confidence intervals: one proportion, a paired difference of proportions, a mean, with or without clusters.

Each is defined for every input, none returns NaN, and none claims certainty because a small sample happens to agree.
Tests and verdicts live in `paired.py` and `multiplicity.py`.

    >>> [round(limit, 3) for limit in wilson(8, 10)]
    [0.49, 0.943]
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import binom
from scipy.stats import t as student_t

from luthier.evaluation.units import Floats, Units
from luthier.ground.errors import BadInput

MIN_UNITS_FOR_BOOTSTRAP = 10  # below this the t interval covers better (simulated, tests/evaluation)
_DRAWS_AT_ONCE = 4_000_000  # bounds the memory of one batch of resamples to some 100 MB


class Interval(NamedTuple):
    """Two limits, `low <= high`."""

    low: float
    high: float

    def hull(self, other: Interval) -> Interval:
        """Return the smallest interval that holds both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return the score interval of a proportion (Wilson 1927); (0, 1) without items.

    With z the normal quantile and p = successes / n:
    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    """
    if not 0 <= successes <= n:
        raise BadInput(f"{successes} successes of {n} are impossible")
    if n == 0:
        return Interval(0.0, 1.0)
    z = _normal_quantile(level)
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(0.0 if successes == 0 else middle - half, 1.0 if successes == n else middle + half)


def newcombe_paired(n11: int, n10: int, n01: int, n00: int, level: float = 0.95) -> Interval:
    """Return the interval of p₁ - p₂ for paired binary outcomes: method 10 of Newcombe (1998), Stat. Med. 17:2635-2650.

    `n10` counts the items that only the first system gets right. With (lᵢ, uᵢ) the Wilson limits of pᵢ, D = p₁ - p₂ and
    φ the correlation, its numerator n11·n00 - n10·n01 reduced by n/2 towards 0 when positive:
    D - √((p₁-l₁)² - 2φ(p₁-l₁)(u₂-p₂) + (u₂-p₂)²)  to  D + √((u₁-p₁)² - 2φ(u₁-p₁)(p₂-l₂) + (p₂-l₂)²).
    """
    n = n11 + n10 + n01 + n00
    if n == 0:
        return Interval(-1.0, 1.0)
    p1, p2 = (n11 + n10) / n, (n11 + n01) / n
    (low1, high1), (low2, high2) = wilson(n11 + n10, n, level), wilson(n11 + n01, n, level)
    phi = _corrected_phi(n11, n10, n01, n00)
    below = _hypotenuse(p1 - low1, high2 - p2, phi)
    above = _hypotenuse(high1 - p1, p2 - low2, phi)
    difference = (n10 - n01) / n
    return Interval(max(-1.0, difference - below), min(1.0, difference + above))


def midp_paired(n10: int, n01: int, n: int, level: float = 0.95) -> Interval:
    """Return the interval of a paired difference that McNemar's mid-p inverts, given the share of discordant items.

    The share θ of discordant items that the first system wins has mid-p limits: P(X > k) + P(X = k)/2 = α/2 at the
    lower one. The difference is (2θ - 1) times the discordant share. It holds 0 when mid-p exceeds 1 - level, and so
    mends the rare tables of a few items where Newcombe's interval excludes 0 and mid-p does not.
    """
    discordant = n10 + n01
    if discordant == 0:
        return Interval(0.0, 0.0)
    tail = (1 - level) / 2
    low = 0.0 if n10 == 0 else float(brentq(lambda theta: _midp_above(n10, discordant, theta) - tail, 0.0, 1.0))
    high = 1.0 if n01 == 0 else 1 - float(brentq(lambda theta: _midp_above(n01, discordant, theta) - tail, 0.0, 1.0))
    return Interval((2 * low - 1) * discordant / n, (2 * high - 1) * discordant / n)


def bootstrap_interval(units: Units, low: float, high: float, *, level: float, resamples: int, seed: int) -> Interval:
    """Return the interval of a mean by resampling units: BCa (Efron 1987) with Hesterberg's (2015) expansion.

    BCa corrects for bias and skew; its normal quantiles are replaced by √(C/(C-1)) t_{C-1}, which undoes the narrowness
    of bootstrap intervals on few units. Of percentile, expanded percentile, BCa, bootstrap-t and this one, it covered
    best over skewed, zero-heavy and sparse scores. With fewer than 10 units it is the t interval. Negating all scores
    negates the interval exactly. `low` and `high` bound the mean.
    """
    mirrored, turned = units.negated(), False
    if _key(mirrored) > _key(units):
        units, mirrored, turned = mirrored, units, True
        low, high = -high, -low
    if not units.residuals.any() or len(units) < MIN_UNITS_FOR_BOOTSTRAP:
        interval = t_interval(units, low, high, level=level)
    else:
        interval = _bca(units, level=level, resamples=resamples, seed=seed)
    if low == -high and _key(units) == _key(mirrored):
        half = (interval.high - interval.low) / 2  # the data are their own mirror image, so must be the interval
        interval = Interval(-half, half)
    clipped = _clip(interval.hull(Interval(units.mean, units.mean)), low, high)
    return Interval(-clipped.high, -clipped.low) if turned else clipped


def t_interval(units: Units, low: float, high: float, *, level: float) -> Interval:
    """Return the mean ± t_{C-1} standard errors over C units, within [low, high].

    When all units agree there is no standard error; then a share w of units could still lie at either bound, with w
    the upper Wilson limit of 0 out of C, so that three equal scores prove nothing.
    """
    if len(units) < 2:
        return Interval(low, high)
    if not units.residuals.any():
        unseen = wilson(0, len(units), level).high
        return Interval(units.mean - unseen * (units.mean - low), units.mean + unseen * (high - units.mean))
    reach = float(student_t.ppf((1 + level) / 2, len(units) - 1)) * standard_error(units)
    return _clip(Interval(units.mean - reach, units.mean + reach), low, high)


def standard_error(units: Units) -> float:
    """Return the jackknife standard error of the mean over items when units vary independently (CR3).

    With residuals u_c and shares h_c = size_c / n: √((C-1)/C · Σ (u_c / (1-h_c))²) / n (Bell and McCaffrey 2002; for
    units of equal size it is the usual one). 0 when the units agree or there are fewer than two.
    """
    if len(units) < 2:
        return 0.0
    left_out = units.residuals / (1 - units.sizes / units.n)
    return math.sqrt((len(units) - 1) / len(units) * math.fsum(left_out**2)) / units.n


def _key(units: Units) -> tuple[float, list[float], list[float]]:
    return units.mean, units.sums.tolist(), units.sizes.tolist()


def _bca(units: Units, *, level: float, resamples: int, seed: int) -> Interval:
    means = _resampled_means(units, resamples, seed)
    below = ((means < units.mean - 1e-12).mean() + (means <= units.mean + 1e-12).mean()) / 2
    bias = ndtri(np.clip(below, 1 / resamples, 1 - 1 / resamples))
    residuals = units.residuals
    skew = (residuals**3).sum() / (6 * (residuals**2).sum() ** 1.5)
    count = len(units)
    wide = math.sqrt(count / (count - 1)) * student_t.ppf([(1 - level) / 2, (1 + level) / 2], count - 1)
    stretched = bias + (bias + wide) / np.maximum(1 - skew * (bias + wide), 0.1)
    low, high = np.quantile(means, ndtr(stretched))
    return Interval(float(low), float(high))


def _resampled_means(units: Units, resamples: int, seed: int) -> Floats:
    random = np.random.default_rng(seed)
    count = len(units)
    batch = max(1, _DRAWS_AT_ONCE // count)
    means = []
    for start in range(0, resamples, batch):
        picks = random.integers(0, count, size=(min(batch, resamples - start), count))
        sums = units.sums[picks].sum(axis=1)
        means.append(sums / units.sizes[picks].sum(axis=1) if units.clustered else sums / count)
    joined: Floats = np.concatenate(means)
    return joined


def _normal_quantile(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise BadInput(f"a confidence level lies between 0 and 1, not at {level}")
    return float(ndtri((1 + level) / 2))


def _midp_above(wins: int, trials: int, theta: float) -> float:
    return float(binom.sf(wins, trials, theta) + binom.pmf(wins, trials, theta) / 2)


def _corrected_phi(n11: int, n10: int, n01: int, n00: int) -> float:
    margins = (n11 + n10) * (n01 + n00) * (n11 + n01) * (n10 + n00)
    if margins == 0:
        return 0.0
    excess = float(n11 * n00 - n10 * n01)
    if excess > 0:
        excess = max(excess - (n11 + n10 + n01 + n00) / 2, 0.0)
    return excess / math.sqrt(margins)


def _hypotenuse(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _clip(interval: Interval, low: float, high: float) -> Interval:
    return Interval(min(max(interval.low, low), high), max(min(interval.high, high), low))
