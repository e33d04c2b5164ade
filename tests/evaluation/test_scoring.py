"""Scores: one per item, failures included, and written down whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from evaluation_fakes import EXACT, JSON, make_answer, make_items, make_passage, make_row, make_run

from luthier.evaluation.metrics.base import MetricContext
from luthier.evaluation.scoring import mean_score, run_system, score_answers, write_items
from luthier.evaluation.systems import Answer, Item
from luthier.ground.errors import BadInput

CONTEXT = MetricContext(facts=("code",))


def test_failed_answers_stay_in_the_denominator() -> None:
    run = make_run("s", [1, None, 0, None])
    assert len(run.scores) == 4 and run.mean == 0.25
    assert [score.failed for score in run.scores] == [False, True, False, True]
    assert run.scores[1].cause == "generation failed: out of time"


def test_a_failed_answer_gets_nothing_in_any_part() -> None:
    items = [Item.of(make_row("1", "q", '{"code": "A1"}'))]
    score = score_answers(items, [make_answer(None)], JSON, CONTEXT)[0]
    assert set(score.parts) == {"parse", "field_f1", "exact", "form", "facts"}
    assert score.score == 0.0 and not any(score.parts.values())


def test_a_missing_answer_is_refused_and_not_dropped() -> None:
    with pytest.raises(BadInput, match="gave 2 answers to 3 items"):
        score_answers(make_items(3), [make_answer("yes")] * 2, EXACT, MetricContext())


def test_no_items_have_mean_zero() -> None:
    assert mean_score([]) == 0.0


@pytest.mark.parametrize(("text", "held"), [("the code is A1", True), ("the code is A12", False), (None, None)])
def test_whether_the_passages_held_the_facts(text: str | None, held: bool | None) -> None:
    items = [Item.of(make_row("1", "q", '{"code": "A1"}'))]
    answer = make_answer("{}", passages=(make_passage(text),) if text else ())
    assert score_answers(items, [answer], JSON, CONTEXT)[0].facts_in_passages is held


def test_items_are_written_one_a_line(tmp_path: Path) -> None:
    items = [Item.of(make_row("a", "q", '{"code": "A1"}')), Item.of(make_row("b", "q", '{"code": "B2"}'))]
    good = make_answer('{"code": "A1"}\u2028', passages=(make_passage("A1", "p7"),), seconds=0.123456)
    scores = score_answers(items, [good, make_answer(None, cause="time-out")], JSON, CONTEXT)
    run = make_run("rag", [])
    write_items(tmp_path / "items.jsonl", [run.__class__("rag", "rag", tuple(scores))])
    text = (tmp_path / "items.jsonl").read_text(encoding="utf-8")
    first, second = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
    assert first == {
        "id": "a",
        "system": "rag",
        "output": '{"code": "A1"}\u2028',
        "score": 1.0,
        "failed": False,
        "cause": None,
        "seconds": 0.1235,
        "prompt_tokens": 10,
        "output_tokens": 4,
        "parts": {"parse": 1.0, "field_f1": 1.0, "exact": 1.0, "form": 1.0, "facts": 1.0},
        "passages": ["p7"],
        "facts_in_passages": True,
    }
    assert second["output"] is None and second["failed"] and second["cause"] == "generation failed: time-out"


def test_a_run_is_measured() -> None:
    class Slow:
        name, title = "slow", "a slow one"

        def answer(self, items: Sequence[Item], tell: object = None) -> list[Answer]:
            self.block = bytearray(30_000_000)
            return [make_answer("yes") for _ in items]

        def cost(self, answers: Sequence[Answer]) -> float:
            return 0.5 * len(answers)

    run = run_system(Slow(), make_items(4), EXACT, MetricContext(), train_seconds=3.0, dev_score=0.5)
    assert (run.name, run.title, run.mean, run.cost, run.train_seconds, run.dev_score) == (
        "slow", "a slow one", 1.0, 2.0, 3.0, 0.5,
    )  # fmt: skip
    assert run.total_seconds > 0 and run.peak_bytes > 30_000_000
