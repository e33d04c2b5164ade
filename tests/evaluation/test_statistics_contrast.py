"""Contrasts and verdicts: their algebra over any scores, the degenerate cases, and what may be said."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from luthier.evaluation.intervals import Interval, bootstrap_interval
from luthier.evaluation.paired import PairedResult
from luthier.evaluation.statistics import contrast, finish, holm, items_needed, newcombe_paired, verdict
from luthier.evaluation.units import group_units
from luthier.ground.errors import BadInput

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


@pytest.mark.parametrize("clusters", [None, [str(index // 2) for index in range(24)]], ids=["alone", "clustered"])
def test_scores_that_are_their_own_mirror_image_have_a_symmetric_interval(clusters: list[str] | None) -> None:
    gaps = [step / 24 for pair in range(1, 7) for step in (pair, pair * 2)]
    a, b = gaps + [0.0] * 12, [0.0] * 12 + gaps
    result = contrast(a, b, binary=False, clusters=clusters, seed=4)
    assert result.difference == 0.0 and result.interval.low == -result.interval.high < 0


def test_interval_and_p_do_not_contradict_each_other() -> None:
    gaps = [0.38, 0.0, -0.01, 0.03, 0.01, -0.06, 0.09, 0.0, 0.26, 0.01, -0.06, 0.18]
    units = group_units(gaps)
    assert bootstrap_interval(units, -1.0, 1.0, level=0.95, resamples=10_000, seed=0).low > 0
    a, b = [max(gap, 0.0) for gap in gaps], [max(-gap, 0.0) for gap in gaps]
    graded = contrast(a, b, binary=False, clusters=None, seed=0)
    assert graded.p > 0.1 and graded.interval.low == 0.0
    assert newcombe_paired(0, 3, 0, 0).low > 0
    right = contrast([1.0] * 3, [0.0] * 3, binary=True, clusters=None, seed=0)
    assert right.p == 0.125 and right.interval.low < -0.2


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


def test_agreement_within_clusters_is_not_counted_as_evidence_twice() -> None:
    wins = [1.0] * 8 + [0.0] * 3 + [1.0] * 9
    losses = [0.0] * 8 + [1.0] * 3 + [1.0] * 9
    clusters = [str(index // 10) for index in range(200)]
    a, b = ([value for value in row for _ in range(10)] for row in (wins, losses))
    grouped, plain = (contrast(a, b, binary=True, clusters=names, seed=0) for names in (clusters, None))
    assert plain.p < 1e-4 and grouped.p > 0.1
    assert grouped.interval.low < 0 < plain.interval.low


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
