"""`luthier train --procs 2` on a whole task: the same result as in one process, one sentence when something happens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import luthier as lu
from luthier.ground.results import TrainResult
from luthier.ground.task import load_task

LUTHIER = [sys.executable, "-m", "luthier"]
LONG = ["--set", "train.epochs=400", "--set", "train.save_every=2", "--set", "train.eval_every=1000"]


def test_two_processes_give_the_result_of_one(task_folder: Path) -> None:
    events: list[Any] = []
    task = load_task(task_folder / "task.yaml", ["train.epochs=1", "train.learning_rate=0.001"])
    two = lu.train(task, procs=2, tell=events.append)
    one = lu.train(task)
    np.testing.assert_allclose([r.loss for r in two.history], [r.loss for r in one.history], rtol=1e-6)
    assert two.processes == 2 and (two.total_peak_bytes or 0) > two.peak_bytes
    assert (two.steps, two.tokens, two.rows, two.best_step) == (one.steps, one.tokens, one.rows, one.best_step)
    assert [event["step"] for event in events if event["kind"] == "step"] == list(range(1, two.steps + 1))
    report = TrainResult.model_validate_json((Path(two.run) / "report.json").read_text())
    assert report == two
    log = [json.loads(line)["kind"] for line in (Path(two.run) / "events.jsonl").read_text().splitlines()]
    assert log.count("begin") == log.count("end") == 1 and log.count("step") == two.steps


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_parent_saves_and_the_run_goes_on_in_one_process(task_folder: Path, number: int) -> None:
    run = task_folder / "run"
    parent = _begun(task_folder, run)
    _wait(lambda: any(run.glob("step-*")))
    parent.send_signal(number)
    _, err = parent.communicate(timeout=60)
    assert parent.returncode == 128 + number, err
    [told] = [line for line in err.splitlines() if line.startswith("luthier: ")]
    assert "which is saved; continue with: luthier train" in told and told.endswith("--procs 2.")
    done = _luthier("train", "task.yaml", "--out", "run", "--resume", *LONG, "--set", "budget.time=1s", at=task_folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_is_told_in_one_sentence(task_folder: Path, rank: int) -> None:
    run = task_folder / "run"
    parent = _begun(task_folder, run)
    _wait(lambda: any(run.glob("step-*")))
    _worker(parent.pid, rank).kill()
    _, err = parent.communicate(timeout=60)
    assert parent.returncode == 2
    [told] = [line for line in err.splitlines() if line.startswith("luthier: ")]
    assert f"process {rank} of 2 was killed (SIGKILL) after step" in told and "continue with: luthier train" in told


@pytest.mark.slow
def test_workers_of_a_killed_parent_save_and_leave(task_folder: Path) -> None:
    run = task_folder / "run"
    parent = _begun(task_folder, run)
    _wait(lambda: any(run.glob("step-*")))
    second = _luthier("train", "task.yaml", "--out", "run", "--resume", "--procs", "2", *LONG, at=task_folder)
    assert second.returncode == 2 and "in use by pid" in second.stderr
    workers = psutil.Process(parent.pid).children()
    parent.kill()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert len(gone) == 2 and not alive


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_the_same_program_under_torchrun(task_folder: Path, strategy: str) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = ["-m", "luthier", "train", "task.yaml", "--out", "run", "--json", "--set", f"train.strategy={strategy}"]
    done = subprocess.run(
        [*torchrun, *program], cwd=task_folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    result = TrainResult.model_validate_json(done.stdout)  # one object, of rank 0
    assert result.processes == 2 and Path(result.adapter).is_dir()


def _begun(folder: Path, run: Path) -> subprocess.Popen[str]:
    command = [*LUTHIER, "train", "task.yaml", "--out", str(run), "--procs", "2", *LONG]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _luthier(*words: str, at: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LUTHIER, *words], cwd=at, capture_output=True, text=True, check=False, timeout=120)


def _worker(parent: int, rank: int) -> psutil.Process:
    return next(p for p in psutil.Process(parent).children() if p.environ().get("RANK") == str(rank))


def _wait(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not there() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert there()
