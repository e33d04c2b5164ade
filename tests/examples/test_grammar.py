"""The grammar example keeps its promises: reproducible, leak-free, errors of all kinds, a model that can be made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import luthier as lu
from luthier.evaluation.metrics.base import METRICS, MetricContext
from luthier.ground.results import CompareResult

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "grammar"
SPLITS = {"train": 8000, "dev": 120, "test": 300, "corpus": 3000}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its rows, generated anew."""
    folder = tmp_path_factory.mktemp("grammar") / "grammar"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("runs", "pretrain*d", "pretraining", "untrained"))
    subprocess.run([sys.executable, "generate.py"], cwd=folder, check=True, capture_output=True)
    return folder


def rows(example: Path, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (example / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_generator_writes_the_committed_files(example: Path) -> None:
    for split in ("dev", "test"):
        assert (example / f"{split}.jsonl").read_bytes() == (FOLDER / f"{split}.jsonl").read_bytes()
    assert {split: len(rows(example, split)) for split in SPLITS} == SPLITS


def test_no_right_sentence_stands_in_two_splits(example: Path) -> None:
    right = {split: [row.get("completion") or row["text"] for row in rows(example, split)] for split in SPLITS}
    everything = [sentence for sentences in right.values() for sentence in sentences]
    assert len(set(everything)) == len(everything)


def test_most_sentences_have_errors_and_some_have_none(example: Path) -> None:
    test = rows(example, "test")
    untouched = sum(row["prompt"] == row["completion"] for row in test)
    assert 0.08 * len(test) < untouched < 0.2 * len(test)
    assert left_alone(example) < 0.5


def test_every_kind_of_error_occurs(example: Path) -> None:
    pairs = [(row["prompt"].split(), row["completion"].split()) for row in rows(example, "train")]
    assert any(len(wrong) < len(right) for wrong, right in pairs)  # an article left out
    assert any(wrong != right and sorted(wrong) == sorted(right) for wrong, right in pairs)  # order
    changed = {(a, b) for wrong, right in pairs if len(wrong) == len(right) for a, b in zip(wrong, right, strict=True)}
    assert {("a", "an"), ("an", "a"), ("wait", "waits"), ("waits", "wait"), ("at", "for")} <= changed
    known = {word for _, right in pairs for word in right}
    assert any(wrong not in known for wrong, _ in changed)  # spelling


def test_a_model_is_made_pretrained_finetuned_and_compared(example: Path, tmp_path: Path) -> None:
    result = run(example, tmp_path, 48, ["train.max_steps=2"], ["train.max_steps=3", "data.sample.test=8"])
    assert [system.name for system in result.systems] == ["base", "finetuned"]
    assert result.training["finetuned"].objective == "sft"
    assert all(system.n_failed == 0 for system in result.systems)


@pytest.mark.slow
def test_finetuned_it_corrects(example: Path, tmp_path: Path) -> None:
    """The whole run: about ten minutes on two cores."""
    result = run(example, tmp_path, 192, [], [])
    base, finetuned = (system.score for system in result.systems)
    assert finetuned > max(base, left_alone(example)) + 0.1


def run(example: Path, folder: Path, width: int, pretraining: list[str], finetuning: list[str]) -> CompareResult:
    code = (
        "import sys, make_model; from pathlib import Path; "
        f"make_model.main(Path('.'), Path({str(folder)!r}), *{pretraining!r}, width={width})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=example, check=True, capture_output=True)
    task = lu.load_task(example / "task.yaml", [f"model={folder / 'pretrained'}", *finetuning])
    return lu.compare(task, out=folder / "compared")


@cache
def left_alone(example: Path) -> float:
    """The mean score of sentences that are left as they were."""
    metric, test = METRICS.get("gec_gleu"), rows(example, "test")
    scores = [metric.score(row["prompt"], row["completion"], MetricContext(source=row["prompt"])).value for row in test]
    return sum(scores) / len(scores)
