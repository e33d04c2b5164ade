"""Many processes, one run: the same curve on 1, 2 and 4 ranks, refusing and stopping together, and any resume."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parallel_processes import Reports, run_ranks
from parallel_run import report
from safetensors.torch import load_file

from luthier.training.checkpoint import TENSORS, folder_of, saved_steps
from luthier.training.parallel.slices import read_whole

# Twenty steps at the default rate; Adam's first steps are signs of gradients, so a rate far above it would amplify
# the last digit of gradients that are almost zero.
TWENTY: dict[str, Any] = {"epochs": 9, "max_steps": 20, "learning_rate": 1e-3, "save_every": 5, "keep": 9}
WAYS = [("lora", "ddp"), ("full", "ddp"), ("lora", "fsdp"), ("full", "fsdp")]


def _wanted(folder: Path, kind: str = "lora", strategy: str = "ddp", **more: Any) -> dict[str, Any]:
    return {"folder": str(folder), "kind": kind, "strategy": strategy, "spec": TWENTY, **more}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parallel")


@pytest.fixture(scope="module")
def solo(place: Path) -> dict[str, dict[str, Any]]:
    """The same runs in one process; `stopped` is one that a signal ended after step 7."""
    runs = {kind: report(_wanted(place / f"solo-{kind}", kind)) for kind in ("lora", "full")}
    runs["stopped"] = report(_wanted(place / "solo-stopped", befalls=[0, 13, signal.SIGTERM]))
    runs["stopped-full"] = report(_wanted(place / "solo-stopped-full", "full", befalls=[0, 13, signal.SIGTERM]))
    return runs


@pytest.fixture(scope="module")
def two(place: Path, solo: dict[str, dict[str, Any]]) -> Reports:
    """Everything that two processes are asked for, in one start; the names are those of the folders."""
    assert solo["stopped"]["code"] == solo["stopped-full"]["code"] == 143
    runs = [_wanted(place / f"two-{kind}-{strategy}", kind, strategy) for kind, strategy in WAYS]
    runs += [
        _wanted(place / f"two-broken-{what}-{strategy}", strategy=strategy, breaks=what, broken_row=3)
        for what in ("loss", "gradient")
        for strategy in ("ddp", "fsdp")
    ]
    runs += [
        _wanted(place / "two-signal", befalls=[1, 4, signal.SIGINT], dropout=0.2),
        _wanted(place / "two-signal", resume=True, dropout=0.2),
        _wanted(place / "two-dropout", dropout=0.2),
        _wanted(place / "two-unlike", other_rows_on=1),
        _wanted(place / "two-late", deadline_s=0.0),
        _wanted(place / "two-score", score=True, spec={**TWENTY, "max_steps": 4}),
        _wanted(place / "two-disk", strategy="fsdp", disk_full=1),
        _wanted(place / "solo-stopped", resume=True),
        _wanted(place / "solo-stopped-full", "full", "fsdp", resume=True),
        _wanted(place / "two-few-rows", rows=3, spec={**TWENTY, "rows_per_step": 1}),
        _wanted(place / "two-few-rows-fsdp", strategy="fsdp", rows=3, spec={**TWENTY, "rows_per_step": 1}),
        _wanted(place / "two-bf16-ddp", "full", bf16=True),
        _wanted(place / "two-bf16-fsdp", "full", "fsdp", bf16=True),
        _wanted(place / "two-again", "full", "fsdp", spec={**TWENTY, "max_steps": 4}),
        _wanted(place / "two-again", "full", "fsdp", spec={**TWENTY, "max_steps": 4}),
        _wanted(place / "two-recomputed", strategy="fsdp", spec={**TWENTY, "checkpointing": "full"}),
        _wanted(place / "two-unfit", strategy="fsdp", spec={**TWENTY, "optimizer": "adamw8bit"}),
        _wanted(place / "two-8bit", spec={**TWENTY, "optimizer": "adamw8bit"}),
    ]
    reports = run_ranks(2, *runs)
    assert all(each is not None for each in reports)
    return [dict(zip(_names(runs), each or [], strict=True)) for each in reports]  # type: ignore[misc]


def _names(runs: list[dict[str, Any]]) -> list[str]:
    names = [Path(run["folder"]).name for run in runs]
    return [
        f"{name}/{names[:place].count(name)}" if names.count(name) > 1 else name for place, name in enumerate(names)
    ]


def _assert_same_curve(one: dict[str, Any], other: dict[str, Any], rtol: float = 1e-6) -> None:
    assert "error" not in other, other
    assert len(one["losses"]) == len(other["losses"])
    np.testing.assert_allclose(other["losses"], one["losses"], rtol=rtol)
    np.testing.assert_allclose(other["norms"], one["norms"], rtol=50 * rtol)
    np.testing.assert_allclose(other["dev"], one["dev"], rtol=rtol)
    assert one["counts"] == other["counts"]


@pytest.mark.parametrize(("kind", "strategy"), WAYS)
def test_two_ranks_give_the_curve_of_one(two: Any, solo: Any, kind: str, strategy: str) -> None:
    name = f"two-{kind}-{strategy}"
    _assert_same_curve(solo[kind], two[0][name])
    assert two[0][name]["losses"] == two[1][name]["losses"], "both ranks know the same"
    assert two[0][name]["told"] > 20 and two[1][name]["told"] == 0, "rank 0 speaks"
    processes, most, total = two[0][name]["memory"]
    assert processes == 2 and most < total <= 2 * most
    assert solo[kind]["losses"][-1] < solo[kind]["losses"][0]


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_saved_adapter_is_that_of_one_process(two: Any, solo: Any, kind: str) -> None:
    one = Path(solo[kind]["adapter"])
    for strategy in ("ddp", "fsdp"):
        other = Path(two[0][f"two-{kind}-{strategy}"]["adapter"])
        assert {file.name for file in one.iterdir()} == {file.name for file in other.iterdir()}
        for file in one.glob("*.json"):
            assert file.read_bytes() == (other / file.name).read_bytes()
        [weights] = one.glob("*.safetensors")
        theirs = load_file(other / weights.name)
        for name, value in load_file(weights).items():
            assert theirs[name].dtype == value.dtype
            torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "strategy"), WAYS)
def test_four_ranks_give_the_curve_of_one(tmp_path: Path, solo: Any, kind: str, strategy: str) -> None:
    reports = run_ranks(4, _wanted(tmp_path / "run", kind, strategy))
    _assert_same_curve(solo[kind], reports[0][0])  # type: ignore[index]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_all_refuse_together_and_name_the_row(two: Any, what: str, strategy: str) -> None:
    for rank in (0, 1):
        told = two[rank][f"two-broken-{what}-{strategy}"]
        assert told["error"] == "Refused", told
        assert f"the {what} of train.jsonl:4 is not finite, and the step was not taken" in told["text"]
    assert two[0][f"two-broken-{what}-{strategy}"] == two[1][f"two-broken-{what}-{strategy}"]


def test_a_signal_to_one_rank_stops_all_after_a_save(two: Any, place: Path) -> None:
    for rank in (0, 1):
        stopped = two[rank]["two-signal/0"]
        assert (stopped["error"], stopped["code"]) == ("Interrupted", 130), stopped
        assert "which is saved" in stopped["text"]
    for rank in (0, 1):  # resumed on as many ranks it is the undisturbed run to the bit, dropout and all
        assert two[rank]["two-signal/1"]["losses"] == two[rank]["two-dropout"]["losses"]
    one, other = (folder_of(place / name, 20) / TENSORS for name in ("two-signal", "two-dropout"))
    assert one.read_bytes() == other.read_bytes()


def test_a_rank_with_other_rows_is_refused(two: Any) -> None:
    for rank in (0, 1):
        told = two[rank]["two-unlike"]
        assert told["error"] == "Refused" and "rank 1: the processes do not train the same: data.train" in told["text"]


def test_time_and_score_are_those_of_rank_0(two: Any) -> None:
    assert [two[rank]["two-late"]["stopped"] for rank in (0, 1)] == ["time", "time"]
    assert two[0]["two-score"]["metrics"] == two[1]["two-score"]["metrics"]
    assert set(two[0]["two-score"]["metrics"]) == {0.5}


def test_a_full_disk_of_one_rank_stops_all_and_leaves_nothing_behind(two: Any, place: Path) -> None:
    for rank in (0, 1):
        told = two[rank]["two-disk"]
        assert told["error"] == "BadInput" and "process 1 could not read or write" in told["text"]
    assert saved_steps(place / "two-disk") == [] and not list((place / "two-disk").glob(".draft*"))


def test_a_run_goes_on_with_more_ranks_and_in_shards(two: Any, solo: Any) -> None:
    _assert_same_curve(solo["lora"], two[0]["solo-stopped"])
    _assert_same_curve(solo["full"], two[0]["solo-stopped-full"])


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_goes_on_with_fewer_ranks(two: Any, solo: Any, place: Path, strategy: str) -> None:
    run = place / f"two-full-{strategy}"
    for step in saved_steps(run)[2:]:
        (folder_of(run, step) / "state.json").unlink()  # as if the run had been killed after step 10
    _assert_same_curve(solo["full"], report(_wanted(run, "full", resume=True)))


def test_more_ranks_than_rows_in_a_step(two: Any, tmp_path: Path) -> None:
    one = report(_wanted(tmp_path / "run", rows=3, spec={**TWENTY, "rows_per_step": 1}))
    for name in ("two-few-rows", "two-few-rows-fsdp"):
        _assert_same_curve(one, two[0][name])


def test_bfloat16_with_float32_shards(two: Any, tmp_path: Path) -> None:
    one = report(_wanted(tmp_path / "run", "full", bf16=True))
    for name in ("two-bf16-ddp", "two-bf16-fsdp"):  # bfloat16 has 8 bits, and the ranks pack the rows in another way
        np.testing.assert_allclose(two[0][name]["losses"], one["losses"], rtol=5e-3)
    [weights] = Path(two[0]["two-bf16-fsdp"]["adapter"]).glob("*.safetensors")
    assert {value.dtype for value in load_file(weights).values()} == {torch.bfloat16}


def test_shards_hold_the_whole_between_them(two: Any, place: Path) -> None:
    folder = folder_of(place / "two-again", 4)
    parts = [load_file(folder / f"training-{rank:03d}.safetensors") for rank in (0, 1)]
    whole = read_whole(folder)
    assert set(whole) == set(parts[0]) | set(parts[1])
    name = "weight/model.embed_tokens.weight"
    torch.testing.assert_close(whole[name], torch.cat([part[name] for part in parts]), rtol=0, atol=0)
    assert len(parts[1][name]) < len(whole[name])


def test_shards_go_with_checkpointing_and_not_with_other_optimizers(two: Any, solo: Any, tmp_path: Path) -> None:
    _assert_same_curve(solo["lora"], two[0]["two-recomputed"])
    assert "train.optimizer: adamw8bit does not go with train.strategy: fsdp" in two[0]["two-unfit"]["text"]
    one = report(_wanted(tmp_path / "run", spec={**TWENTY, "optimizer": "adamw8bit"}))
    _assert_same_curve(one, two[0]["two-8bit"])


def test_a_second_launch_on_the_same_run_is_refused_by_all(two: Any) -> None:
    for rank in (0, 1):
        assert "holds the checkpoints of a run" in two[rank]["two-again/1"]["text"]


@pytest.mark.parametrize("strategy", [pytest.param("ddp"), pytest.param("fsdp", marks=pytest.mark.slow)])
def test_a_killed_rank_ends_the_others_in_bounded_time(tmp_path: Path, solo: Any, strategy: str) -> None:
    run = tmp_path / "run"
    befalls = [1, 13, signal.SIGKILL]
    reports = run_ranks(2, _wanted(run, strategy=strategy, befalls=befalls), timeout_s=60)
    assert reports[1] is None and reports[0] is not None
    [lost] = reports[0]
    assert lost["error"] == "BadInput", lost
    assert "another process of this run was lost after step" in lost["text"] and "do it again" in lost["text"]
    assert saved_steps(run)
    _assert_same_curve(solo["lora"], report(_wanted(run, resume=True)))
