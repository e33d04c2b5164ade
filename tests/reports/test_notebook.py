"""Results as notebook tables: the figures, escaped."""

from __future__ import annotations

import pytest
import samples
from test_page import Reader

from luthier.advice.rules import advise
from luthier.ground.result import Result
from luthier.reports.notebook import to_html

RESULTS: dict[str, tuple[Result, list[str]]] = {
    "compare": (samples.compare(), ["finetuned + passages", "82.5%", "76.6 to 87.1%", "86.0%", "1.8 s"]),
    "plain": (samples.plain_compare(), ["45.3%", "0 of 12"]),
    "train": (samples.training(), ["81,920", "0.131", "loss"]),
    "advice": (advise(samples.compare(), None, task_file="t.yaml"), ["R17", "luthier train t.yaml"]),
    "check": (samples.bad_check(), ["not fit to train on", "390", "25,600"]),
    "prompt": (samples.prompt(), ["4.2%", "✓"]),
    "search": (samples.search(), ["brakes.md", "0.0328"]),
    "index": (samples.index(), ["chunks", "96", "minilm-l6"]),
    "provenance": (samples.provenance(), ["134,515,008"]),
}


@pytest.mark.parametrize("name", RESULTS)
def test_tables_hold_the_figures(name: str) -> None:
    result, wanted = RESULTS[name]
    shown = Reader(to_html(result)).text
    assert [figure for figure in wanted if figure not in shown] == []


def test_hostile_texts_are_escaped() -> None:
    evil = "<script>alert(1)</script>"
    reader = Reader(to_html(samples.compare(verdict=evil, systems=[samples.system("rag", 0.1, title=evil)])))
    assert "script" not in {tag for tag, _ in reader.tags} and evil in reader.text
    assert "script" not in {tag for tag, _ in Reader(to_html(samples.index().model_copy(update={"store": evil}))).tags}


def test_the_style_does_not_leave_its_division() -> None:
    style = Reader(to_html(samples.compare())).style
    assert ":root" not in style and ".luthier" in style
