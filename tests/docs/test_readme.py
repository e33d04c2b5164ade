"""The README's commands run, its table names real verbs, and its YAML is a task file."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from luthier.ground.spec import TaskSpec
from tests.verbs.conftest import tiny_model

__all__ = ["tiny_model"]
ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
VERBS = {
    "doctor",
    "start",
    "schema",
    "check",
    "plan",
    "prompt",
    "index",
    "search",
    "train",
    "infill",
    "classify",
    "compare",
    "advise",
    "report",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The tickets task, small and on a tiny model, where a fresh clone would have it."""
    root = tmp_path_factory.mktemp("clone")
    ignored = shutil.ignore_patterns("runs", "__pycache__")
    shutil.copytree(ROOT / "examples" / "tickets", root / "examples" / "tickets", ignore=ignored)
    task = root / "examples" / "tickets" / "task.yaml"
    plain = yaml.safe_load(task.read_text())
    plain["model"] = str(tiny_model)
    plain["data"]["sample"] = {"train": 12, "dev": 4, "test": 6}
    plain["retrieval"] = {"method": "keyword", "embedding": None, "passages": 1}
    plain["generation"] = {"max_new_tokens": 4, "precision": "fp32"}
    plain["prompt"] = {"examples": [0], "dev_items": 2}
    plain["train"] |= {"max_steps": 1, "precision": "fp32"}
    task.write_text(yaml.safe_dump(plain))
    return root


def test_the_shell_commands_run(clone: Path) -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    assert len(commands) >= 5
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "luthier"
        done = subprocess.run(
            [sys.executable, "-m", "luthier", *words[1:]], cwd=clone, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_the_python_block_runs(clone: Path) -> None:
    for block in blocks("python"):
        done = subprocess.run([sys.executable, "-c", block], cwd=clone, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("True ")


def test_the_yaml_is_a_task_file() -> None:
    for block in blocks("yaml"):
        TaskSpec.model_validate(yaml.safe_load(block))


def test_every_command_named_is_a_verb() -> None:
    named = set(re.findall(r"`luthier ([a-z]+)", README))
    assert named and named <= VERBS


def test_every_linked_file_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.slow
@pytest.mark.model
def test_the_quickstart_itself(tmp_path: Path) -> None:
    """The whole quickstart on the real model, in a copy; the claims of its page are held to its own numbers."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("runs", "__pycache__"))
    script = tmp_path / "examples" / "tickets" / "quickstart.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=2400)
    assert done.returncode == 0, done.stderr
    from luthier.ground.results import CompareResult

    run = tmp_path / "examples" / "tickets" / "runs" / "compare-001"
    result = CompareResult.model_validate_json((run / "report.json").read_text())
    systems = {system.name: system for system in result.systems}
    assert systems["finetuned"].metrics["form"].score > 0.9 > 0.2 > systems["base"].metrics["form"].score
    assert systems["rag"].metrics["facts"].score > systems["finetuned"].metrics["facts"].score
    assert max(result.systems, key=lambda system: system.score).name == "finetuned+rag"
    assert (run / "report.html").stat().st_size > 20_000
