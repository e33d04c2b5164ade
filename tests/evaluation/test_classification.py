"""Figures of classifiers agree with references written out here as scikit-learn defines them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from luthier.evaluation import label_figures
from luthier.evaluation.calibration import adaptive_reliability, calibration_error, reliability
from luthier.evaluation.classification import classification
from luthier.evaluation.metrics.base import METRICS, MetricContext
from luthier.evaluation.metrics.conformance import check_metric
from luthier.evaluation.metrics.numbers import number_in
from luthier.evaluation.scoring import SystemRun, score_answers
from luthier.evaluation.systems import Answer, Item
from luthier.ground.objective_results import ClassResult
from luthier.rows.labels import LabelSet
from luthier.rows.types import Message, Row

LABELS = ("cat", "dog", "hen")
SINGLE, MULTI = LabelSet("single", LABELS), LabelSet("multi", LABELS)
NUMBER = LabelSet("regression", mean=2.0, scale=1.0, rows=9)


def run_of(
    labels: LabelSet,
    true: Sequence[str],
    said: Sequence[str | None],
    chances: Sequence[dict[str, float] | None] | None = None,
    groups: Sequence[str] | None = None,
) -> SystemRun:
    items = [
        Item.of(
            Row(str(n), f"t:{n}", (Message("user", "x"), Message("assistant", a)), group=groups[n] if groups else None)
        )
        for n, a in enumerate(true)
    ]
    answers = [Answer(text, 0.0, 1, 0, probabilities=chances[n] if chances else None) for n, text in enumerate(said)]
    metric = METRICS.get({"single": "label", "multi": "multi_label_f1", "regression": "closeness"}[labels.kind])
    context = MetricContext(labels=labels.labels)
    return SystemRun("finetuned", "finetuned", tuple(score_answers(items, answers, metric, context)))


def figures_of(*arguments: object, **more: object) -> ClassResult:
    labels = arguments[0]
    assert isinstance(labels, LabelSet)
    return classification([run_of(*arguments, **more)], labels).systems[0]  # type: ignore[arg-type]


# -- one label ---------------------------------------------------------------------------------------------------------


def sklearn_f1(true: Sequence[str], said: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Precision, recall, F1 of each label, as `precision_recall_fscore_support(zero_division=0)` gives them."""
    found = {}
    for label in LABELS:
        hit = sum(t == s == label for t, s in zip(true, said, strict=True))
        called, there = sum(s == label for s in said), sum(t == label for t in true)
        precision, recall = hit / called if called else 0.0, hit / there if there else 0.0
        found[label] = precision, recall, 2 * precision * recall / (precision + recall) if hit else 0.0
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=30))
def test_single_labels_agree_with_the_reference(pairs: list[tuple[str, str]]) -> None:
    true, said = [t for t, _ in pairs], [s for _, s in pairs]
    found = figures_of(SINGLE, true, said)
    expected = sklearn_f1(true, said)
    for label in found.labels:
        assert (label.precision, label.recall, label.f1) == pytest.approx(expected[label.label])
        assert label.n == true.count(label.label)
    occurring = sorted({*true, *said})
    assert found.macro_f1 == pytest.approx(np.mean([expected[label][2] for label in occurring]))
    assert found.accuracy == pytest.approx(np.mean([t == s for t, s in pairs]))
    assert found.micro_f1 == pytest.approx(found.accuracy)
    low, high = found.macro_f1_interval or (1.0, 0.0)
    assert 0 <= low <= high <= 1
    table = [[sum((t, s) == (a, b) for t, s in pairs) for b in LABELS] + [0] for a in LABELS]
    assert found.confusion == table


def test_written_answers_are_read_as_the_metric_reads_them() -> None:
    found = figures_of(SINGLE, ["cat", "dog", "hen", "dog"], ['"Cat."', "a dog", "HEN", None])
    assert found.accuracy == 0.5
    assert found.confusion == [[1, 0, 0, 0], [0, 0, 0, 2], [0, 0, 1, 0]]
    assert found.ece is None
    assert found.bins == []


def test_probabilities_give_calibration() -> None:
    chances = [{"cat": 0.8, "dog": 0.1, "hen": 0.1}, {"cat": 0.1, "dog": 0.3, "hen": 0.6}]
    found = figures_of(SINGLE, ["cat", "dog"], ["cat", "hen"], chances)
    assert found.ece == pytest.approx((0.2 + 0.6) / 2)
    assert [(one.n, one.accuracy) for one in found.bins] == [(1, 0.0), (1, 1.0)]


def test_macro_f1s_interval_is_that_of_a_plain_bootstrap() -> None:
    """Resampling items one by one and computing macro-F1 anew gives the same distribution."""
    random = np.random.default_rng(5)
    true = random.integers(0, 3, 120)
    said = np.where(random.random(120) < 0.7, true, random.integers(0, 3, 120))
    outcomes = label_figures.outcomes(np.eye(3, dtype=bool)[true], np.eye(3, dtype=bool)[said])
    low, high = label_figures.macro_f1_interval(outcomes, None, level=0.9, seed=1)
    draws = []
    for _ in range(1500):
        pick = random.integers(0, 120, 120)
        scores = sklearn_f1([LABELS[i] for i in true[pick]], [LABELS[i] for i in said[pick]])
        draws.append(np.mean([score[2] for score in scores.values()]))
    assert (low, high) == pytest.approx(tuple(np.quantile(draws, [0.05, 0.95])), abs=0.02)


def test_clusters_widen_the_interval() -> None:
    true = ["cat", "dog"] * 40
    said = ["cat", "dog"] * 20 + ["dog", "cat"] * 20
    alone = figures_of(SINGLE, true, said).macro_f1_interval
    together = figures_of(SINGLE, true, said, groups=[str(n // 10) for n in range(80)]).macro_f1_interval
    assert alone and together
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])


# -- several labels ----------------------------------------------------------------------------------------------------


def test_several_labels() -> None:
    true = [["cat"], ["cat", "dog"], [], ["hen"]]
    said = [["cat"], ["cat"], ["dog"], ["hen", "cat"]]
    found = figures_of(MULTI, [json.dumps(names) for names in true], [json.dumps(names) for names in said])
    # cat: 2 right, 1 too many, 0 missed; dog: 0, 1, 1; hen: 1, 0, 0
    assert [label.f1 for label in found.labels] == pytest.approx([4 / 5, 0, 1])
    assert found.macro_f1 == pytest.approx((4 / 5 + 0 + 1) / 3)
    assert found.micro_f1 == pytest.approx(2 * 3 / (2 * 3 + 2 + 1))
    assert found.accuracy == pytest.approx(1 / 4)
    assert found.confusion == []


def test_calibration_of_several_labels_counts_each_yes_or_no() -> None:
    found = figures_of(MULTI, ['["cat"]'], ['["cat"]'], [{"cat": 0.9, "dog": 0.2, "hen": 0.4}])
    assert sum(one.n for one in found.bins) == 3
    assert found.ece == pytest.approx((0.1 + 0.2 + 0.4) / 3)


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_numbers_agree_with_scipy() -> None:
    random = np.random.default_rng(3)
    true = random.normal(2, 1, 60).round(3)
    said = (true + random.normal(0, 0.5, 60)).round(3)
    found = figures_of(NUMBER, [str(x) for x in true], [str(x) for x in said])
    assert found.mean_absolute_error == pytest.approx(np.abs(true - said).mean())
    assert found.root_mean_squared_error == pytest.approx(np.sqrt(((true - said) ** 2).mean()))
    assert found.pearson == pytest.approx(stats.pearsonr(true, said).statistic)
    assert found.spearman == pytest.approx(stats.spearmanr(true, said).statistic)
    for name, (low, high) in found.intervals.items():
        assert low < getattr(found, name) < high


def test_an_answer_without_a_number_counts_as_the_mean() -> None:
    found = figures_of(NUMBER, ["1", "4"], ["no idea", None])
    assert found.unreadable == 2
    assert found.mean_absolute_error == pytest.approx(1.5)
    assert found.pearson == 0.0


# -- calibration -------------------------------------------------------------------------------------------------------


def guo(confidences: Sequence[float], right: Sequence[float], bins: int = 15) -> float:
    """The expected calibration error of Guo et al. 2017: bins ((m − 1) / M, m / M]."""
    error = 0.0
    for b in range(bins):
        members = [i for i, c in enumerate(confidences) if b / bins < c <= (b + 1) / bins or (b == 0 and c == 0)]
        if members:
            gap = np.mean([right[i] for i in members]) - np.mean([confidences[i] for i in members])
            error += len(members) / len(confidences) * abs(gap)
    return float(error)


@given(st.lists(st.tuples(st.floats(0, 1, allow_subnormal=False), st.booleans()), min_size=1, max_size=60))
def test_calibration_error_is_guos(pairs: list[tuple[float, bool]]) -> None:
    sure, right = [c for c, _ in pairs], [float(r) for _, r in pairs]
    if any(abs(c * 15 - round(c * 15)) < 1e-6 and c for c in sure):
        return  # on an edge, either bin is right
    assert calibration_error(reliability(sure, right)) == pytest.approx(guo(sure, right), abs=1e-9)


def test_edges_belong_to_the_lower_bin() -> None:
    assert [one.high for one in reliability([0.2, 1.0], [1, 1], bins=5)] == pytest.approx([0.2, 1.0])


def test_adaptive_bins_hold_equally_many() -> None:
    sure = np.linspace(0.5, 1, 31).tolist()
    bins = adaptive_reliability(sure, [1.0] * 31)
    assert {one.n for one in bins} == {2, 3}
    assert sum(one.n for one in bins) == 31
    assert calibration_error(bins) == pytest.approx(1 - np.mean(sure))


# -- metrics -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "references"),
    [("multi_label_f1", ["[]", '["a", "b c"]']), ("closeness", ["0", "-3.5"]), ("within", ["0", "1e300", "-3.5"])],
)
def test_metrics_keep_the_contract(name: str, references: list[str]) -> None:
    check_metric(METRICS.get(name), references=references)


@pytest.mark.parametrize(
    ("output", "score", "all_right"),
    [
        ('["late", "damaged"]', 1.0, 1.0),
        ("damaged, late", 1.0, 1.0),
        ("Late", 2 / 3, 0.0),
        ("[]", 0.0, 0.0),
        ("late; lost", 0.5, 0.0),
    ],
)
def test_several_labels_are_scored_by_f1(output: str, score: float, all_right: float) -> None:
    found = METRICS.get("multi_label_f1").score(
        output, '["late", "damaged"]', MetricContext(labels=("late", "damaged"))
    )
    assert found.value == pytest.approx(score)
    assert found.parts["all_right"] == all_right
    assert found.parts["known"] == float("lost" not in output)


@pytest.mark.parametrize(
    ("text", "number"),
    [("about 1,204.5 euros", 1204.5), ("-3", -3.0), ("no", None), ("1e3", 1000.0), (".5", 0.5), ("−2", -2.0)],
)
def test_the_first_number_in_a_text(text: str, number: float | None) -> None:
    assert number_in(text) == number


def test_closeness_and_within() -> None:
    closeness, within = METRICS.get("closeness"), METRICS.get("within")
    context = MetricContext()
    assert closeness.score("110", "100", context).value == pytest.approx(1 - 10 / 210)
    assert closeness.score("-5", "5", context).value == 0.0
    assert within.score("109", "100", context).value == 1.0
    assert within.score("111", "100", context).value == 0.0
