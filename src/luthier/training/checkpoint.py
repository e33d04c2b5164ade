"""Checkpoints: folders `step-000400/` that are whole or absent, verified before they are trusted, and kept by a rule.

    step-000400/
      adapter/               what the adapter kind saved; other tools read it
      training.safetensors   trained weights (but those that lie in adapter/ bit for bit), optimizer state, random
                             numbers; of sharded weights, one file for each process (training-000.safetensors), with
                             its slices
      state.json             step, history, best, fingerprint
      manifest.json          SHA-256 of all of these

Nothing here knows how training goes on, and nothing is a pickle.

    found = latest_valid(run)          # the newest whole checkpoint, or None
    if found: step.restore(found.tensors())
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from luthier.ground.errors import BadInput, Refused
from luthier.ground.events import Tell, silent
from luthier.ground.files import DRAFT, verify_folder, whole_folder, write_json
from luthier.training.parallel.slices import read_whole
from luthier.training.twins import with_twins, without_twins

ADAPTER = "adapter"
TENSORS = "training.safetensors"
STATE = "state.json"
_NAME = re.compile(r"step-(\d{6,})")
_RANDOM = "random/"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk."""

    path: Path
    step: int
    state: dict[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """Read weights, optimizer state and random numbers."""
        return with_twins(read_whole(self.path), self.path / ADAPTER)


def folder_of(run: Path, step: int) -> Path:
    """Return where the checkpoint of `step` lies."""
    return run / f"step-{step:06d}"


def save_checkpoint(
    run: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    save_adapter: Callable[[Path], None],
) -> Path:
    """Write a checkpoint, whole or not at all, and read it back.

    Raises:
        BadInput: the disk refused, or did not keep what was written; older checkpoints are untouched.
    """
    path = folder_of(run, step)
    with checkpoint_draft(path) as draft:
        save_adapter(draft / ADAPTER)
        own = without_twins({**tensors, **random_tensors()}, draft / ADAPTER)
        contiguous = {name: tensor.contiguous() for name, tensor in own.items()}
        save_file(contiguous, draft / TENSORS)
        write_state(draft, step, state)
    return path


@contextlib.contextmanager
def checkpoint_draft(path: Path) -> Iterator[Path]:
    """Yield a draft folder with a place for the adapter; it becomes `path`, and is read back, when the block ends well.

    Raises:
        BadInput: the disk refused, or did not keep what was written.
    """
    with whole_folder(path) as draft, disk_faults_as_os_errors():
        (draft / ADAPTER).mkdir()
        yield draft
    if faults := verify_folder(path):
        discard(path)
        raise BadInput(f"the disk did not keep what was written ({faults[0]})", where=str(path), fix="check the disk")


def write_state(draft: Path, step: int, state: Mapping[str, Any]) -> None:
    """Write what a checkpoint remembers beside tensors."""
    write_json(draft / STATE, {"step": step, **state})


def latest_valid(run: Path, tell: Tell = silent) -> Checkpoint | None:
    """Return the newest whole checkpoint of `run`; a damaged one is told of and passed over.

    Raises:
        Refused: there are checkpoints, and all are damaged.
    """
    steps = saved_steps(run)
    for step in reversed(steps):
        checkpoint, fault = _read(folder_of(run, step), step)
        if checkpoint is not None:
            return checkpoint
        tell({"kind": "warning", "text": f"{folder_of(run, step)} is damaged and passed over: {fault}"})
    if steps:
        raise Refused("every checkpoint in this run is damaged", where=str(run), fix="start again with another --out")
    return None


def saved_steps(run: Path) -> list[int]:
    """Return the steps that have a checkpoint folder, whole or not, in order."""
    names = [_NAME.fullmatch(entry.name) for entry in run.iterdir() if entry.is_dir()] if run.is_dir() else []
    return sorted(int(name.group(1)) for name in names if name)


def retain(run: Path, keep: int, best_step: int | None) -> list[int]:
    """Remove all but the newest `keep` checkpoints and the best; call it only after the newest was read back.

    Returns the steps that were removed. The newest one always stays.
    """
    steps = saved_steps(run)
    removed = [step for step in steps[: -max(1, keep)] if step != best_step]
    for step in removed:
        discard(folder_of(run, step))
    return removed


def discard(path: Path) -> None:
    """Remove a checkpoint: first its name, then its files, so that half of one is never seen under its name."""
    trash = path.parent / f"{DRAFT}{path.name}-{uuid.uuid4().hex[:8]}"
    try:
        path.rename(trash)
    except OSError as error:
        raise BadInput(
            f"this old checkpoint cannot be removed ({error.strerror})", where=str(path), fix="check the permissions"
        ) from error
    shutil.rmtree(trash, ignore_errors=True)


def random_tensors() -> dict[str, Tensor]:
    """Return the state of torch's random numbers, of each device in use."""
    states = {f"{_RANDOM}cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states |= {f"{_RANDOM}cuda-{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random(tensors: Mapping[str, Tensor]) -> None:
    """Put back what `random_tensors` returned."""
    torch.set_rng_state(tensors[f"{_RANDOM}cpu"])
    for index in range(torch.cuda.device_count()):
        if (state := tensors.get(f"{_RANDOM}cuda-{index}")) is not None:
            torch.cuda.set_rng_state(state, index)


def _read(path: Path, step: int) -> tuple[Checkpoint | None, str]:
    if faults := verify_folder(path):
        return None, faults[0]
    try:
        state = json.loads((path / STATE).read_text())
    except (OSError, ValueError) as error:
        return None, f"{STATE} cannot be read ({type(error).__name__})"
    if not isinstance(state, dict) or state.get("step") != step:
        return None, f"{STATE} is not of step {step}"
    return Checkpoint(path, step, state), ""


@contextlib.contextmanager
def disk_faults_as_os_errors() -> Iterator[None]:
    """Safetensors tells a full disk as text: give it its number back, so that it is told like any other."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number.group(1)), str(error)) from error
