"""The example of a longer window: its data, a few steps of it, and (slow) that it does what it says."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import luthier as lu
from luthier.ground.objective_results import ContextResult

EXAMPLE = Path(__file__).parents[2] / "examples" / "long_context"
BASE, SCALED, FINETUNED = "base", "base, positions scaled", "finetuned"


def copied(folder: Path) -> Path:
    for name in ("generate.py", "base.yaml", "task.yaml"):
        shutil.copyfile(EXAMPLE / name, folder / name)
    return folder


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("long_context_generate", EXAMPLE / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def share(found: ContextResult, system: str, test: str = "passkey", *, beyond: bool = True) -> float:
    """Of what stands beyond the old window, or within it."""
    of_test = [c for c in found.cells if (c.system, c.test) == (system, test)]
    cells = [c for c in of_test if (c.length > found.old_window) is beyond]
    return sum(cell.right for cell in cells) / sum(cell.n for cell in cells)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = copied(tmp_path_factory.mktemp("long_context"))
    generator().main(made, scale=0.02)
    return made


def test_the_committed_rows_are_what_the_generator_makes(folder: Path) -> None:
    for name in ("test.jsonl", "dev.jsonl"):
        assert (folder / name).read_text() == (EXAMPLE / name).read_text(), name


def test_rows_are_as_long_as_they_should_be(folder: Path) -> None:
    short = lu.check(lu.load_task(folder / "base.yaml"))
    assert short.ok and short.rows["train"].dropped == 0
    long = lu.check(lu.load_task(folder / "task.yaml", ["model=start"]))
    assert long.ok and long.rows["train"].dropped == 0
    assert long.tokens["train"].total > 2 * short.tokens["train"].total / short.rows["train"].read


def test_a_few_steps_of_it(folder: Path) -> None:
    short = lu.train(lu.load_task(folder / "base.yaml", ["train.max_steps=3"]))
    shutil.copytree(short.adapter, folder / "base")
    task = lu.load_task(
        folder / "task.yaml", ["train.max_steps=2", "data.sample.test=2", "context.trials=1", "context.depths=1"]
    )
    assert lu.plan(task).fits is not False
    result = lu.compare(task)
    assert result.context is not None
    assert {cell.length for cell in result.context.cells} == {128, 256, 384, 512}
    assert Path(lu.report(task).page).is_file()


@pytest.mark.slow
def test_from_failing_to_nine_of_ten_beyond_the_old_window(tmp_path: Path) -> None:
    made = copied(tmp_path)
    subprocess.run([sys.executable, "generate.py", "."], cwd=made, check=True)
    short = lu.train(made / "base.yaml")
    shutil.copytree(short.adapter, made / "base")
    found = lu.compare(made / "task.yaml").context
    assert found is not None
    (tmp_path / "context.json").write_text(json.dumps(found.model_dump(mode="json")))
    assert share(found, BASE, beyond=False) >= 0.9
    assert share(found, BASE) < 0.3  # none to a fifth, from training to training
    assert share(found, FINETUNED) >= 0.9
    assert share(found, FINETUNED, "needle") >= share(found, BASE, "needle", beyond=False) - 0.1
    assert found.short_loss[FINETUNED] <= 1.01 * found.short_loss[BASE]
