"""Checkpoints are whole or absent; damage is seen; the rule that removes them never removes the last good one."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.ground.errors import BadInput, Refused
from luthier.ground.files import sweep_drafts
from luthier.training.checkpoint import (
    STATE,
    TENSORS,
    Checkpoint,
    discard,
    folder_of,
    latest_valid,
    restore_random,
    retain,
    save_checkpoint,
    saved_steps,
)


def _save(run: Path, step: int, value: float = 1.0) -> Path:
    def save_adapter(folder: Path) -> None:
        (folder / "adapter.json").write_text(json.dumps({"value": value}))

    return save_checkpoint(run, step, {"weight/w": torch.full((50, 3), value)}, {"note": step}, save_adapter)


def _latest(run: Path) -> Checkpoint:
    found = latest_valid(run)
    assert found is not None
    return found


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    torch.manual_seed(5)
    path = _save(tmp_path, 7, 2.5)
    assert path.name == "step-000007"
    drawn = torch.rand(3)
    found = _latest(tmp_path)
    assert (found.step, found.state["note"], found.path) == (7, 7, path)
    tensors = found.tensors()
    assert torch.equal(tensors["weight/w"], torch.full((50, 3), 2.5))
    restore_random(tensors)
    assert torch.equal(torch.rand(3), drawn)
    assert sorted(file.name for file in path.rglob("*.*")) == sorted([
        "adapter.json", "manifest.json", STATE, TENSORS
    ])  # fmt: skip


def test_an_empty_run_has_no_checkpoint(tmp_path: Path) -> None:
    assert latest_valid(tmp_path) is None
    assert latest_valid(tmp_path / "absent") is None


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("name", [TENSORS, STATE, "adapter/adapter.json", "manifest.json"])
@pytest.mark.parametrize("damage", [_flip, _cut, Path.unlink])
def test_damage_falls_back_to_the_one_before_with_a_word(tmp_path: Path, name: str, damage: Any) -> None:
    _save(tmp_path, 1)
    damage(_save(tmp_path, 2) / name)
    told: list[Any] = []
    found = latest_valid(tmp_path, told.append)
    assert found is not None and found.step == 1
    assert len(told) == 1 and told[0]["kind"] == "warning" and "step-000002 is damaged" in told[0]["text"]


def test_all_damaged_is_refused_not_begun_anew(tmp_path: Path) -> None:
    _flip(_save(tmp_path, 1) / TENSORS)
    with pytest.raises(Refused, match="every checkpoint in this run is damaged"):
        latest_valid(tmp_path)


def test_a_folder_under_the_wrong_name_is_damage(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    _save(tmp_path, 2).rename(folder_of(tmp_path, 9))
    assert _latest(tmp_path).step == 1


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(2, None, [4, 5]), (1, 5, [5]), (1, 2, [2, 5]), (3, 1, [1, 3, 4, 5]), (9, None, [1, 2, 3, 4, 5])],
)
def test_retention_keeps_the_newest_and_the_best(tmp_path: Path, keep: int, best: int | None, left: list[int]) -> None:
    for step in range(1, 6):
        _save(tmp_path, step)
    removed = retain(tmp_path, keep, best)
    assert saved_steps(tmp_path) == left
    assert sorted([*removed, *left]) == [1, 2, 3, 4, 5]


def test_a_checkpoint_is_never_overwritten(tmp_path: Path) -> None:
    _save(tmp_path, 1, 1.0)
    with pytest.raises(BadInput, match="exists already"):
        _save(tmp_path, 1, 2.0)
    assert torch.equal(_latest(tmp_path).tensors()["weight/w"], torch.ones(50, 3))


def test_a_failing_adapter_leaves_nothing(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        save_checkpoint(tmp_path, 1, {}, {}, broken)
    assert list(tmp_path.iterdir()) == []


class _FailingCalls:
    """Makes the n-th call of certain functions of `os` fail as on a full disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], failing: int, number: int) -> None:
        self.calls = 0
        for name in names:
            monkeypatch.setattr(os, name, self._failing(getattr(os, name), failing, number))

    def _failing(self, real: Any, failing: int, number: int) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls == failing:
                raise OSError(number, os.strerror(number))
            return real(*args, **named)

        return call


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_the_nth_failure_of_the_disk_loses_nothing(tmp_path: Path, number: int) -> None:
    _save(tmp_path, 1)
    for failing in range(1, 100):
        with pytest.MonkeyPatch.context() as patch:
            calls = _FailingCalls(patch, ("mkdir", "fsync", "rename", "replace"), failing, number)
            try:
                _save(tmp_path, 2)
            except BadInput as error:
                sentence = str(error)
                assert os.strerror(number).lower() in sentence and "\n" not in sentence
            else:
                assert calls.calls < failing, "no failure was swallowed"
                break
        sweep_drafts(tmp_path)
        found = _latest(tmp_path)
        assert found.step in (1, 2)  # 2: only the last sync of the parent failed, and the folder is whole
        if found.step == 2:
            discard(found.path)
        assert _latest(tmp_path).step == 1
        assert [entry.name for entry in tmp_path.iterdir()] == ["step-000001"]
    else:
        pytest.fail("the disk never stopped failing")
    assert failing > 8, "every write, sync and rename was made to fail once"


def test_a_full_disk_under_safetensors_is_one_sentence(tmp_path: Path) -> None:
    """The library writes files itself; a real limit on file size makes its own write fail."""
    code = f"""
    import resource, signal, sys
    from pathlib import Path
    import torch
    from luthier.ground.errors import BadInput
    from luthier.training.checkpoint import latest_valid, save_checkpoint
    run = Path({str(tmp_path)!r})
    save = lambda folder: None
    save_checkpoint(run, 1, {{"weight/w": torch.ones(9)}}, {{}}, save)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        save_checkpoint(run, 2, {{"weight/w": torch.ones(1_000_000)}}, {{}}, save)
    except BadInput as error:
        print(error)
    print(latest_valid(run).step, sorted(entry.name for entry in run.iterdir()))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    sentence, rest = done.stdout.splitlines()
    assert "step-000002: could not be written (file too large)" in sentence
    assert rest == "1 ['step-000001']"
