"""A plan on the page and in a notebook: there when there is a plan, whole, escaped, and gone without one."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import plan_samples
import pytest
import samples
from test_page import EVIL, Reader

from luthier.advice.rules import advise
from luthier.ground import words
from luthier.ground.plan_result import PlanResult
from luthier.reports.notebook import to_html
from luthier.reports.page import page_html
from luthier.reports.plan_words import terms_of

report_verb = importlib.import_module("luthier.verbs.report")


def page_of(plan: PlanResult | None, **changes: Any) -> str:
    result = samples.compare(**changes)
    return page_html(result, advise(result, None, task_file="task.yaml"), plan)


def test_without_a_plan_the_section_is_not_there() -> None:
    page = page_of(None)
    assert "What it needs" not in page and 'href="#needs"' not in page
    assert "Peak memory, predicted and measured" not in page and "2.41 GB at most" in page


@pytest.mark.parametrize("make", ["plan", "giant", "inference", "sharded", "bare"])
def test_every_term_stands_on_the_page(make: str) -> None:
    plan: PlanResult = getattr(plan_samples, make)()
    reader = Reader(page_of(plan))
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and "needs" in ids
    assert plan.sentence in reader.text and plan.model in reader.text and "None" not in reader.text
    for term in terms_of(plan):
        assert f"{term.name} {words.exact_size(term.number_bytes)} {words.percent(term.share)}" in reader.text
        assert term.formula in reader.text and term.source in reader.text


def test_choices_comparisons_and_measurements_stand_on_the_page() -> None:
    shown = Reader(page_of(plan_samples.plan())).text
    wanted = ["train.checkpointing: full 1.12 GB −398 MB +30 % ✓ same mathematics", "16 bytes per parameter 2.15 GB"]
    wanted += ["lora r16 chosen 1.52 GB 4.31 s ✓", "predicted 1.52 GB, measured 1.57 GB", "After 911 requests"]
    wanted += ["backward, block 29", "12 of 400 rows", "Of the overhead, 352 MB are", "0.041 kWh", "runs/plan-001"]
    assert [part for part in wanted if part not in shown] == []
    small = Reader(page_of(plan_samples.bare())).text
    for part in ("Memory against time", "What a change would do", "What rules of thumb say", "break-even", "energy"):
        assert part not in small


def test_trainings_show_predicted_against_measured() -> None:
    trainings = {
        "finetuned": samples.training("finetuned", peak_bytes=1_570_000_000, predicted_peak_bytes=1_520_000_000),
        "finetuned+rag": samples.training(),
    }
    page = page_of(None, training=trainings)
    shown = Reader(page).text
    assert "predicted 1.52 GB, measured 1.57 GB (−3.2 %)" in shown and "2.41 GB at most" in shown
    assert "Peak memory, predicted and measured" in shown and 'id="plan-measured-title"' in page


def test_hostile_texts_are_shown_and_do_nothing() -> None:
    plan = plan_samples.plan(
        model=EVIL, architecture=EVIL, device=EVIL, sentence=EVIL, warnings=[EVIL], peak_at=EVIL, limit_source=EVIL,
        settings={EVIL: EVIL}, choice={EVIL: EVIL}, rules={EVIL: 1},
        concessions=[plan_samples.concession(EVIL, 1, 0.1, settings={})],
        frontier=[plan_samples.point(EVIL, 1.0, 1.0, chosen=True), plan_samples.point("b", 2.0, 0.5)],
        notes=[plan_samples.notes()[0].model_copy(update={"formula": EVIL, "source": EVIL})],
    )  # fmt: skip
    for page in (page_of(plan), to_html(plan)):
        page.encode("utf-8")
        reader = Reader(page)
        assert not {tag for tag, _ in reader.tags} & {"script", "img"}
        assert reader.text.count("<script>alert(1)</script>") > 8
        assert not re.search("[\x00-\x08\x0b-\x1f\ud800-\udfff\u202e]", page) and "{{ 7 * 7 }}" in reader.text


def test_a_plan_in_a_notebook_has_its_figures() -> None:
    shown = Reader(to_html(plan_samples.plan())).text
    wanted = ["It fits: 1.52 GB", "498 MB", "32.8%", "28 min 44 s", "another algorithm", "lora r16", "12 of 400 rows"]
    assert [part for part in wanted if part not in shown] == []
    assert "measured: error" in shown and "term" in Reader(to_html(plan_samples.bare())).text
    assert "8, fsdp" in Reader(to_html(plan_samples.sharded())).text
    assert plan_samples.giant().model in Reader(to_html(plan_samples.giant())).text


def test_a_doctor_in_a_notebook_is_a_table() -> None:
    shown = Reader(to_html(plan_samples.doctor())).text
    wanted = [
        "Work in bf16 here.",
        "fp32 native 170 GFLOP/s 1.00",
        "fp8 absent – –",
        "P1: fp16 overflows",
        "not finite",
    ]
    assert [part for part in wanted if part not in shown] == []
    evil = plan_samples.doctor(sentence="<script>x</script>", trials=[])
    assert "script" not in {tag for tag, _ in Reader(to_html(evil)).tags}


def test_the_report_shows_the_newest_plan_of_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"input": "a", "output": "b"}]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = tmp_path / "task.yaml"
    task.write_text("name: t\nmodel: m\ndata: {train: train.jsonl, dev: dev.jsonl, test: test.jsonl}\n")
    result = samples.compare(run=str(tmp_path))
    monkeypatch.setattr(report_verb, "evidence", lambda task, run: result)
    monkeypatch.setattr(report_verb, "advise", lambda task, run, tell: advise(result, None, task_file="task.yaml"))
    page = report_verb.report(task, out=tmp_path / "page.html").page
    assert "What it needs" not in Path(page).read_text()
    for name, sentence in (("plan-002", "It fits in the second plan."), ("plan-001", "It fits in the first plan.")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        written = plan_samples.plan(sentence=sentence).model_dump_json()
        (tmp_path / "runs" / name / "report.json").write_text(written)
    page = report_verb.report(task, out=tmp_path / "page.html").page
    assert "It fits in the second plan." in Path(page).read_text() and "first plan" not in Path(page).read_text()
