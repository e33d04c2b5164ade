"""The comparison: wired to the statistics rightly, with the declared contrasts and honest words."""

from __future__ import annotations

import pytest
from evaluation_fakes import EXACT, JSON, make_answer, make_row, make_run
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from luthier.evaluation.comparison import choose_examples, clusters_of, compare_systems, declared_pairs
from luthier.evaluation.metrics.base import METRICS, MetricContext
from luthier.evaluation.scoring import SystemRun, score_answers
from luthier.evaluation.sentences import headline
from luthier.evaluation.statistics import newcombe_paired
from luthier.evaluation.systems import Item
from luthier.ground.errors import BadInput

NONE = MetricContext()


def five_systems(n: int = 60) -> list[SystemRun]:
    def right(count: int) -> list[int]:
        return [1] * count + [0] * (n - count)

    return [
        make_run("base", right(0)),
        make_run("prompt", right(6), dev_score=0.1),
        make_run("rag", right(12), dev_score=0.2),
        make_run("finetuned", right(45), dev_score=0.7),
        make_run("finetuned+rag", right(55), dev_score=0.9),
    ]


def test_four_contrasts_with_the_rival_chosen_on_dev() -> None:
    done = compare_systems(five_systems(), EXACT, NONE)
    assert [(c.a, c.b) for c in done.contrasts] == [
        ("prompt", "base"), ("rag", "prompt"), ("finetuned", "prompt"), ("finetuned+rag", "finetuned"),
    ]  # fmt: skip
    assert [s.name for s in done.systems] == ["base", "prompt", "rag", "finetuned", "finetuned+rag"]
    assert [c.verdict for c in done.contrasts] == ["better", "better", "better", "better"]


@pytest.mark.parametrize(
    ("dev", "pairs"),
    [
        ({"base": None, "prompt": 0.1}, [("prompt", "base")]),
        ({"prompt": 0.1, "finetuned": 0.5}, [("finetuned", "prompt")]),
        ({"base": None, "finetuned": 0.5}, []),
        ({"rag": 0.5, "finetuned+rag": 0.5}, [("finetuned+rag", "rag")]),
        ({"rag": 0.4, "finetuned": 0.5, "finetuned+rag": 0.5}, [("finetuned+rag", "finetuned")]),
        ({"rag": 0.5, "finetuned": 0.5, "finetuned+rag": 0.5}, [("finetuned+rag", "rag")]),
        ({"rag": None, "finetuned": None, "finetuned+rag": None}, [("finetuned+rag", "rag")]),
        ({"endpoint": None}, []),
    ],
)
def test_only_contrasts_whose_systems_ran(dev: dict[str, float | None], pairs: list[tuple[str, str]]) -> None:
    assert declared_pairs(dev) == pairs
    runs = [make_run(name, [1, 0, 1], dev_score=score) for name, score in dev.items()]
    assert [(c.a, c.b) for c in compare_systems(runs, EXACT, NONE).contrasts] == pairs


def test_numbers_are_those_of_the_peers() -> None:
    """60 items: both right 20, only a right 25, only b right 4, both wrong 11."""
    a = [1] * 45 + [0] * 15
    b = [1] * 20 + [0] * 25 + [1] * 4 + [0] * 11
    done = compare_systems([make_run("prompt", a), make_run("base", b)], EXACT, NONE, margin=0.03)
    system, contrast = done.systems[0], done.contrasts[0]
    assert system.score == 0.75
    assert system.interval == pytest.approx(proportion_confint(45, 60, method="wilson"))
    assert contrast.difference == pytest.approx(21 / 60)
    assert contrast.interval == pytest.approx(tuple(newcombe_paired(20, 25, 4, 11)))
    exact = binomtest(4, 29).pvalue
    point = 2 * 0.5**29 * 23751 / 2  # half of both tails' own point, C(29, 4) = 23751
    assert contrast.p == pytest.approx(exact - point)
    assert contrast.p_holm == contrast.p
    assert contrast.sentence.startswith("prompt is better than base by 35.0 points (95% interval +")
    assert contrast.sentence.endswith("p < 0.001)")


def test_holm_counts_the_contrasts_that_were_made() -> None:
    done = compare_systems(five_systems(), EXACT, NONE)
    smallest = min(done.contrasts, key=lambda c: c.p)
    assert smallest.p_holm == pytest.approx(4 * smallest.p)


def test_failed_answers_count_as_wrong_and_are_told() -> None:
    done = compare_systems([make_run("base", [1, None, None, 0]), make_run("prompt", [1, 1, 1, 0])], EXACT, NONE)
    base = done.systems[0]
    assert (base.n_total, base.n_failed, base.score) == (4, 2, 0.25)
    assert base.causes == {"generation failed": 2, "wrong": 1}
    assert done.contrasts[0].difference == 0.5


def test_three_items_claim_nothing_and_break_nothing() -> None:
    done = compare_systems([make_run("base", [0, 0, 0]), make_run("prompt", [1, 1, 0])], EXACT, NONE)
    contrast = done.contrasts[0]
    assert contrast.verdict == "no evidence" and contrast.interval[0] < 0 < contrast.interval[1]
    assert contrast.detectable > 0.5 and contrast.more_items is not None and contrast.more_items > 0
    assert contrast.sentence.startswith("no evidence either way between prompt and base: 3 items could only have shown")
    assert f"about {contrast.more_items} more would show" in contrast.sentence
    assert "not shown to be better than base" in headline(done.systems, done.contrasts, binary=True)


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_any_items(n: int) -> None:
    done = compare_systems([make_run("base", [0] * n), make_run("prompt", [1] * n)], EXACT, NONE)
    assert done.contrasts[0].verdict == "no evidence" and done.systems[0].n_total == n


def test_equal_systems_are_not_called_equal() -> None:
    same = [1, 0] * 15
    done = compare_systems([make_run("base", same), make_run("prompt", same)], EXACT, NONE)
    assert done.contrasts[0].sentence.startswith("no evidence either way between prompt and base: 30 items could only")
    assert "more would" not in done.contrasts[0].sentence


def test_non_inferior_within_the_margin() -> None:
    same = [1, 0] * 200
    done = compare_systems([make_run("base", same), make_run("prompt", same)], EXACT, NONE, margin=0.05)
    assert done.contrasts[0].verdict == "non-inferior"
    assert "not worse than base by more than the margin of 5.0 points" in done.contrasts[0].sentence


def test_repeating_groups_are_clusters() -> None:
    alone = make_run("base", [0, 1] * 30)
    groups = [f"g{n // 4}" for n in range(60)]
    together = make_run("base", [0, 1] * 30, groups)
    assert clusters_of(alone.scores) is None
    assert clusters_of(make_run("base", [0, 1], ["a", "b"]).scores) is None
    assert clusters_of(make_run("base", [0, 1, 1], ["a", None, "a"]).scores) == ["group a", "item 1", "group a"]
    right = [1 if n // 4 % 2 else 0 for n in range(60)]
    free = compare_systems([alone, make_run("prompt", right)], EXACT, NONE).contrasts[0]
    bound = compare_systems([together, make_run("prompt", right, groups)], EXACT, NONE).contrasts[0]
    assert free.difference == bound.difference and "cluster" in bound.method and "cluster" not in free.method


def test_few_groups_are_too_few_to_claim_anything() -> None:
    groups = ["a", "b", "c"] * 20
    done = compare_systems([make_run("base", [0] * 60, groups), make_run("prompt", [1] * 60, groups)], EXACT, NONE)
    assert done.contrasts[0].verdict == "no evidence"
    assert done.contrasts[0].sentence.endswith("60 items in 3 groups are too few to claim anything")


def test_parts_have_measures_of_their_kind() -> None:
    items = [Item.of(make_row(str(n), "q", '{"a": 1, "b": 2}')) for n in range(20)]
    answers = [make_answer('{"a": 1, "b": 3}' if n < 15 else "no") for n in range(20)]
    run = SystemRun("base", "base", tuple(score_answers(items, answers, JSON, NONE)))
    metrics = compare_systems([run], JSON, NONE).systems[0].metrics
    assert set(metrics) == {"parse", "field_f1", "exact"}
    assert metrics["parse"].score == 0.75
    assert metrics["parse"].interval == pytest.approx(proportion_confint(15, 20, method="wilson"))
    assert metrics["field_f1"].score == pytest.approx(0.375)
    assert metrics["field_f1"].interval != pytest.approx(proportion_confint(7.5, 20, method="wilson"), abs=1e-6)


def test_continuous_metrics_are_bootstrapped() -> None:
    chrf = METRICS.get("chrf")
    items = [Item.of(make_row(str(n), "q", f"the answer number {n}")) for n in range(30)]

    def run(name: str, text: str) -> SystemRun:
        return SystemRun(name, name, tuple(score_answers(items, [make_answer(text)] * 30, chrf, NONE)))

    done = compare_systems([run("base", "zzz"), run("prompt", "the answer number 7")], chrf, NONE)
    assert "bootstrap" in done.contrasts[0].method and done.contrasts[0].verdict == "better"
    assert headline(done.systems, done.contrasts, binary=False).startswith("Prompt is best: it scores ")


def test_latency_and_tokens() -> None:
    items = [Item.of(make_row(str(n), "q", "yes")) for n in range(101)]
    answers = [make_answer("yes", seconds=n / 100, prompt_tokens=n, output_tokens=2) for n in range(101)]
    run = SystemRun("base", "base", tuple(score_answers(items, answers, EXACT, NONE)), 4.0, 7, 9.0, 0.5, 0.25)
    system = compare_systems([run], EXACT, NONE).systems[0]
    assert (system.latency_s.p50, system.latency_s.p95) == (pytest.approx(0.5), pytest.approx(0.95))
    assert (system.prompt_tokens, system.output_tokens) == (50.0, 2.0)
    assert (system.total_seconds, system.peak_bytes, system.train_seconds, system.cost, system.dev_score) == (
        4.0, 7, 9.0, 0.5, 0.25,
    )  # fmt: skip


def test_systems_must_answer_the_same_items() -> None:
    with pytest.raises(BadInput, match="did not answer the same items"):
        compare_systems([make_run("base", [1, 0]), make_run("prompt", [1, 0, 1])], EXACT, NONE)
    with pytest.raises(BadInput, match="runs twice"):
        compare_systems([make_run("base", [1]), make_run("base", [1])], EXACT, NONE)


def test_examples_are_spread_over_patterns() -> None:
    runs = [
        make_run("base", [0, 0, 0, 0, 0, 0, 0, 1, 1, 0]),
        make_run("prompt", [1, 1, 1, 1, 1, 1, 1, 0, 1, 0]),
    ]
    examples = choose_examples(runs, most=3)
    assert [example.id for example in examples] == ["0", "7", "1"]
    assert examples[0].outputs == {"base": "no", "prompt": "yes"} and examples[0].scores == {"base": 0.0, "prompt": 1.0}
    assert choose_examples([make_run("base", [1, 0]), make_run("prompt", [1, 0])]) == []
    assert choose_examples([]) == []
    failed = choose_examples([make_run("base", [None]), make_run("prompt", [1])])
    assert failed[0].outputs["base"] == "(generation failed: out of time)"


def test_headline() -> None:
    done = compare_systems(five_systems(), EXACT, NONE)
    sentence = headline(done.systems, done.contrasts, binary=True, target=0.99)
    assert sentence == (
        "Finetuned+rag is best: it answers 91.7% of 60 test items right (81.9 to 96.4%), "
        "below the target of 99.0%, 16.7 points more than finetuned."
    )
    nothing = compare_systems([make_run("base", [0, 0]), make_run("prompt", [0, 0])], EXACT, NONE)
    assert headline(nothing.systems, nothing.contrasts, binary=True) == "No system got any of the 2 test items right."
    worse = compare_systems([make_run("base", [1] * 60), make_run("prompt", [0] * 60)], EXACT, NONE)
    assert headline(worse.systems, worse.contrasts, binary=True).endswith(", and prompt is worse.")
    assert headline([], [], binary=True) == "No system ran."


def test_the_task_sets_the_confidence() -> None:
    runs = [make_run("base", [0] * 6 + [1] * 2 + [1] * 20), make_run("prompt", [1] * 6 + [0] * 2 + [1] * 20)]
    strict, loose = (compare_systems(runs, EXACT, NONE, confidence=level) for level in (0.95, 0.7))
    assert 0.05 < strict.contrasts[0].p == loose.contrasts[0].p < 0.3
    assert (strict.contrasts[0].verdict, loose.contrasts[0].verdict) == ("no evidence", "better")
    assert loose.contrasts[0].sentence.startswith("prompt is better than base by 14.3 points (70% interval")
    assert loose.systems[0].interval[0] > strict.systems[0].interval[0]
