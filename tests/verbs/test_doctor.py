"""`luthier doctor`: the machine alone, a task's model in each precision, the run, and the exit codes."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import luthier as lu
from luthier.ground.doctor_result import DoctorResult
from luthier.ground.errors import BadInput
from luthier.machine import here
from luthier.machine.speed import Speeds
from luthier.verbs import doctor as verb
from luthier.verbs.workbench import Workbench

PRODUCTS = {"fp32": 2e11, "tf32": None, "bf16": 1e12, "fp16": 5e10, "fp8": 1.6e11, "int8": 2e12, "int4": 3.5e11}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Speeds as of a processor with AVX512-BF16, without measuring."""
    asked = {"fresh": False, "disturbed": False}

    def speeds(fresh: bool = False) -> Speeds:
        asked["fresh"] |= fresh
        return Speeds(PRODUCTS, 4e10, 2, "2026-01-01T00:00:00+00:00", "key", asked["disturbed"])

    monkeypatch.setattr(verb, "speeds", speeds)
    monkeypatch.setattr(here, "speeds", speeds)
    monkeypatch.setattr(here, "native_precisions", lambda device: ("fp32", "bf16", "int8"))
    return asked


def test_the_machine_alone(measured: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = lu.doctor()
    assert result.recommendation == "bf16" and result.sentence.startswith("Work in bf16 here: native, 5 times")
    assert (result.task, result.run, result.rows, result.trials, result.warnings) == (None, None, 0, [], [])
    assert [row.name for row in result.precisions] == ["fp32", "tf32", "bf16", "fp16", "fp8", "int8", "int4"]
    assert 0 < result.processor.memory_free_bytes <= result.processor.memory_bytes
    assert result.processor.bandwidth_bytes_s == 4e10 and result.processor.cores >= 1
    assert result.processor.kernels in ("native", "partly native", "plain")
    assert {place.what for place in result.storage} == {"cache", "runs"}
    assert {"native kernels", "GPU", "models of the hub"} <= {feature.name for feature in result.features}
    assert {"python", "torch", "luthier"} <= set(result.environment.versions)
    assert list(tmp_path.iterdir()) == []  # the machine alone writes nothing
    assert DoctorResult.model_validate_json(result.model_dump_json()) == result


def test_a_disturbed_measurement_is_told(measured: dict[str, bool]) -> None:
    measured["disturbed"] = True
    result = lu.doctor(fresh=True)
    assert measured["fresh"] and [warned.rule for warned in result.warnings] == ["M1"]
    assert "1 warning below" in result.sentence and "--fresh" in result.warnings[0].fix


def test_kernels_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    for library, attention, words in ((None, False, "plain"), (1, False, "partly native"), (1, True, "native")):
        monkeypatch.setattr(verb, "library", lambda library=library: library)
        monkeypatch.setattr(verb, "has_native_attention", lambda attention=attention: attention)
        assert verb._kernels() == words


def test_a_run_directory_needs_a_task(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--out needs a task"):
        lu.doctor(out=tmp_path / "run")


def test_a_task_tries_every_precision_and_keeps_the_result(measured: dict[str, bool], task_folder: Path) -> None:
    result = lu.doctor(task_folder / "task.yaml", rows=5)
    assert result.task == "orders" and result.rows == 5
    trials = {trial.precision: trial for trial in result.trials}
    assert list(trials) == ["fp32", "bf16", "fp16", "int8", "nf4"]
    reference = trials["fp32"]
    assert reference.loss is not None and reference.loss_change == 0 and reference.agreement == 1
    for trial in trials.values():
        assert trial.loss is not None and math.isfinite(trial.loss) and trial.not_finite == 0
        assert trial.kl is not None and trial.kl >= -1e-6 and trial.seconds > 0
    assert trials["bf16"].weights_bytes < 0.6 * reference.weights_bytes
    assert trials["nf4"].weights_bytes < trials["int8"].weights_bytes < trials["bf16"].weights_bytes
    assert trials["fp16"].share_of_range > 1000 * trials["fp32"].share_of_range
    assert result.recommendation in trials and result.reasons
    assert "P8" in {warned.rule for warned in result.warnings}  # fp16 is slow on this made-up machine
    assert result.run == str(task_folder / "runs" / "doctor-001")
    kept = DoctorResult.model_validate_json((Path(result.run) / "report.json").read_text())
    assert kept == result


def test_rows_come_from_dev_and_from_train_where_there_is_none(measured: dict[str, bool], task_folder: Path) -> None:
    (task_folder / "dev.jsonl").write_text("not JSON\n")
    with pytest.raises(BadInput, match=r"dev\.jsonl:1"):
        lu.doctor(task_folder / "task.yaml")
    task = lu.load_task(task_folder / "task.yaml", ["data.dev=null"])
    assert lu.doctor(task, rows=2).rows == 2


def test_the_newest_adapter_of_the_task_is_looked_at(
    measured: dict[str, bool], task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = lu.load_task(task_folder / "task.yaml", ["train.epochs=1"])
    assert verb._adapter(Workbench(task)) is None
    trained = lu.train(task)
    stored = verb._adapter(Workbench(task))
    assert stored is not None and stored.place == trained.adapter and stored.stored_as == "fp32"
    shutil.rmtree(trained.adapter)
    assert verb._adapter(Workbench(task)) is None


def test_rows_that_are_too_long_are_told(measured: dict[str, bool], task_folder: Path) -> None:
    task = lu.load_task(task_folder / "task.yaml", ["train.max_length=4"])
    with pytest.raises(BadInput, match=r"within train\.max_length: 4"):
        lu.doctor(task)


def luthier(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "luthier", "doctor", *map(str, words)],
        capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_the_command_prints_one_json_object_and_exits_0() -> None:
    done = luthier("--json")
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    assert set(plain) == set(DoctorResult.model_fields)
    assert "measuring this machine" in done.stderr


def test_the_command_exits_2_for_bad_input(tmp_path: Path) -> None:
    for words in (["nowhere.yaml"], ["--out", str(tmp_path / "x")], ["--set", "train.epochs=1", "--json"]):
        done = luthier(*words, "--quiet")
        assert done.returncode == 2, (words, done.stdout)
        assert done.stdout == "" and done.stderr.startswith("luthier: ") and done.stderr.count("\n") == 1
