"""Every verb on a whole task with a tiny model: what is written, what is reused, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import luthier as lu
from luthier.ground.results import CompareResult

STABLE_SYSTEM = {
    "name",
    "n_total",
    "n_failed",
    "score",
    "interval",
    "metrics",
    "latency_s",
    "prompt_tokens",
    "output_tokens",
    "peak_bytes",
}
STABLE_CONTRAST = {"a", "b", "difference", "interval", "p", "p_holm", "verdict", "detectable", "more_items"}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, CompareResult, list[Any]]:
    """One comparison of five systems, shared by the tests that only read it."""
    from tests.verbs.conftest import task_folder

    folder = task_folder.__wrapped__(tmp_path_factory.mktemp("task"), tiny_model)
    events: list[Any] = []
    return folder, lu.compare(folder / "task.yaml", tell=events.append), events


def test_five_systems_and_four_contrasts(compared: tuple[Path, CompareResult, list[Any]]) -> None:
    _, result, _ = compared
    plain = json.loads(result.model_dump_json())
    assert [system["name"] for system in plain["systems"]] == ["base", "prompt", "rag", "finetuned", "finetuned+rag"]
    assert all(set(system) >= STABLE_SYSTEM for system in plain["systems"])
    assert all(system["n_total"] == 14 for system in plain["systems"])
    pairs = [(contrast["a"], contrast["b"]) for contrast in plain["contrasts"]]
    assert pairs[:3] == [("prompt", "base"), ("rag", "prompt"), ("finetuned", "prompt")]
    assert pairs[3][0] == "finetuned+rag" and pairs[3][1] in {"rag", "finetuned"}
    assert all(set(contrast) >= STABLE_CONTRAST for contrast in plain["contrasts"])


def test_every_item_of_every_system_is_written(compared: tuple[Path, CompareResult, list[Any]]) -> None:
    _, result, _ = compared
    lines = [json.loads(line) for line in Path(result.items).read_text().splitlines()]
    assert len(lines) == 5 * 14
    keys = {"id", "system", "output", "score", "failed", "cause", "seconds", "prompt_tokens", "output_tokens"}
    assert all(set(line) >= keys for line in lines)
    of_base = [line["score"] for line in lines if line["system"] == "base"]
    assert sum(of_base) / 14 == pytest.approx(result.systems[0].score)


def test_the_run_directory_holds_the_result_and_the_adapters_load_again(
    compared: tuple[Path, CompareResult, list[Any]],
) -> None:
    _, result, _ = compared
    run = Path(result.run)
    assert {"spec.json", "lock", "events.jsonl", "report.json", "items.jsonl"} <= {path.name for path in run.iterdir()}
    assert CompareResult.model_validate_json((run / "report.json").read_text()) == result
    for name in ("finetuned", "finetuned+rag"):
        adapter = Path(result.training[name].adapter)
        assert (adapter / "adapter_model.safetensors").is_file()
        assert json.loads((adapter / "adapter_config.json").read_text())["peft_type"] == "LORA"
    assert result.training["finetuned+rag"].passages == 1
    assert result.training["finetuned"].tokens < result.training["finetuned+rag"].tokens


def test_a_second_comparison_reuses_what_would_come_out_the_same(
    compared: tuple[Path, CompareResult, list[Any]],
) -> None:
    folder, first, _ = compared
    events: list[Any] = []
    second = lu.compare(folder / "task.yaml", tell=events.append)
    assert not [event for event in events if event["kind"] == "step"]
    assert second.training == first.training
    assert [system.score for system in second.systems] == [system.score for system in first.systems]
    assert second.run != first.run


def test_advice_and_the_page_follow_from_the_run(compared: tuple[Path, CompareResult, list[Any]]) -> None:
    folder, result, _ = compared
    advice = lu.advise(folder / "task.yaml")
    assert advice.next and advice.advice
    page = lu.report(folder / "task.yaml", run=result.run, out=folder / "page.html")
    text = Path(page.page).read_text()
    assert result.verdict in text.replace("&#39;", "'")
    assert "<script" not in text


def test_a_changed_setting_trains_anew(compared: tuple[Path, CompareResult, list[Any]], tmp_path: Path) -> None:
    folder, first, _ = compared
    shutil.copytree(folder, tmp_path / "copy")
    task = lu.load_task(
        tmp_path / "copy" / "task.yaml", ["train.learning_rate=0.02", "compare.systems=[base, finetuned]"]
    )
    events: list[Any] = []
    result = lu.compare(task, tell=events.append)
    assert [event for event in events if event["kind"] == "step"]
    assert result.training["finetuned"].train_loss != first.training["finetuned"].train_loss
    assert [contrast for contrast in result.contrasts if contrast.a == "prompt"] == []


def test_check_tells_the_truth_and_train_refuses_after_a_bad_line(task_folder: Path) -> None:
    assert lu.check(task_folder / "task.yaml").ok
    with (task_folder / "train.jsonl").open("a") as stream:
        stream.write('{"prompt": "half a li\n')
    sheet = lu.check(task_folder / "task.yaml")
    assert not sheet.ok
    assert sheet.rows["train"].refused == 1
    assert (sheet.faults[0].file, sheet.faults[0].line) == ("train.jsonl", 33)
    with pytest.raises(lu.LuthierError, match="1 of 33 rows refused"):
        lu.train(task_folder / "task.yaml")
    task = lu.load_task(task_folder / "task.yaml", ["data.on_bad=skip", "train.max_steps=1"])
    assert lu.train(task).steps == 1


def test_training_twice_into_one_folder_is_refused_and_resume_needs_nothing_there(task_folder: Path) -> None:
    task = lu.load_task(task_folder / "task.yaml", ["train.max_steps=2"])
    run = task_folder / "my-run"
    first = lu.train(task, out=run, resume=True)
    assert (first.run, first.steps) == (str(run), 2)
    with pytest.raises(lu.BadInput, match="--resume, or choose another --out"):
        lu.train(task, out=run)


def test_full_weights_and_the_best_checkpoint_by_metric(task_folder: Path) -> None:
    task = lu.load_task(
        task_folder / "task.yaml",
        [
            "train.adapter.kind=full",
            "train.best_by=metric",
            "train.metric_items=3",
            "train.learning_rate=0.003",
            "compare.systems=[base, finetuned]",
        ],
    )
    result = lu.compare(task)
    training = result.training["finetuned"]
    assert training.adapter_kind == "full"
    assert training.trainable_parameters == training.total_parameters
    assert all(record.metric is not None for record in training.evals)


def test_search_finds_the_passage(task_folder: Path) -> None:
    result = lu.search(task_folder / "task.yaml", "where is the clock?")
    assert result.passages[0].path == "clock.md"
    with pytest.raises(lu.BadInput, match="the query is empty"):
        lu.search(task_folder / "task.yaml", "  ")


def test_a_test_set_of_three_items_is_compared_without_a_claim(task_folder: Path) -> None:
    task = lu.load_task(task_folder / "task.yaml", ["data.sample.test=3", "compare.systems=[base, prompt]"])
    result = lu.compare(task)
    assert result.n_test == 3
    assert [contrast.verdict for contrast in result.contrasts] == ["no evidence"]
    assert any("3" in piece.text for piece in lu.advise(task).advice)


@pytest.mark.parametrize(
    ("systems", "drop", "match"),
    [
        ("[nonsense]", "", "nonsense"),
        ("[rag]", "documents: handbook\n", "the system rag needs documents"),
        ("[finetuned]", "train: train.jsonl, ", "the system finetuned needs data.train"),
        ("[endpoint]", "", "the system endpoint needs endpoint"),
    ],
)
def test_systems_that_cannot_run_are_refused_before_anything_is_done(
    task_folder: Path, systems: str, drop: str, match: str
) -> None:
    path = task_folder / "task.yaml"
    path.write_text(path.read_text().replace(drop, ""))
    with pytest.raises(lu.BadInput, match=match):
        lu.compare(lu.load_task(path, [f"compare.systems={systems}"]))
    assert not (task_folder / "runs").exists()


def test_start_writes_a_task_that_the_other_verbs_take(task_folder: Path, tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(task_folder / "train.jsonl", folder / "examples.jsonl")
    shutil.copytree(task_folder / "handbook", folder / "handbook")
    begun = lu.start(folder)
    assert sum(begun.rows.values()) == 32 and set(begun.rows) == {"train", "dev", "test"}
    task = lu.load_task(begun.task_file, [f"model={tiny_model}"])
    assert task.spec.metric == "json_match" and task.spec.documents
    assert lu.check(task).ok
    with pytest.raises(lu.BadInput, match="never overwritten"):
        lu.start(folder)


def test_results_show_themselves_in_a_notebook(compared: tuple[Path, CompareResult, list[Any]]) -> None:
    _, result, _ = compared
    assert "<table" in result._repr_html_()
