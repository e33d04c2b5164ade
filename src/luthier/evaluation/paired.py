"""Two systems on the same items: the difference, its interval and its p, for one contrast at a time.

`contrast` chooses the method from what the scores are: Newcombe and McNemar for right or wrong, the bootstrap and sign
flips for continuous scores, cluster-robust forms of both where items belong together. It gives no verdict: that takes
all contrasts at once (`multiplicity.finish`).

    >>> contrast([1, 1, 1, 0] * 25, [1, 0, 0, 0] * 25, binary=True, clusters=None, seed=0).difference
    0.5
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom
from scipy.stats import t as student_t

from luthier.evaluation.intervals import (
    Interval,
    bootstrap_interval,
    midp_paired,
    newcombe_paired,
    standard_error,
    t_interval,
)
from luthier.evaluation.power import detectable_difference, detectable_for_moment
from luthier.evaluation.units import NEGLIGIBLE, Floats, Units, group_units
from luthier.ground.errors import BadInput

MIN_CLUSTERS = 10  # with fewer, a cluster-robust standard error is itself a guess, and nothing is claimed
RESAMPLES = 10_000
NO_CLAIM = Interval(-1.0, 1.0)
_EXACT_UP_TO = 12  # units whose 2^C sign patterns are all counted


@dataclass(frozen=True)
class PairedResult:
    """The difference a - b of two systems on the same items.

    Attributes:
        difference: mean of a minus mean of b.
        interval: confidence interval of the difference, always holding it, and holding 0 where p exceeds 1 - level.
        p: two-sided, of no difference; not adjusted for other contrasts.
        discordant_share: share of items on which the two scores differ.
        n: items.
        detectable: smallest difference that would have been seen with 80 % power (for this contrast alone); 1 when
            nothing can be claimed.
        method: how interval and p were made, in words.
        second_moment: mean squared difference of one item (for binary scores the discordant share).
        design_effect: how many clustered items count as one independent item, at least 1.
        clusters: how many clusters there are; `None` where every item stands alone.
        binary: whether all scores are 0 or 1.
    """

    difference: float
    interval: Interval
    p: float
    discordant_share: float
    n: int
    detectable: float
    method: str
    second_moment: float
    design_effect: float
    clusters: int | None
    binary: bool

    @property
    def claimable(self) -> bool:
        """Whether there were enough items and clusters to claim anything at all."""
        return self.interval != NO_CLAIM


def contrast(
    scores_a: Sequence[float],
    scores_b: Sequence[float],
    *,
    binary: bool,
    clusters: Sequence[str] | None,
    seed: int,
    level: float = 0.95,
) -> PairedResult:
    """Compare two systems on the same items, scores in [0, 1] and in the same order.

    `contrast(a, b)` is the mirror image of `contrast(b, a)`, and the order of the items does not matter. Clusters of
    one item each count as no clusters. With fewer than 10 clusters the interval is (-1, 1) and p is 1.

    Raises:
        BadInput: lengths differ, a score is not in [0, 1], or not 0 or 1 where `binary` says so.
    """
    _check_scores(scores_a, scores_b, binary)
    differences = [float(a) - float(b) for a, b in zip(scores_a, scores_b, strict=True)]
    units = group_units(differences, clusters)
    interval, p, method = _infer(scores_a, scores_b, units, binary=binary, seed=seed, level=level)
    n = len(differences)
    moment = math.fsum(d * d for d in differences) / n if n else 0.0
    effect = _design_effect(units, moment)
    return PairedResult(
        difference=units.mean,
        interval=interval.hull(Interval(units.mean, units.mean)),
        p=p,
        discordant_share=sum(abs(d) > NEGLIGIBLE for d in differences) / n if n else 0.0,
        n=n,
        detectable=1.0 if interval == NO_CLAIM else detectable(n / effect, moment, binary=binary, alpha=1 - level),
        method=method,
        second_moment=moment,
        design_effect=effect,
        clusters=len(units) if units.clustered else None,
        binary=binary,
    )


def detectable(effective_n: float, second_moment: float, *, binary: bool, alpha: float) -> float:
    """Return the smallest difference that so many independent items would have shown with 80 % power."""
    solve = detectable_difference if binary else detectable_for_moment
    return solve(effective_n, second_moment, alpha=alpha)


def mcnemar_midp(n10: int, n01: int) -> float:
    """Return McNemar's mid-p, two-sided: how surprising so uneven a split of the discordant items is.

    With m = min(n10, n01) and X ~ Binomial(n10 + n01, ½): 2 P(X < m) + P(X = m), and 1 - P(X = m)/2 when the two are
    equal (Fagerland, Lydersen and Laake 2013, BMC Med. Res. Methodol. 13:91). 1 without discordant items.
    """
    total, least = n10 + n01, min(n10, n01)
    if total == 0:
        return 1.0
    here = float(binom.pmf(least, total, 0.5))
    if n10 == n01:
        return 1.0 - here / 2
    return min(1.0, 2 * float(binom.cdf(least, total, 0.5)) - here)


def sign_flip_p(
    differences: Sequence[float], *, seed: int, resamples: int = RESAMPLES, clusters: Sequence[str] | None = None
) -> float:
    """Return the two-sided p of a mean paired difference under random signs (Fisher's randomisation test).

    Under no difference each unit (item, or cluster as a whole) could as well have had the opposite sign. All patterns
    are counted up to 12 units that differ from 0; beyond that p = (1 + hits) / (1 + resamples). 1 without units.
    """
    return _sign_flip_p(group_units(differences, clusters), seed=seed, resamples=resamples)


def paired_bootstrap(
    scores_a: Sequence[float],
    scores_b: Sequence[float],
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    clusters: Sequence[str] | None = None,
) -> Interval:
    """Return the interval of the mean difference a - b of scores in [0, 1], resampling items or whole clusters."""
    _check_scores(scores_a, scores_b, binary=False)
    differences = [float(a) - float(b) for a, b in zip(scores_a, scores_b, strict=True)]
    return bootstrap_interval(
        group_units(differences, clusters), -1.0, 1.0, level=level, resamples=resamples, seed=seed
    )


def clustered_difference(units: Units, *, level: float = 0.95) -> tuple[Interval, float]:
    """Return interval and p of a paired difference whose items are clustered: t with C - 1 degrees of freedom.

    `units` hold the sums of paired differences. The standard error is the jackknife one (CR3), which stays honest when
    clusters differ in size. Where all clusters agree, p is 1.
    """
    error = standard_error(units)
    interval = t_interval(units, -1.0, 1.0, level=level)
    if error == 0.0:
        return interval, 1.0
    return interval, float(2 * student_t.sf(abs(units.mean) / error, len(units) - 1))


def _infer(
    scores_a: Sequence[float], scores_b: Sequence[float], units: Units, *, binary: bool, seed: int, level: float
) -> tuple[Interval, float, str]:
    if len(units) == 0:
        return NO_CLAIM, 1.0, "no items"
    if units.clustered and len(units) < MIN_CLUSTERS:
        return NO_CLAIM, 1.0, f"no claim: {len(units)} clusters, and it takes at least {MIN_CLUSTERS}"
    if not binary:
        return _infer_graded(units, seed=seed, level=level)
    pairs = [(bool(a), bool(b)) for a, b in zip(scores_a, scores_b, strict=True)]
    n11, n10, n01, n00 = (pairs.count(cell) for cell in ((True, True), (True, False), (False, True), (False, False)))
    interval, p = newcombe_paired(n11, n10, n01, n00, level), mcnemar_midp(n10, n01)
    if p > 1 - level and not interval.low <= 0.0 <= interval.high:
        interval = interval.hull(midp_paired(n10, n01, len(pairs), level))
    if not units.clustered:
        return interval, p, "Newcombe paired interval, McNemar mid-p"
    # Never narrower, and never surer, than if the items were independent: that covers the sparse and the even cases.
    robust, robust_p = clustered_difference(units, level=level)
    return interval.hull(robust), max(p, robust_p), f"cluster-robust t over {len(units)} clusters"


def _infer_graded(units: Units, *, seed: int, level: float) -> tuple[Interval, float, str]:
    p = _sign_flip_p(units, seed=seed, resamples=RESAMPLES)
    if 2.0 ** (1 - len(units)) > 1 - level:  # not even equal signs throughout could be called unlikely
        return NO_CLAIM, p, f"no claim: {len(units)} items are too few for any test"
    interval = bootstrap_interval(units, -1.0, 1.0, level=level, resamples=RESAMPLES, seed=seed)
    if p > 1 - level:  # interval and p must not contradict each other
        interval = interval.hull(Interval(0.0, 0.0))
    what = f"{len(units)} clusters" if units.clustered else "items"
    return interval, p, f"paired bootstrap of {what} (BCa), sign-flip p"


def _sign_flip_p(units: Units, *, seed: int, resamples: int) -> float:
    sizes = np.sort(np.abs(units.sums[np.abs(units.sums) > NEGLIGIBLE]))
    if not len(sizes):
        return 1.0
    seen = abs(math.fsum(units.sums)) - 1e-9 * math.fsum(sizes)  # equal sums must not differ by rounding
    if len(sizes) <= _EXACT_UP_TO:
        patterns = (np.arange(2 ** len(sizes))[:, None] >> np.arange(len(sizes))) & 1
        return float((np.abs((2.0 * patterns - 1.0) @ sizes) >= seen).mean())
    return (1 + _flip_hits(sizes, seen, resamples, np.random.default_rng(seed))) / (1 + resamples)


def _flip_hits(sizes: Floats, seen: float, resamples: int, random: np.random.Generator) -> int:
    batch = max(1, 4_000_000 // len(sizes))
    hits = 0
    for start in range(0, resamples, batch):
        signs = random.integers(0, 2, size=(min(batch, resamples - start), len(sizes)), dtype=np.int8)
        hits += int((np.abs((2.0 * signs - 1.0) @ sizes) >= seen).sum())
    return hits


def _design_effect(units: Units, second_moment: float) -> float:
    """Variance of the mean over that of as many independent items; at least 1, and 1 where it cannot be known."""
    variance = second_moment - units.mean**2
    if not units.clustered or len(units) < 2 or variance <= NEGLIGIBLE:
        return 1.0
    return max(1.0, standard_error(units) ** 2 * units.n / variance)


def _check_scores(scores_a: Sequence[float], scores_b: Sequence[float], binary: bool) -> None:
    if len(scores_a) != len(scores_b):
        raise BadInput(f"{len(scores_a)} scores cannot be paired with {len(scores_b)}", fix="score the same items")
    for scores in (scores_a, scores_b):
        check_scores(scores, binary=binary)


def check_scores(scores: Sequence[float], *, binary: bool) -> None:
    """Refuse scores that are not in [0, 1] (NaN included), or not 0 or 1 where they are declared binary."""
    for score in scores:
        if not 0.0 <= score <= 1.0:
            raise BadInput(f"a score must lie in [0, 1], not at {score}")
        if binary and score not in (0, 1):
            raise BadInput(f"a binary score must be 0 or 1, not {score}")
