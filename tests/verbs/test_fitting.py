"""Training goes by its plan: what is recorded, what is changed, what is refused before anything is loaded."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

import luthier as lu
from luthier.ground.task import load_task
from luthier.ground.words import exact_size
from luthier.machine.limits import memory_total_bytes
from luthier.planning.levers import written_keys
from luthier.planning.question import Question
from luthier.rows.types import Encoded
from luthier.verbs import fitting
from luthier.verbs.encoding import encoded_rows
from luthier.verbs.fitting import Fitted, fit
from luthier.verbs.train import train_key
from luthier.verbs.workbench import Workbench
from tests.verbs.steady import BASELINE, PROCESSOR, make_steady

ONE_STEP = "train.tokens_per_step=4096"  # all 32 rows: packs large enough to be worth cutting


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    make_steady(monkeypatch)


def bench_of(folder: Path, *overrides: str) -> tuple[Workbench, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    return Workbench(load_task(folder / "task.yaml", [ONE_STEP, *overrides]), events.append), events


def fitted(bench: Workbench, run: Path) -> Fitted:
    run.mkdir(exist_ok=True)
    return fit(bench, bench.objective, rows_of(bench), run)


def rows_of(bench: Workbench) -> Sequence[Encoded]:
    return encoded_rows(bench, bench.objective, bench.rows("train"), 0, bench.tell)


def written_bytes(folder: Path) -> int:
    found = fitted(bench_of(folder)[0], folder / "as-written").predicted_peak_bytes
    assert found is not None
    return found


def budget(peak_bytes: int) -> str:
    return f"budget.memory={peak_bytes / 1e6:.6f}MB"


def loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("luthier.verbs.workbench.load_model", fail)


# -- what is changed -----------------------------------------------------------------------------------------------


def test_training_within_its_budget_records_what_was_predicted(task_folder: Path) -> None:
    result = lu.train(load_task(task_folder / "task.yaml", ["budget.memory=20GB", "train.max_steps=2"]))
    assert result.planned == {} and result.baseline_bytes == BASELINE
    assert result.predicted_peak_bytes is not None and BASELINE < result.predicted_peak_bytes < BASELINE + 300_000_000
    kept = json.loads((Path(result.run) / "plan.json").read_text())
    assert kept == {"settings": {}, "predicted_peak_bytes": result.predicted_peak_bytes}


def test_training_beyond_its_budget_changes_what_is_open_and_says_so(task_folder: Path) -> None:
    limit = written_bytes(task_folder) - 2_000_000
    events: list[Any] = []
    task = load_task(task_folder / "task.yaml", [ONE_STEP, budget(limit)])
    result = lu.train(task, tell=events.append)
    assert result.planned and not set(result.planned) & written_keys(task.spec.train)
    assert result.predicted_peak_bytes is not None and result.predicted_peak_bytes <= limit
    said = [event["text"] for event in events if event["kind"] == "warning"]
    assert any(
        "to keep budget.memory, training goes with" in text and next(iter(result.planned)) in text for text in said
    )
    [told] = [event for event in events if event["kind"] == "plan"]
    assert told["peak_bytes"] == result.predicted_peak_bytes
    plain = lu.train(load_task(task_folder / "task.yaml", [ONE_STEP]))  # the same mathematics
    assert result.train_loss == pytest.approx(plain.train_loss, rel=1e-4)
    assert plain.planned == {}


def test_the_chosen_settings_are_those_that_train(task_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        "luthier.verbs.train.fit", lambda *_: Fitted({"train.checkpointing": "full", "train.pack_tokens": 512}, 7, 3)
    )
    module = importlib.import_module("luthier.verbs.train")  # the package's `train` is the function
    real = module.train_rows

    def watched(*args: Any, **more: Any) -> Any:
        seen.append((args[4], more["pack_tokens"]))
        return real(*args, **more)

    monkeypatch.setattr(module, "train_rows", watched)
    result = lu.train(load_task(task_folder / "task.yaml", ["train.max_steps=1"]))
    [(spec, pack_tokens)] = seen
    assert (spec.checkpointing, spec.pack_tokens, pack_tokens) == ("full", 512, 512)
    assert (result.predicted_peak_bytes, result.baseline_bytes) == (7, 3)


# -- what is refused -----------------------------------------------------------------------------------------------


def test_what_nothing_fits_is_refused_with_the_smallest_before_a_model_is_loaded(
    task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads_nothing(monkeypatch)
    with pytest.raises(lu.LuthierError, match=r"more than 100\S* MB \(budget.memory\); the smallest") as met:
        lu.train(load_task(task_folder / "task.yaml", [ONE_STEP, "budget.memory=100MB"]))
    assert met.value.exit_code == 1
    run = task_folder / "runs" / "train-001"
    assert not list(run.glob("step-*")) and not (run / "report.json").exists() and not (run / "plan.json").exists()


def test_the_refusal_names_what_was_written_and_a_smaller_smallest(task_folder: Path) -> None:
    written = written_bytes(task_folder)
    bench, _ = bench_of(task_folder, "budget.memory=510MB")
    with pytest.raises(lu.LuthierError) as met:
        fitted(bench, task_folder / "run")
    assert f"training would need {exact_size(written)}, more than" in str(met.value)
    smallest = str(met.value).split("found needs ")[1].split(";")[0]
    assert smallest != exact_size(written)


def test_without_choosing_training_is_refused_where_choosing_would_fit(task_folder: Path) -> None:
    limit = budget(written_bytes(task_folder) - 2_000_000)
    assert fitted(bench_of(task_folder, limit)[0], task_folder / "chosen").settings
    bench, _ = bench_of(task_folder, limit, "budget.choose=false")
    with pytest.raises(lu.LuthierError, match="training would need") as met:
        fitted(bench, task_folder / "run")
    assert met.value.exit_code == 1 and not (task_folder / "run" / "plan.json").exists()


PINNED = ("train.checkpointing=none", "train.pack_tokens=1536", "train.base=fp32", "train.mlp_tile=4096")


def test_something_else_is_trained_only_on_a_persons_word(task_folder: Path) -> None:
    only = f"{budget(written_bytes(task_folder) - 3_000_000)}"
    bench, _ = bench_of(task_folder, only, *PINNED)
    with pytest.raises(lu.LuthierError, match=r"only if something else is trained; add --set train\.") as met:
        fitted(bench, task_folder / "run")
    assert met.value.exit_code == 1
    words = str(met.value).split("--set ")[1:]
    said = [word.strip().rstrip(".") for word in words]
    assert not {word.split("=")[0] for word in said} & {each.split("=")[0] for each in PINNED}
    bench, _ = bench_of(task_folder, only, *PINNED, *said)  # the very words that were told
    assert fitted(bench, task_folder / "again").settings == {}


def test_what_the_task_file_sets_is_never_changed_by_itself(task_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, _ = bench_of(task_folder, "train.checkpointing=none", "budget.memory=501MB")
    real = fitting.answer

    def answered(question: Question) -> Any:
        result = real(replace(question, look_around=False))
        if not question.look_around:
            return result
        choice = {"train.checkpointing": "full", "train.max_grad_norm": None}
        return result.model_copy(update={"fits": True, "choice": choice, "choice_tier": 1})

    monkeypatch.setattr(fitting, "answer", answered)
    with pytest.raises(
        lu.LuthierError, match=r"only if what the task file sets is changed \(train.checkpointing\)"
    ) as met:
        fitted(bench, task_folder / "run")
    assert '--set train.checkpointing="full" --set train.max_grad_norm=null' in str(met.value)


def test_no_rows_is_one_sentence(task_folder: Path) -> None:
    bench, _ = bench_of(task_folder)
    with pytest.raises(lu.BadInput, match="no rows to train on"):
        fit(bench, bench.objective, [], task_folder)


# -- going on ------------------------------------------------------------------------------------------------------


def test_a_resumed_run_goes_on_with_what_was_chosen(task_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = budget(written_bytes(task_folder) - 2_000_000)
    task = load_task(task_folder / "task.yaml", [ONE_STEP, limit, "train.epochs=4", "train.save_every=1"])
    undisturbed = lu.train(task, out=task_folder / "whole")
    run = task_folder / "cut"
    with pytest.raises(KeyboardInterrupt):
        lu.train(task, out=run, tell=_stop_after(2))
    assert json.loads((run / "plan.json").read_text())["settings"] == undisturbed.planned
    monkeypatch.setattr(fitting, "resident_bytes", lambda: 2 * BASELINE)  # now nothing would fit
    resumed = lu.train(task, out=run, resume=True)
    assert resumed.planned == undisturbed.planned and resumed.steps == undisturbed.steps == 4
    assert [record.loss for record in resumed.history] == [record.loss for record in undisturbed.history]


def test_the_key_of_a_run_holds_the_budget_of_memory(task_folder: Path) -> None:
    def key(*overrides: str) -> str:
        return train_key(bench_of(task_folder, *overrides)[0], 0)

    keys = [key(), key("budget.memory=3GB"), key("budget.memory=4GB"), key("budget.memory=4GB", "budget.choose=false")]
    assert len(set(keys)) == 4 and keys[1] == key("budget.memory=3GB")


# -- what cannot be told -------------------------------------------------------------------------------------------


def test_what_cannot_be_traced_trains_with_a_warning_unless_there_is_a_budget(
    task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untraceable(_: Question) -> NoReturn:
        raise lu.BadInput("this model has no form without memory")

    monkeypatch.setattr(fitting, "answer", untraceable)
    events: list[Any] = []
    result = lu.train(load_task(task_folder / "task.yaml", ["train.max_steps=1"]), tell=events.append)
    assert (result.predicted_peak_bytes, result.planned, result.steps) == (None, {}, 1)
    assert any("cannot be predicted" in event.get("text", "") for event in events if event["kind"] == "warning")
    loads_nothing(monkeypatch)
    with pytest.raises(lu.BadInput, match="no form without memory"):
        lu.train(load_task(task_folder / "task.yaml", ["budget.memory=4GB"]))


# -- several processes ---------------------------------------------------------------------------------------------


def question_of(bench: Workbench, processes: int) -> Question:
    objective = bench.objective
    return fitting._question(bench, bench.spec.train, objective, rows_of(bench), processes)


def test_processes_of_one_machine_share_its_memory_and_its_speed(task_folder: Path) -> None:
    bench, _ = bench_of(task_folder)
    one, four = question_of(bench, 1), question_of(bench, 4)
    assert (one.limit_bytes, one.limit_source) == (memory_total_bytes(), "this machine's memory")
    assert one.limit_bytes is not None and four.limit_bytes == one.limit_bytes // 4
    assert four.limit_source == "this machine's memory, shared by 4 processes"
    assert (four.devices, four.strategy) == (4, "ddp")
    assert four.device.flops_s("fp32") == pytest.approx(one.device.flops_s("fp32") / 4)


def test_processes_of_other_machines_have_their_own(task_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    bench, _ = bench_of(task_folder)
    assert question_of(bench, 4).limit_bytes == memory_total_bytes() // 2
    gpu = replace(PROCESSOR, kind="gpu", memory_bytes=10**10)
    monkeypatch.setattr(fitting, "this_device", lambda measure=True: gpu)
    found = question_of(bench, 4)
    assert (found.limit_bytes, found.limit_source) == (10**10, "this machine's memory")


def test_the_prediction_counts_the_process_as_it_is_when_training_begins(
    task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, _ = bench_of(task_folder)
    steady = fitted(bench, task_folder / "run").predicted_peak_bytes
    looks = iter([BASELINE, BASELINE + 70_000_000])  # tracing has left something behind
    monkeypatch.setattr(fitting, "resident_bytes", lambda: next(looks))
    grown = fitted(bench, task_folder / "again")
    assert steady is not None and grown.baseline_bytes == BASELINE + 70_000_000
    assert grown.predicted_peak_bytes == pytest.approx(steady + 70_000_000, abs=1_000_000)


def test_shards_need_less_than_whole_weights(task_folder: Path) -> None:
    full = ("train.adapter.kind=full", "train.learning_rate=0.001")
    peaks = {}
    for strategy in ("ddp", "fsdp"):
        bench, _ = bench_of(task_folder, *full, f"train.strategy={strategy}")
        run = task_folder / strategy
        run.mkdir()
        objective = bench.objective
        peaks[strategy] = fit(bench, objective, rows_of(bench), run, 4).predicted_peak_bytes
    assert peaks["fsdp"] < peaks["ddp"]


# -- helpers -------------------------------------------------------------------------------------------------------


def _stop_after(steps: int) -> Any:
    def tell(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == steps:
            raise KeyboardInterrupt

    return tell
