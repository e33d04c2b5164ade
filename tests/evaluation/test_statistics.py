"""The statistics against scipy, statsmodels, published tables and plain NumPy; and their algebra, over any scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from luthier.evaluation.intervals import Interval, bootstrap_interval, midp_paired, standard_error, t_interval
from luthier.evaluation.paired import clustered_difference
from luthier.evaluation.statistics import (
    bootstrap_mean,
    contrast,
    detectable_difference,
    items_needed,
    mcnemar_midp,
    newcombe_paired,
    paired_bootstrap,
    sign_flip_p,
    summarise,
    wilson,
)
from luthier.evaluation.units import group_units
from luthier.ground.errors import BadInput

# Newcombe (1998), Stat. Med. 17:2635-2650, Table III, method 10: both right, first only, second only, both wrong.
NEWCOMBE_TABLE_III = [
    ((36, 12, 2, 0), (0.0569, 0.3404)),
    ((20, 12, 2, 16), (0.0562, 0.3292)),
    ((18, 12, 2, 18), (0.0562, 0.3290)),
    ((36, 14, 0, 0), (0.1528, 0.4167)),
    ((35, 14, 0, 1), (0.1461, 0.4175)),
    ((18, 14, 0, 18), (0.1441, 0.3963)),
    ((2, 97, 1, 0), (0.8721, 0.9854)),
    ((1, 97, 1, 1), (0.8736, 0.9850)),
    ((0, 29, 1, 0), (0.6666, 0.9882)),
    ((2, 98, 0, 0), (0.9178, 0.9945)),
    ((1, 98, 0, 1), (0.9171, 0.9916)),
    ((0, 30, 0, 0), (0.8395, 1.0)),
    ((54, 0, 0, 0), (-0.0664, 0.0664)),
    ((53, 0, 0, 1), (-0.0729, 0.0729)),
    ((30, 0, 0, 24), (-0.0358, 0.0358)),
    ((27, 0, 0, 27), (-0.0351, 0.0351)),
]

# -- one proportion and one mean ------------------------------------------------------------------------------------


@given(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99])
)
def test_wilson_is_that_of_statsmodels(counts: tuple[int, int], level: float) -> None:
    expected = proportion_confint(*counts, alpha=1 - level, method="wilson")
    assert wilson(*counts, level) == pytest.approx(expected, abs=1e-12)


def test_wilson_at_its_ends() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 3).low == 0.0 and wilson(3, 3).high == 1.0
    assert wilson(0, 3).high == pytest.approx(1 - wilson(3, 3).low)
    with pytest.raises(BadInput, match="4 successes of 3"):
        wilson(4, 3)
    with pytest.raises(BadInput, match="confidence level"):
        wilson(1, 3, 1.0)


def test_half_widths_that_people_plan_with() -> None:
    for n, half in ((30, 0.168), (100, 0.096), (400, 0.049), (1000, 0.031)):
        assert (wilson(n // 2, n).high - wilson(n // 2, n).low) / 2 == pytest.approx(half, abs=6e-4)


def test_the_bootstrap_agrees_with_scipy_where_its_correction_for_few_units_vanishes() -> None:
    values = np.random.default_rng(3).beta(0.5, 2, 800)
    ours = bootstrap_mean(values.tolist(), seed=1)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(1))
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.04 * width)


@pytest.mark.parametrize("values", [[0.2, 0.9, 0.4], [0.1, 0.5, 0.5, 0.8, 0.9, 0.3]])
def test_with_few_units_the_interval_is_that_of_the_t_test(values: list[float]) -> None:
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    interval = bootstrap_mean(values, seed=0)
    assert interval == pytest.approx((max(0.0, expected.low), min(1.0, expected.high)))


def test_equal_scores_are_not_certainty() -> None:
    assert bootstrap_mean([1.0] * 40, seed=0) == pytest.approx(wilson(40, 40))
    assert bootstrap_mean([0.0] * 3, seed=0) == pytest.approx(wilson(0, 3))
    assert bootstrap_mean([0.5] * 3, seed=0).low < 0.25 < 0.75 < bootstrap_mean([0.5] * 3, seed=0).high
    assert bootstrap_mean([], seed=0) == bootstrap_mean([0.7], seed=0) == (0.0, 1.0)
    assert paired_bootstrap([0.5] * 30, [0.5] * 30, seed=0) == pytest.approx((-wilson(0, 30).high, wilson(0, 30).high))


def test_the_standard_error_is_the_jackknife() -> None:
    random = np.random.default_rng(5)
    scores, clusters = random.random(60), random.integers(0, 13, 60)
    names = np.unique(clusters)
    without = np.array([scores[clusters != name].mean() for name in names])
    jackknife = math.sqrt((len(names) - 1) / len(names) * ((without - scores.mean()) ** 2).sum())
    units = group_units(scores.tolist(), [str(name) for name in clusters])
    assert standard_error(units) == pytest.approx(jackknife)
    alone = group_units(scores.tolist())
    assert standard_error(alone) == pytest.approx(scores.std(ddof=1) / math.sqrt(60))


def test_clusters_of_one_size_are_a_t_test_of_their_means() -> None:
    random = np.random.default_rng(6)
    differences = random.choice([-1.0, 0.0, 1.0], p=[0.1, 0.5, 0.4], size=(12, 5))
    clusters = [str(row) for row in range(12) for _ in range(5)]
    interval, p = clustered_difference(group_units(differences.ravel().tolist(), clusters))
    expected = stats.ttest_1samp(differences.mean(axis=1), 0)
    assert interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert p == pytest.approx(expected.pvalue)


def test_summaries_name_their_method() -> None:
    ones = [1.0] * 30 + [0.0] * 10
    clusters = [str(index // 4) for index in range(40)]
    plain, grouped = summarise(ones, binary=True), summarise(ones, binary=True, clusters=clusters)
    assert plain.interval == wilson(30, 40) and plain.method == "Wilson" and plain.mean == 0.75
    assert grouped.interval.low < plain.interval.low and "10 clusters" in grouped.method
    graded = summarise([0.2, 0.4] * 20, binary=False)
    assert graded.mean == pytest.approx(0.3) and graded.interval.low < 0.3 < graded.interval.high
    assert summarise([], binary=True).interval == (0.0, 1.0)
    assert summarise([1.0, 1.0], binary=True, clusters=["a", "a"]).interval == (0.0, 1.0)


# -- pairs, right or wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cells", "limits"), NEWCOMBE_TABLE_III)
def test_newcombe_as_published(cells: tuple[int, int, int, int], limits: tuple[float, float]) -> None:
    assert newcombe_paired(*cells) == pytest.approx(limits, abs=1.1e-4)  # the table prints four digits, one cut off


def newcombe_in_numpy(n11: int, n10: int, n01: int, n00: int, level: float) -> tuple[float, float]:
    """The same formula from scratch, with statsmodels' Wilson limits."""
    table = np.array([[n11, n10], [n01, n00]], dtype=float)
    n, rows, columns = table.sum(), table.sum(axis=1), table.sum(axis=0)
    p1, p2 = rows[0] / n, columns[0] / n
    l1, u1 = proportion_confint(rows[0], n, alpha=1 - level, method="wilson")
    l2, u2 = proportion_confint(columns[0], n, alpha=1 - level, method="wilson")
    excess = np.linalg.det(table)
    product = rows.prod() * columns.prod()
    corrected = excess if excess <= 0 else max(excess - n / 2, 0)
    phi = corrected / math.sqrt(product) if product else 0.0
    below = np.array([p1 - l1, u2 - p2])
    above = np.array([u1 - p1, p2 - l2])
    mix = np.array([[1, -phi], [-phi, 1]])
    return p1 - p2 - math.sqrt(below @ mix @ below), p1 - p2 + math.sqrt(above @ mix @ above)


@given(st.tuples(*[st.integers(0, 80)] * 4).filter(any), st.sampled_from([0.9, 0.95]))
def test_newcombe_agrees_with_a_plain_reference(cells: tuple[int, int, int, int], level: float) -> None:
    low, high = newcombe_in_numpy(*cells, level)
    assert newcombe_paired(*cells, level) == pytest.approx((max(-1, low), min(1, high)), abs=1e-7)


@given(st.integers(0, 60), st.integers(0, 60))
def test_midp_is_the_exact_p_less_half_of_what_was_seen(n10: int, n01: int) -> None:
    exact = mcnemar([[5, n10], [n01, 5]], exact=True).pvalue if n10 + n01 else 1.0
    here = math.comb(n10 + n01, n10) / 2 ** (n10 + n01)
    expected = 1.0 if n10 + n01 == 0 else exact - (here / 2 if n10 == n01 else here)
    assert mcnemar_midp(n10, n01) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_midp_worked_by_hand() -> None:
    assert mcnemar_midp(12, 2) == pytest.approx(121 / 2**14)  # 2 (1 + 14) + 91 patterns of 2^14
    assert mcnemar_midp(0, 0) == 1.0
    assert mcnemar_midp(5, 0) == pytest.approx(1 / 32)


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_interval_that_midp_inverts(n10: int, n01: int) -> None:
    interval = midp_paired(n10, n01, 100)
    if n10 != n01:  # equal counts: the interval is symmetric about 0, and p is large
        assert (interval.low > 0 or interval.high < 0) == (mcnemar_midp(n10, n01) < 0.05)
    assert interval.low <= (n10 - n01) / 100 <= interval.high
    mirrored = midp_paired(n01, n10, 100)
    assert interval == pytest.approx((-mirrored.high, -mirrored.low), abs=1e-9)


# -- pairs, continuous ----------------------------------------------------------------------------------------------


def test_sign_flips_agree_with_scipy_when_all_are_counted() -> None:
    differences = [0.3, -0.1, 0.25, 0.0, 0.4, 0.05, -0.2, 0.15, 0.3]
    expected = stats.permutation_test(
        (differences, [0.0] * 9), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples"
    )
    assert sign_flip_p(differences, seed=0) == pytest.approx(expected.pvalue)


def test_sign_flips_by_hand_and_by_chance() -> None:
    assert sign_flip_p([0.1] * 6, seed=0) == pytest.approx(2 / 2**6)
    assert sign_flip_p([0.0] * 50, seed=0) == 1.0 == sign_flip_p([], seed=0)
    many = [0.1] * 8 + [-0.1] * 6
    exactly = sum(math.comb(14, k) for k in range(15) if abs(2 * k - 14) >= 2) / 2**14
    assert sign_flip_p(many, seed=0) == pytest.approx(exactly, abs=0.02)
    assert sign_flip_p(many, seed=0, clusters=["a"] * 8 + ["b"] * 6) == 1.0


def test_clusters_flip_and_resample_as_wholes() -> None:
    random = np.random.default_rng(8)
    effect = np.repeat(random.normal(0.05, 0.2, 15), 10)
    a = np.clip(0.5 + effect / 2, 0, 1)
    clusters = [str(index // 10) for index in range(150)]
    naive = contrast(a.tolist(), (1 - a).tolist(), binary=False, clusters=None, seed=0)
    grouped = contrast(a.tolist(), (1 - a).tolist(), binary=False, clusters=clusters, seed=0)
    assert grouped.difference == pytest.approx(naive.difference)
    assert width(grouped.interval) > 2.5 * width(naive.interval) and grouped.p > naive.p
    assert grouped.design_effect > 6 and grouped.detectable > 2 * naive.detectable


def width(interval: Interval) -> float:
    return interval.high - interval.low


# -- power ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "share", "n"),
    [(0.02, 0.1, 1955), (0.02, 0.4, 7842), (0.03, 0.2, 1737), (0.05, 0.3, 935), (0.1, 0.2, 150), (0.2, 0.4, 71)],
)
def test_items_needed_as_tabulated(difference: float, share: float, n: int) -> None:
    assert abs(items_needed(difference, share) - n) <= 1
    assert items_needed(-difference, share) == items_needed(difference, share)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_the_two_power_functions_invert_each_other(n: int, share: float) -> None:
    seen = detectable_difference(n, share)
    assert 0 < seen <= 1
    needed = items_needed(seen, share)
    assert needed is not None and (needed <= n + 1 or seen == 1.0)
    if seen < 1:
        assert needed >= n - 1 or seen > share


def test_nothing_needs_no_number_of_items() -> None:
    assert items_needed(0.0, 0.2) is None
    assert items_needed(0.3, 0.1) == items_needed(0.3, 0.3) == 19  # fewer cannot disagree
    assert detectable_difference(0, 0.3) == 1.0
    assert 0.02 < detectable_difference(200, 0.0) < 0.05
    with pytest.raises(BadInput):
        items_needed(0.1, 0.3, power=1.0)


def test_the_t_interval_of_one_unit_says_nothing() -> None:
    units = group_units([0.4, 0.6], ["a", "a"])
    assert t_interval(units, 0.0, 1.0, level=0.95) == (0.0, 1.0)
    assert bootstrap_interval(units, 0.0, 1.0, level=0.95, resamples=100, seed=0) == (0.0, 1.0)
