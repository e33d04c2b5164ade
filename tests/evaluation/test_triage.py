"""Each way of being wrong has its own word."""

from __future__ import annotations

import pytest
from evaluation_fakes import EXACT, JSON, make_answer, make_passage, make_row

from luthier.evaluation.metrics.base import METRICS, MetricContext
from luthier.evaluation.scoring import score_answers
from luthier.evaluation.systems import Item
from luthier.evaluation.triage import count_causes

SCHEMA = {
    "type": "object",
    "properties": {"code": {"type": "string"}, "kind": {"enum": ["a", "b"]}},
    "required": ["code", "kind"],
}
CONTEXT = MetricContext(schema=SCHEMA, facts=("code",))
REFERENCE = '{"code": "BX-36", "kind": "a"}'


@pytest.mark.parametrize(
    ("output", "passage", "finish", "cause"),
    [
        ('{"code": "BX-36", "kind": "a"}', None, "end", None),
        ("It is BX-36.", None, "end", "does not parse"),
        ('{"code": "BX-36", "ki', None, "length", "cut off at the length limit"),
        ('{"code": "BX-36", "kind": "c"}', None, "end", "off schema"),
        ('{"code": "BX-37", "kind": "a"}', None, "end", "facts missing"),
        ('{"code": "BX-37", "kind": "a"}', "part BX-36", "end", "facts missing, though in the passages"),
        ('{"code": "BX-37", "kind": "a"}', "part BX-38", "end", "facts missing, and not in the passages"),
        ('{"code": "BX-36", "kind": "b"}', "part BX-36", "end", "other values wrong"),
        (None, "part BX-36", "failed", "generation failed: out of time"),
    ],
)
def test_extraction(output: str | None, passage: str | None, finish: str, cause: str | None) -> None:
    answer = make_answer(output, finish=finish, passages=(make_passage(passage),) if passage else ())
    item = Item.of(make_row("1", "q", REFERENCE))
    assert score_answers([item], [answer], JSON, CONTEXT)[0].cause == cause


@pytest.mark.parametrize(
    ("metric", "output", "passage", "cause"),
    [
        ("exact_match", "no", None, "wrong"),
        ("exact_match", "yes", None, None),
        ("exact_match", "no", "it says yes", "facts missing, though in the passages"),
        ("exact_match", "no", "it says nothing", "facts missing, and not in the passages"),
        ("label", "perhaps", None, "unknown label"),
        ("label", "no", None, "wrong"),
        ("chrf", "yes!", None, None),
        ("chrf", "", None, "nothing right"),
    ],
)
def test_other_metrics(metric: str, output: str, passage: str | None, cause: str | None) -> None:
    context = MetricContext(labels=("yes", "no")) if metric == "label" else MetricContext()
    answer = make_answer(output, passages=(make_passage(passage),) if passage else ())
    item = Item.of(make_row("1", "q", "yes"))
    assert score_answers([item], [answer], METRICS.get(metric), context)[0].cause == cause


def test_an_answer_without_parts_that_was_cut_off_says_so() -> None:
    item = Item.of(make_row("1", "q", "yes"))
    assert score_answers([item], [make_answer("well", finish="length")], EXACT, MetricContext())[0].cause == (
        "cut off at the length limit"
    )


def test_counts_put_failures_of_any_reason_together() -> None:
    causes = ["generation failed: a", None, "wrong", "generation failed: b", "does not parse"]
    assert count_causes(causes) == {"generation failed": 2, "wrong": 1, "does not parse": 1}
