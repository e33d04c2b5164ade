"""The statistics against scipy, statsmodels, published tables and plain NumPy; and their algebra, over any scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from luthier.evaluation.intervals import Interval, bootstrap_interval, midp_paired, standard_error, t_interval
from luthier.evaluation.paired import PairedResult, clustered_difference
from luthier.evaluation.statistics import (
    bootstrap_mean,
    contrast,
    detectable_difference,
    finish,
    holm,
    items_needed,
    mcnemar_midp,
    newcombe_paired,
    paired_bootstrap,
    sign_flip_p,
    summarise,
    verdict,
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

unit_interval = st.floats(0, 1).map(lambda x: round(x, 6))
binary_pairs = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), max_size=60)
graded_pairs = st.lists(st.tuples(unit_interval, unit_interval), max_size=25)


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[list[float], list[float], bool, list[str] | None]:
    binary = draw(st.booleans())
    pairs = draw(binary_pairs if binary else graded_pairs)
    clusters = None
    if draw(st.booleans()):
        clusters = [str(draw(st.integers(0, 14))) for _ in pairs]
    return [a for a, _ in pairs], [b for _, b in pairs], binary, clusters


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


# -- algebra of one contrast ----------------------------------------------------------------------------------------


def facts(result: PairedResult) -> tuple[float, ...]:
    return (
        result.difference,
        *result.interval,
        result.p,
        result.discordant_share,
        result.detectable,
        result.second_moment,
        result.design_effect,
    )


@settings(max_examples=150, deadline=None)
@given(comparisons())
def test_the_mirror_image_of_a_contrast(given_scores: tuple[list[float], list[float], bool, list[str] | None]) -> None:
    a, b, binary, clusters = given_scores
    there = contrast(a, b, binary=binary, clusters=clusters, seed=4)
    back = contrast(b, a, binary=binary, clusters=clusters, seed=4)
    assert back.difference == -there.difference
    assert back.interval == pytest.approx((-there.interval.high, -there.interval.low), abs=1e-12)
    assert facts(back)[3:] == pytest.approx(facts(there)[3:], abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(comparisons(), st.randoms(use_true_random=False))
def test_the_order_of_the_items_does_not_matter(
    given_scores: tuple[list[float], list[float], bool, list[str] | None], random: object
) -> None:
    a, b, binary, clusters = given_scores
    order = list(range(len(a)))
    random.shuffle(order)  # type: ignore[attr-defined]
    moved = [None if part is None else [part[i] for i in order] for part in (a, b, clusters)]
    one = contrast(a, b, binary=binary, clusters=clusters, seed=4)
    two = contrast(moved[0], moved[1], binary=binary, clusters=moved[2], seed=4)  # type: ignore[arg-type]
    assert facts(one) == facts(two)


@settings(max_examples=150, deadline=None)
@given(comparisons())
def test_a_contrast_is_always_defined(given_scores: tuple[list[float], list[float], bool, list[str] | None]) -> None:
    a, b, binary, clusters = given_scores
    result = contrast(a, b, binary=binary, clusters=clusters, seed=4)
    assert all(math.isfinite(number) for number in facts(result))
    assert -1 <= result.interval.low <= result.difference <= result.interval.high <= 1
    assert 0 < result.p <= 1 and 0 <= result.discordant_share <= 1 and 0 < result.detectable <= 1
    assert result.p <= 0.05 or result.interval.low <= 0 <= result.interval.high
    assert result.difference == pytest.approx(np.mean(a) - np.mean(b) if a else 0.0, abs=1e-9)
    assert contrast(a, b, binary=binary, clusters=clusters, seed=4) == result
    finished = finish([result], margin=0.03)[0]
    assert finished.more_items is None or finished.more_items >= 1
    if clusters and len(set(clusters)) < min(10, len(clusters)):
        assert finished.verdict == "no evidence" and finished.more_items is None and finished.detectable == 1.0


@settings(max_examples=60, deadline=None)
@given(st.lists(unit_interval, min_size=1, max_size=30))
def test_a_system_against_itself_shows_nothing(scores: list[float]) -> None:
    result = contrast(scores, scores, binary=False, clusters=None, seed=0)
    assert result.difference == 0.0 and result.p == 1.0
    assert result.interval.low == -result.interval.high
    assert finish([result], margin=0.0)[0].verdict == "no evidence"


@given(binary_pairs)
def test_clusters_of_one_item_each_are_no_clusters(pairs: list[tuple[float, float]]) -> None:
    a, b = [a for a, _ in pairs], [b for _, b in pairs]
    alone = contrast(a, b, binary=True, clusters=[str(index) for index in range(len(a))], seed=0)
    assert alone == contrast(a, b, binary=True, clusters=None, seed=0)


@given(binary_pairs, st.data())
def test_clusters_never_make_a_binary_contrast_surer(pairs: list[tuple[float, float]], data: st.DataObject) -> None:
    a, b = [a for a, _ in pairs], [b for _, b in pairs]
    clusters = [str(data.draw(st.integers(0, 20))) for _ in pairs]
    grouped, plain = (contrast(a, b, binary=True, clusters=names, seed=0) for names in (clusters, None))
    assert grouped.p >= plain.p
    assert grouped.interval.low <= plain.interval.low and grouped.interval.high >= plain.interval.high


def test_few_clusters_claim_nothing() -> None:
    a, b = [1.0] * 90, [0.0] * 90
    few = contrast(a, b, binary=True, clusters=[str(index % 9) for index in range(90)], seed=0)
    assert (few.interval, few.p) == ((-1.0, 1.0), 1.0) and "9 clusters" in few.method
    finished = finish([few], margin=0.03)[0]
    assert (finished.verdict, finished.more_items, finished.detectable) == ("no evidence", None, 1.0)
    enough = contrast(a, b, binary=True, clusters=[str(index % 10) for index in range(90)], seed=0)
    assert enough.interval.low > 0


def test_tiny_sets_prove_nothing() -> None:
    for a, b in (
        ([], []),
        ([1.0], [0.0]),
        ([1.0] * 3, [0.0] * 3),
        ([1.0] * 4, [0.0] * 4),
        ([1.0, 0.0, 1.0], [1.0, 0.0, 1.0]),
    ):
        for binary in (True, False):
            result = contrast(a, b, binary=binary, clusters=None, seed=0)
            assert finish([result], margin=0.03)[0].verdict == "no evidence"
    nothing = contrast([], [], binary=True, clusters=None, seed=0)
    assert (nothing.difference, nothing.interval, nothing.p, nothing.detectable) == (0.0, (-1.0, 1.0), 1.0, 1.0)


@pytest.mark.parametrize(
    ("a", "b", "binary", "clusters"),
    [
        ([1.0], [1.0, 0.0], True, None),
        ([0.5], [1.0], True, None),
        ([1.5], [1.0], False, None),
        ([float("nan")], [1.0], False, None),
        ([1.0, 0.0], [1.0, 1.0], True, ["a"]),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(
    a: list[float], b: list[float], binary: bool, clusters: Sequence[str] | None
) -> None:
    with pytest.raises(BadInput):
        contrast(a, b, binary=binary, clusters=clusters, seed=0)


# -- many contrasts, and verdicts -----------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)  # statsmodels takes 0.1 s each
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)


def test_holm_of_nothing() -> None:
    assert holm([]) == [] and finish([], margin=0.03) == []


@pytest.mark.parametrize(
    ("difference", "interval", "p_holm", "margin", "expected"),
    [
        (0.10, (0.02, 0.18), 0.01, 0.03, "better"),
        (-0.10, (-0.18, -0.02), 0.01, 0.03, "worse"),
        (-0.02, (-0.029, -0.01), 0.01, 0.03, "worse"),
        (0.10, (0.02, 0.18), 0.06, 0.03, "non-inferior"),
        (0.10, (-0.01, 0.21), 0.04, 0.03, "non-inferior"),
        (0.10, (-0.05, 0.25), 0.20, 0.03, "no evidence"),
        (-0.10, (-0.22, 0.02), 0.20, 0.03, "no evidence"),
        (0.0, (-0.02, 0.02), 1.0, 0.03, "non-inferior"),
        (0.0, (-0.02, 0.02), 1.0, 0.02, "no evidence"),
        (0.0, (-0.02, 0.02), 1.0, 0.0, "no evidence"),
    ],
)
def test_the_four_verdicts(
    difference: float, interval: tuple[float, float], p_holm: float, margin: float, expected: str
) -> None:
    assert verdict(difference, Interval(*interval), p_holm, margin) == expected


def test_more_contrasts_make_each_claim_harder() -> None:
    a = [1.0] * 14 + [0.0] * 4 + [1.0] * 82
    b = [0.0] * 14 + [1.0] * 4 + [1.0] * 82
    one = contrast(a, b, binary=True, clusters=None, seed=0)
    alone, among = finish([one], margin=0.01)[0], finish([one] * 4, margin=0.01)[0]
    assert alone.verdict == "better" and alone.more_items is None
    assert among.verdict == "non-inferior" and among.p_holm == pytest.approx(4 * one.p)
    assert among.detectable > alone.detectable and among.more_items is not None


def test_more_items_would_have_shown_it() -> None:
    a, b = [1.0] * 12 + [0.0] * 8 + [1.0] * 30, [0.0] * 12 + [1.0] * 8 + [1.0] * 30
    result = contrast(a, b, binary=True, clusters=None, seed=0)
    finished = finish([result], margin=0.03)[0]
    assert finished.verdict == "no evidence"
    assert finished.more_items == items_needed(0.08, 0.4) - 50
    assert finish([contrast(a, a, binary=True, clusters=None, seed=0)], margin=0.03)[0].more_items is None
    factor = math.ceil((50 + finished.more_items) / 50)
    enough = contrast(a * factor, b * factor, binary=True, clusters=None, seed=0)
    assert finish([enough], margin=0.03)[0].verdict == "better"


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
    assert detectable_difference(0, 0.3) == 1.0
    assert 0.02 < detectable_difference(200, 0.0) < 0.05
    with pytest.raises(BadInput):
        items_needed(0.1, 0.3, power=1.0)


def test_the_t_interval_of_one_unit_says_nothing() -> None:
    units = group_units([0.4, 0.6], ["a", "a"])
    assert t_interval(units, 0.0, 1.0, level=0.95) == (0.0, 1.0)
    assert bootstrap_interval(units, 0.0, 1.0, level=0.95, resamples=100, seed=0) == (0.0, 1.0)
