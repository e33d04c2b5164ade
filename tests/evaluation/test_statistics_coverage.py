"""What the intervals and tests promise, checked: exactly where the outcomes can be counted, else by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from luthier.evaluation.intervals import Interval, bootstrap_interval, t_interval
from luthier.evaluation.paired import clustered_difference
from luthier.evaluation.statistics import detectable_difference, items_needed, mcnemar_midp, newcombe_paired, wilson
from luthier.evaluation.units import Units, group_units

midp = lru_cache(maxsize=None)(mcnemar_midp)


def covers(interval: Interval, truth: float) -> bool:
    return interval.low - 1e-12 <= truth <= interval.high + 1e-12


# -- counted exactly ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [10, 30, 100])
def test_wilson_covers_what_it_says_on_average_and_never_far_less(n: int) -> None:
    shares = np.linspace(0.01, 0.99, 197)
    intervals = [wilson(k, n) for k in range(n + 1)]
    holds = np.array([[covers(interval, share) for interval in intervals] for share in shares])
    coverage = (stats.binom.pmf(np.arange(n + 1), n, shares[:, None]) * holds).sum(axis=1)
    assert 0.945 <= coverage.mean() <= 0.962
    assert coverage.min() > 0.83


def newcombe_coverage(n: int, p11: float, p10: float, p01: float) -> float:
    """Sum the probability of all tables of n items whose interval holds the truth."""
    cells = [(a, b, c) for a in range(n + 1) for b in range(n + 1 - a) for c in range(n + 1 - a - b)]
    counts = np.array([(a, b, c, n - a - b - c) for a, b, c in cells])
    chance = stats.multinomial.pmf(counts, n, [p11, p10, p01, 1 - p11 - p10 - p01])
    likely = chance > 1e-9
    held = [covers(newcombe_paired(*row), p10 - p01) for row in counts[likely].tolist()]
    return float(chance[likely] @ held)


@pytest.mark.parametrize(
    ("p11", "p10", "p01"), [(0.9, 0.05, 0.02), (0.6, 0.1, 0.1), (0.3, 0.3, 0.1), (0.2, 0.05, 0.25), (0.05, 0.4, 0.05)]
)
def test_newcombe_covers_what_it_says(p11: float, p10: float, p01: float) -> None:
    assert 0.94 <= newcombe_coverage(30, p11, p10, p01) <= 0.998


@pytest.mark.parametrize("n", [20, 50, 200])
@pytest.mark.parametrize("discordant", [0.05, 0.2, 0.5])
def test_midp_rejects_no_more_often_than_it_may(n: int, discordant: float) -> None:
    size = 0.0
    for total in range(n + 1):
        rejected = [k for k in range(total + 1) if midp(k, total - k) <= 0.05]
        size += stats.binom.pmf(total, n, discordant) * stats.binom.pmf(rejected, total, 0.5).sum()
    assert size <= 0.0515
    assert size > 0.02 or n * discordant < 10


def power_of_midp(n: int, difference: float, discordant: float) -> float:
    """Exact power: the discordant items are Binomial(n, d), and split with the odds that make the difference."""
    ahead = (discordant + difference) / (2 * discordant)
    power = 0.0
    for total in range(n + 1):
        weight = stats.binom.pmf(total, n, discordant)
        if weight > 1e-9:
            rejected = [k for k in range(total + 1) if midp(k, total - k) <= 0.05]
            power += weight * stats.binom.pmf(rejected, total, ahead).sum()
    return power


@pytest.mark.parametrize(("difference", "discordant"), [(0.1, 0.2), (0.1, 0.4), (0.15, 0.3), (0.2, 0.3)])
def test_the_items_needed_give_the_power_they_promise(difference: float, discordant: float) -> None:
    n = items_needed(difference, discordant)
    assert n is not None
    assert power_of_midp(n, difference, discordant) == pytest.approx(0.8, abs=0.03)
    assert power_of_midp(n // 2, difference, discordant) < 0.62


def test_the_detectable_difference_is_seen_four_times_in_five() -> None:
    for n, discordant in ((100, 0.3), (200, 0.2)):
        assert power_of_midp(n, detectable_difference(n, discordant), discordant) == pytest.approx(0.8, abs=0.03)
    assert power_of_midp(200, detectable_difference(200, 0.0), detectable_difference(200, 0.0)) > 0.75


# -- simulated ------------------------------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def gaps(random: np.random.Generator, n: int) -> NDArray[np.float64]:
    return random.beta(2, 5, n) - random.beta(2, 2, n)


def mostly_equal(random: np.random.Generator, n: int) -> NDArray[np.float64]:
    return np.where(random.random(n) < 0.3, random.beta(2, 2, n), 0.0)


def skewed(random: np.random.Generator, n: int) -> NDArray[np.float64]:
    return random.beta(0.5, 3, n)


@pytest.mark.parametrize(
    ("draw", "truth", "n", "least"),
    [
        (gaps, 2 / 7 - 0.5, 8, 0.92),
        (gaps, 2 / 7 - 0.5, 30, 0.925),
        (mostly_equal, 0.15, 30, 0.925),
        (mostly_equal, 0.15, 80, 0.925),
        (skewed, 0.5 / 3.5, 30, 0.91),
    ],
)
def test_the_bootstrap_covers_what_it_says(draw: Draw, truth: float, n: int, least: float) -> None:
    random = np.random.default_rng(11)
    repeats = 600
    held = 0
    for seed in range(repeats):
        units = group_units(draw(random, n).tolist())
        held += covers(bootstrap_interval(units, -1.0, 1.0, level=0.95, resamples=1000, seed=seed), truth)
    assert least <= held / repeats <= 0.985


def draw_clusters(random: np.random.Generator, sizes: NDArray[np.int64], binary: bool) -> Units:
    """Paired differences whose chance of being +1 varies between clusters (beta, mean 0.25, correlation 0.2)."""
    chance = random.beta(1.0, 3.0, len(sizes))
    scores, names = [], []
    for name, (size, ahead) in enumerate(zip(sizes, chance, strict=True)):
        draws = random.random(size)
        difference = np.where(draws < ahead, 1.0, np.where(draws > 0.9, -1.0, 0.0))
        scores.extend((difference if binary else difference * random.beta(2, 2, size)).tolist())
        names.extend([str(name)] * size)
    return group_units(scores, names)


def clustered_coverage(sizes: NDArray[np.int64], interval_of: Callable[[Units, int], Interval], binary: bool) -> float:
    random = np.random.default_rng(12)
    truth = 0.25 - 0.75 * 0.1 / 0.75  # +1 with 0.25; -1 with 0.1, less where ahead > 0.9 takes its place
    excess = stats.beta(1.0, 3.0).expect(lambda x: x - 0.9, lb=0.9, ub=1.0)  # 0.0001: that overlap
    truth = (truth + excess) * (1.0 if binary else 0.5)
    repeats = 500
    held = sum(covers(interval_of(draw_clusters(random, sizes, binary), seed), truth) for seed in range(repeats))
    return held / repeats


@pytest.mark.parametrize(("count", "least"), [(10, 0.92), (30, 0.925)])
def test_the_clustered_interval_covers_what_it_says(count: int, least: float) -> None:
    sizes = np.full(count, 6)
    coverage = clustered_coverage(sizes, lambda units, _: clustered_difference(units)[0], binary=True)
    assert least <= coverage <= 0.98


def test_unequal_clusters_cost_little_coverage() -> None:
    sizes = np.tile([1, 2, 4, 8, 15], 5)
    coverage = clustered_coverage(sizes, lambda units, _: clustered_difference(units)[0], binary=True)
    assert 0.90 <= coverage <= 0.98


def test_the_cluster_bootstrap_covers_what_it_says() -> None:
    def interval_of(units: Units, seed: int) -> Interval:
        return bootstrap_interval(units, -1.0, 1.0, level=0.95, resamples=800, seed=seed)

    assert 0.92 <= clustered_coverage(np.full(20, 6), interval_of, binary=False) <= 0.98


def test_pretending_that_clustered_items_are_independent_would_not_cover() -> None:
    """The reason for all this: the same data without their clusters miss the truth far too often."""

    def naive(units: Units, _: int) -> Interval:
        mean, n = units.mean, units.n
        half = 1.96 * math.sqrt((0.35 - mean**2) / n)
        return Interval(mean - half, mean + half)

    assert clustered_coverage(np.full(30, 12), naive, binary=True) < 0.85
    honest = clustered_coverage(np.full(30, 12), lambda units, _: t_interval(units, -1.0, 1.0, level=0.95), binary=True)
    assert honest > 0.925
