"""The queues example keeps its promises: reproducible, leak-free, balanced; and the real run beats the majority."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from luthier.ground.errors import BadInput
from luthier.ground.task import load_task
from luthier.models.find import find_model
from luthier.verbs.compare import compare

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "queues"
SPLITS = {"train": 300, "dev": 60, "test": 240}


def rows(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    for name in ("generate.py", "phrases.py"):
        shutil.copy(FOLDER / name, tmp_path / name)
    subprocess.run([sys.executable, str(tmp_path / "generate.py")], check=True)
    for split in SPLITS:
        assert (tmp_path / f"{split}.jsonl").read_bytes() == (FOLDER / f"{split}.jsonl").read_bytes()


def test_splits_are_balanced_and_share_no_problem() -> None:
    labels = load_task(FOLDER / "task.yaml").spec.labels
    groups = {}
    for split, count in SPLITS.items():
        found = rows(split)
        assert len({row["text"] for row in found}) == count
        assert Counter(row["label"] for row in found) == dict.fromkeys(labels, count // len(labels))
        groups[split] = {row["group"] for row in found}
        assert all(row["group"].startswith(row["label"]) for row in found)
    assert not groups["train"] & groups["dev"]
    assert not (groups["train"] | groups["dev"]) & groups["test"]


def test_single_words_of_another_queue_do_not_tell() -> None:
    """Words that stand in problems of one training queue stand in letters of the others too, as settled matters."""
    for word, queue in (("card", "card"), ("machine", "cash"), ("rate", "exchange"), ("code", "login")):
        of = Counter(row["label"] for row in rows("train") if word in row["text"].lower())
        assert sum(of.values()) > of[queue] > 0


@pytest.mark.slow
def test_the_real_encoder_learns_the_queues(tmp_path: Path) -> None:
    try:
        find_model("minilm-l6")
    except BadInput as error:
        pytest.skip(f"the model's wheel is not at hand ({error})")
    for file in [*FOLDER.glob("*.jsonl"), FOLDER / "task.yaml"]:
        shutil.copy(file, tmp_path / file.name)
    result = compare(tmp_path / "task.yaml")
    assert [system.name for system in result.systems] == ["majority", "finetuned"]
    assert result.systems[1].score > 0.5
    assert result.classification is not None
    assert (result.classification.systems[1].ece or 1.0) < 0.3
