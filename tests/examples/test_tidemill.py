"""The tide-mill example keeps its promises: reproducible, no page twice, its words new, its task file sound."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.verbs.conftest import tiny_model as tiny_model_of_verbs

import luthier as lu
from luthier.ground.task import load_task

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "tidemill"
DOCUMENTS = {"train": 150, "dev": 12, "test": 60, "replay": 40, "general": 40}


def texts(split: str, folder: Path = FOLDER) -> list[str]:
    return [json.loads(line)["text"] for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_generator_writes_the_committed_files_byte_for_byte(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "generate.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=120)
    for name in [*(f"{split}.jsonl" for split in DOCUMENTS), "words.txt"]:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name


def test_all_is_small_and_no_document_comes_twice() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.jsonl")) < 300_000
    every = [text for split in DOCUMENTS for text in texts(split)]
    assert {split: len(texts(split)) for split in DOCUMENTS} == DOCUMENTS
    assert len(set(every)) == len(every)


def test_the_words_stand_in_the_pages_and_nowhere_else() -> None:
    words = (FOLDER / "words.txt").read_text(encoding="utf-8").split()
    for word in words:
        assert sum(word in text for text in texts("train")) >= 10, word
        assert any(word in text for text in texts("test")), word
        assert not any(word in text for split in ("replay", "general") for text in texts(split))


def test_articles_become_replay_and_general_text(tmp_path: Path) -> None:
    article = "\n = Title = \n\n" + "A sentence of an article about something . " * 60 + "\n"
    (tmp_path / "running.txt").write_text(article * 100, encoding="utf-8")
    command = [sys.executable, str(FOLDER / "generate.py"), "--articles", str(tmp_path / "running.txt")]
    subprocess.run([*command, "--out", str(tmp_path / "out")], check=True, timeout=60)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"replay.jsonl", "general.jsonl"}
    assert len(texts("general", tmp_path / "out")) == 60


@pytest.fixture
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_of_verbs.__wrapped__(tmp_path_factory)  # type: ignore[no-any-return]


def copied_task(folder: Path) -> Path:
    """The example's files in a folder of their own, where runs are written."""
    for path in [*FOLDER.glob("*.jsonl"), FOLDER / "words.txt", FOLDER / "task.yaml"]:
        shutil.copyfile(path, folder / path.name)
    return folder / "task.yaml"


def test_it_trains_and_compares_on_a_tiny_model(tmp_path: Path, tiny_model: Path) -> None:
    overrides = [f"model={tiny_model}", "train.precision=fp32", "train.max_steps=6", "train.learning_rate=0.01"]
    overrides += ["data.sample={test: 12}", "generation.precision=fp32"]
    result = lu.compare(load_task(copied_task(tmp_path), overrides=overrides))
    assert result.language is not None and result.n_test == 12
    bits = {(loss.system, loss.text): loss.bits_per_byte for loss in result.language.losses}
    assert bits["finetuned", "domain"] < bits["base", "domain"]
    assert result.check is not None and result.check.ok


@pytest.mark.slow
@pytest.mark.model
def test_the_real_model_learns_the_mill(tmp_path: Path) -> None:
    result = lu.compare(copied_task(tmp_path))
    assert result.language is not None
    bits = {(loss.system, loss.text): loss.bits_per_byte for loss in result.language.losses}
    assert bits["finetuned", "domain"] < 0.6 * bits["base", "domain"]
    assert result.contrasts[0].verdict == "better"
