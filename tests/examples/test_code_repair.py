"""The code repair example keeps its promises: reproducible, leak-free, and every row needs its line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import luthier as lu
from luthier.evaluation.metrics.code_runner import run_python

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "code_repair"
SPLITS = {"train": 558, "dev": 48, "test": 140}


@cache
def rows(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_generator_writes_the_committed_files(tmp_path: Path) -> None:
    for name in ("generate.py", "families.py"):
        shutil.copy(FOLDER / name, tmp_path)
    subprocess.run([sys.executable, "generate.py"], cwd=tmp_path, check=True, capture_output=True)
    for split, count in SPLITS.items():
        assert (tmp_path / f"{split}.jsonl").read_bytes() == (FOLDER / f"{split}.jsonl").read_bytes()
        assert len(rows(split)) == count


def test_no_family_and_no_text_lies_in_two_splits() -> None:
    families = {split: {row["group"] for row in rows(split)} for split in SPLITS}
    texts = {split: {row["text"] for row in rows(split)} for split in SPLITS}
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not families[a] & families[b]
        assert not texts[a] & texts[b]
    assert sum(map(len, families.values())) == 48


def test_a_gap_is_a_line_without_its_indentation() -> None:
    for split in SPLITS:
        for row in rows(split):
            first, end = row["gap"]
            before, line = row["text"][:first], row["text"][first:end]
            assert not before.rsplit("\n", 1)[-1].strip() and row["text"][end] == "\n"
            assert line and line == line.strip() and "\n" not in line


@pytest.mark.parametrize("split", ["test", "dev"])
def test_the_right_line_passes_and_the_faulty_one_fails(split: str) -> None:
    """Run anew, by the metric's own runner: a few rows of each split, the faulty ones among them."""
    faulty = 0
    for row in rows(split)[:14]:
        text, (first, end) = row["text"], row["gap"]
        assert run_python(text).passed
        assert not run_python(text[:first] + "pass" + text[end:]).passed
        above = text[:first].rstrip(" ").splitlines()[-1].strip()
        if above.startswith("# faulty: "):
            faulty += 1
            assert not run_python(text[:first] + above.removeprefix("# faulty: ") + text[end:]).passed
    assert faulty


@pytest.mark.model
def test_the_check_finds_nothing_wrong(tmp_path: Path) -> None:
    sheet = lu.check(FOLDER / "task.yaml", out=tmp_path / "check")
    assert sheet.ok, sheet.reasons
    assert sheet.rows["train"].kept == 558 and sheet.end_token_trained


@pytest.mark.slow
@pytest.mark.model
def test_training_repairs_more_than_asking(tmp_path: Path) -> None:
    """On a sample: a third of the rows, trained once."""
    task = lu.load_task(
        FOLDER / "task.yaml",
        ["data.sample.train=200", "data.sample.test=40", "train.epochs=1", "compare.systems=[base, finetuned]"],
    )
    result = lu.compare(task, out=tmp_path / "run")
    scores = {system.name: system.score for system in result.systems}
    assert scores["finetuned"] > scores["base"] + 0.15
    adapter = result.training["finetuned"].adapter
    text = "def double(number):\n    <gap>\n\n\nassert double(2) == 4\n"
    assert lu.infill(text, adapter=adapter).fillings[0].finish == "end"
