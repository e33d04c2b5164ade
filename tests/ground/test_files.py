"""Whole or absent: kills, failing calls, damage."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier.ground.errors import BadInput
from luthier.ground.files import MANIFEST, sweep_drafts, verify_folder, whole_folder, write_json, write_whole


def fail_on_call(monkeypatch: pytest.MonkeyPatch, name: str, nth: int, code: int) -> Callable[[], int]:
    """Make the nth call of os.<name> fail; returns a counter of the calls made."""
    real = getattr(os, name)
    calls = [0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == nth:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, wrapped)
    return lambda: calls[0]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize(("name", "nth"), [("fsync", 1), ("replace", 1)])
def test_a_failing_call_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int, code: int
) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    fail_on_call(monkeypatch, name, nth, code)
    with pytest.raises(BadInput, match="what was there before is intact"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_with_nan_is_refused_and_the_old_file_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert path.read_text() == '{\n "a": 1\n}\n'


def test_a_folder_appears_whole_and_is_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "step-1"
    with whole_folder(folder) as draft:
        (draft / "sub").mkdir()
        (draft / "sub" / "a.bin").write_bytes(b"x" * 100)
        assert not folder.exists()
    assert verify_folder(folder) == []
    with pytest.raises(BadInput, match="never overwritten"), whole_folder(folder):
        pass


def test_a_folder_whose_making_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "x") as draft:
        (draft / "a").write_text("a")
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["fsync", "rename", "replace"])
def test_every_call_of_a_folder_save_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for nth in range(1, 50):
        folder = tmp_path / f"step-{nth}"
        with monkeypatch.context() as patch:
            calls = fail_on_call(patch, name, nth, errno.ENOSPC)
            try:
                with whole_folder(folder) as draft:
                    (draft / "a").write_text("a")
                    (draft / "b").write_text("b")
            except BadInput:
                # a failure after the rename may leave the folder, but then it is whole
                assert not folder.exists() or verify_folder(folder) == []
        if calls() < nth:
            assert verify_folder(folder) == []
            return
    pytest.fail("the save never got past the failing calls")


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest"])
def test_damage_is_found_and_named(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "step"
    with whole_folder(folder) as draft:
        (draft / "a.bin").write_bytes(bytes(1000))
    file = folder / "a.bin"
    if damage == "truncate":
        file.write_bytes(bytes(999))
    elif damage == "flip":
        file.write_bytes(bytes(500) + b"\x01" + bytes(499))
    elif damage == "remove":
        file.unlink()
    else:
        (folder / MANIFEST).write_text("{")
    faults = verify_folder(folder)
    assert len(faults) == 1
    assert (MANIFEST if damage == "manifest" else "a.bin") in faults[0]


WRITER = """
import itertools, sys
from pathlib import Path
from luthier.ground.files import whole_folder
for step in itertools.count():
    with whole_folder(Path(sys.argv[1]) / f"step-{step:06d}") as draft:
        for name in "ab":
            (draft / name).write_bytes(bytes(200_000))
    print(step, flush=True)
"""


def test_kills_at_random_moments_leave_only_whole_folders(tmp_path: Path) -> None:
    for attempt in range(10):
        root = tmp_path / str(attempt)
        root.mkdir()
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.003 * attempt)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        seen = [path for path in root.iterdir() if path.name.startswith("step-")]
        assert seen
        assert [fault for path in seen for fault in verify_folder(path)] == []
        sweep_drafts(root)
        assert all(path.name.startswith("step-") for path in root.iterdir())
