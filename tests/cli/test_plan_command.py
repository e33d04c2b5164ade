"""`luthier plan` as people meet it: help at once, one JSON object, exit 0 whenever it could answer."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.cli.test_command_line import luthier
from tests.verbs.conftest import task_folder, tiny_model

__all__ = ["task_folder", "tiny_model"]


def test_help_of_plan_is_quick_and_names_its_options() -> None:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = luthier("plan", "--help")
        times.append(time.perf_counter() - began)
    assert done.returncode == 0 and min(times) < 0.5
    for option in ("--model", "--method", "--device", "--devices", "--memory", "--measure", "--set", "--json"):
        assert option in done.stdout, option


def test_json_is_one_object_and_what_does_not_fit_exits_0(task_folder: Path) -> None:
    done = luthier("plan", "task.yaml", "--memory", "100MB", "--json", cwd=task_folder)
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    assert plain["fits"] is False and plain["limit_bytes"] == 100_000_000
    assert sum(plain["terms"].values()) == plain["peak_bytes"]
    promised = {"terms", "peak_bytes", "peak_at", "step_s", "total_s", "fits", "choice", "concessions", "frontier"}
    assert promised <= set(plain)
    assert plain == json.loads((task_folder / "runs" / "plan-001" / "report.json").read_text())
    assert "tracing" in done.stderr


def test_options_are_settings_of_the_task_or_of_the_model(task_folder: Path, tiny_model: Path) -> None:
    levers = ["--checkpointing", "full", "--rank", "2", "--set", "train.optimizer=adafactor", "--json", "--quiet"]
    for words in (["task.yaml"], ["--model", str(tiny_model), "--seq", "32", "--batch", "3", "--device", "H100"]):
        done = luthier("plan", *words, *levers, cwd=task_folder)
        assert done.returncode == 0, done.stderr
        settings = json.loads(done.stdout)["settings"]
        assert (settings["train.checkpointing"], settings["train.adapter.rank"]) == ("full", 2)
        assert settings["train.optimizer"] == "adafactor"
    assert (json.loads(done.stdout)["batch"], json.loads(done.stdout)["seq"]) == (3, 32)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "MODEL", "--device", "RTX 9999"], "RTX 9999"),
        (["--model", "MODEL", "--method", "qlra"], 'did you mean "qlora"?'),
        (["--model", "MODEL", "--measure"], "need a task"),
        (["task.yaml", "--model", "MODEL"], "for a task or for a model"),
        ([], "for a task or for a model"),
        (["--model", "MODEL", "--set", "name=x"], '"name" is of a task file'),
        (["task.yaml", "--measure", "--device", "H100"], "measures this machine alone"),
    ],
)
def test_what_cannot_be_planned_exits_2_in_one_sentence(
    task_folder: Path, tiny_model: Path, words: list[str], said: str
) -> None:
    done = luthier("plan", *(str(tiny_model) if word == "MODEL" else word for word in words), cwd=task_folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr and done.stdout == ""
    told = [line for line in done.stderr.splitlines() if not line.startswith("·")]
    assert len(told) == 1 and told[0].startswith("luthier: ")


def test_training_that_cannot_fit_exits_1(task_folder: Path) -> None:
    done = luthier("train", "task.yaml", "--set", "budget.memory=100MB", cwd=task_folder)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "budget.memory" in done.stderr and "the smallest that was found needs" in done.stderr
    assert not list((task_folder / "runs").glob("train-*/step-*"))
