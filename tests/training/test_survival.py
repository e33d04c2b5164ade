"""A run that is killed with SIGKILL at random moments ends with the very bytes of an undisturbed one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from luthier.training.checkpoint import TENSORS, folder_of, saved_steps

SCRIPT = Path(__file__).with_name("killed_run.py")


def _check_killed_run(folder: Path, kills: int, seed: int, different: int) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(kills), str(seed)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    killed, whole = folder / "killed", folder / "whole"
    assert saved_steps(killed) == saved_steps(whole)
    for step in saved_steps(whole):
        for name in (TENSORS, "adapter/weights.safetensors"):
            one, other = folder_of(killed, step) / name, folder_of(whole, step) / name
            assert one.read_bytes() == other.read_bytes(), f"{name} of step {step} differs"
    assert json.loads((killed / "outcome.json").read_text()) == json.loads((whole / "outcome.json").read_text())
    assert not list(killed.glob(".draft*")), "what the kills left behind was swept up"
    told = json.loads(done.stdout)
    assert told["kills"] >= different, "too few kills hit a living process"
    assert len(told["resumed"]) >= different, "too few different steps were resumed from"


def test_a_run_survives_kills(tmp_path: Path) -> None:
    _check_killed_run(tmp_path, kills=20, seed=0, different=5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_a_run_survives_many_kills(tmp_path: Path, seed: int) -> None:
    _check_killed_run(tmp_path, kills=20, seed=seed, different=5)
