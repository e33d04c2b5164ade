"""Runs are never overwritten, answers are never lost, and what a result depends on is in its key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import luthier as lu
from luthier.ground.locks import folder_lock
from luthier.verbs.train import train_key
from luthier.verbs.workbench import Workbench


def key(task_folder: Path, *overrides: str) -> str:
    return train_key(Workbench(lu.load_task(task_folder / "task.yaml", overrides)), 0)


def test_a_run_of_another_verb_an_ended_run_and_a_foreign_folder_are_left_alone(task_folder: Path) -> None:
    task = lu.load_task(task_folder / "task.yaml")
    run = task_folder / "mine"
    lu.check(task, out=run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(lu.BadInput, match="this folder holds an ended run; choose another --out"):
        lu.check(task, out=run)
    with pytest.raises(lu.BadInput, match="this folder holds a `check` run"):
        lu.prompt(task, out=run)
    with pytest.raises(lu.BadInput, match="not empty and not a run"):
        lu.check(task, out=task_folder / "handbook")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert not (task_folder / "handbook" / "spec.json").exists()


def test_answers_stay_when_a_later_system_fails(task_folder: Path) -> None:
    task = lu.load_task(
        task_folder / "task.yaml",
        ["compare.systems=[base, endpoint]", "endpoint.url=http://127.0.0.1:9/v1", "endpoint.model=x"],
    )
    run = task_folder / "run"
    with pytest.raises(lu.BadInput, match=r"127\.0\.0\.1:9"):
        lu.compare(task, out=run)
    lines = [json.loads(line) for line in (run / "items.jsonl").read_text().splitlines()]
    assert [line["system"] for line in lines] == ["base"] * 14
    assert not (run / "report.json").exists()


def test_a_missing_key_of_an_endpoint_is_told_before_any_work(task_folder: Path) -> None:
    settings = ["compare.systems=[base, endpoint]", "endpoint.url=http://127.0.0.1:9/v1", "endpoint.model=x"]
    task = lu.load_task(task_folder / "task.yaml", [*settings, "endpoint.key_env=NO_SUCH_VARIABLE"])
    with pytest.raises(lu.BadInput, match="NO_SUCH_VARIABLE holds no key"):
        lu.compare(task, out=task_folder / "run")
    assert not (task_folder / "run" / "items.jsonl").exists()


def test_a_broken_metric_is_told_before_any_answer(task_folder: Path) -> None:
    (task_folder / "mine.py").write_text("def score(output, reference, context):\n    return 1 / 0\n")
    task = lu.load_task(task_folder / "task.yaml", ["metric=mine.py", "compare.systems=[base]"])
    with pytest.raises(lu.BadInput, match=r"mine\.py"):
        lu.compare(task, out=task_folder / "run")
    assert not (task_folder / "run" / "items.jsonl").exists()


def test_the_key_of_a_training_follows_all_that_it_depends_on(task_folder: Path) -> None:
    first = key(task_folder)
    assert key(task_folder) == first == key(task_folder, "compare.target=0.5", "generation.max_new_tokens=9")
    assert key(task_folder, "budget.time=1s") != first
    assert key(task_folder, "train.instruction=x") != first
    best = key(task_folder, "train.best_by=metric")
    assert key(task_folder, "train.best_by=metric", "metric=exact_match") != best
    with (task_folder / "train.jsonl").open("a") as stream:
        stream.write('{"prompt": "new", "completion": "{}"}\n')
    assert key(task_folder) != first


def test_a_score_depends_on_the_bytes_of_a_metric_file(task_folder: Path) -> None:
    path = task_folder / "mine.py"
    keys = []
    for value in ("1.0", "0.0", "1.0"):
        path.write_text(f"def score(output, reference, context):\n    return {value}\n")
        keys.append(Workbench(lu.load_task(task_folder / "task.yaml", ["metric=mine.py"])).metric_key())
    assert keys[0] == keys[2] != keys[1]


@pytest.mark.parametrize(
    ("override", "match"),
    [("metric=jsn_match", "jsn_match"), ("compare.systems=[bse]", "bse"), ("schema=handbook", "cannot be read")],
)
def test_check_tells_what_later_verbs_would_fall_over(task_folder: Path, override: str, match: str) -> None:
    with pytest.raises(lu.BadInput, match=match):
        lu.check(lu.load_task(task_folder / "task.yaml", [override]))


def test_faults_of_names_and_places_are_one_sentence(task_folder: Path) -> None:
    path = task_folder / "task.yaml"
    with pytest.raises(lu.BadInput, match="there is no file x"):
        lu.load_task(path, ["data.train=" + "x" * 300])
    with pytest.raises(lu.BadInput, match="this text cannot be read"):
        _ = lu.load_task(path, ["instruction=file:handbook"]).instruction
    with pytest.raises(lu.BadInput, match=r"--set train\.adapter: there is no key train\.adapter\.rnk|--set .*rnk"):
        lu.load_task(path, ["train.adapter.rnk=3"])
    with pytest.raises(lu.BadInput, match="finite number"):
        lu.load_task(path, ["train.learning_rate=.inf"])
    assert lu.load_task(path, "train.epochs=7").spec.train.epochs == 7  # type: ignore[arg-type]


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(lu.BadInput, match="cannot be written to"), folder_lock(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(("limit", "stopped"), [("0.001s", "time"), ("1.5 h", "finished"), ("20min", "finished")])
def test_a_time_budget_is_kept_and_what_was_learned_is_there(task_folder: Path, limit: str, stopped: str) -> None:
    result = lu.train(lu.load_task(task_folder / "task.yaml", [f"budget.time={limit}"]))
    assert result.stopped == stopped
    assert (Path(result.adapter) / "adapter_model.safetensors").is_file()
