"""What a run keeps, with any number of processes: rank 0 writes, all know; sharded weights are written by all.

A checkpoint is whole or absent, as with one process: the folder gets its manifest and its name last, when everybody's
file is there. It resumes on any other number of processes and under the other strategy. What is in a checkpoint's
folder is `luthier.training.checkpoint`; when one is made is the loop's affair.

    keeper = Keeper(run, group, step, trainable, save_adapter, tell); found = keeper.find(resume=True)
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from luthier.ground.errors import BadInput, Refused
from luthier.ground.events import Tell
from luthier.ground.files import sweep_drafts, verify_folder
from luthier.ground.locks import folder_lock
from luthier.ground.seeds import derived_seed
from luthier.training.checkpoint import (
    ADAPTER,
    Checkpoint,
    checkpoint_draft,
    discard,
    folder_of,
    latest_valid,
    random_tensors,
    restore_random,
    retain,
    save_checkpoint,
    saved_steps,
    write_state,
)
from luthier.training.parallel.group import Group
from luthier.training.parallel.sharded import ShardedLoss, whole_weights
from luthier.training.parallel.slices import read_like, write_slices
from luthier.training.step import Step

_RANK = "random/rank-"


@contextlib.contextmanager
def run_held(run: Path, group: Group) -> Iterator[None]:
    """Hold the run directory, through rank 0, and sweep what interrupted writes left there."""
    with contextlib.ExitStack() as stack:
        group.first(lambda: stack.enter_context(folder_lock(run)))
        group.first(lambda: sweep_drafts(run))
        yield


@dataclass
class Keeper:
    """The checkpoints of one run."""

    run: Path
    group: Group
    step: Step
    trainable: Mapping[str, nn.Parameter]
    save_adapter: Callable[[Path], None]
    tell: Tell
    root: ShardedLoss | None = None

    def find(self, resume: bool) -> Checkpoint | None:
        """Return the newest whole checkpoint, the same on every rank; None begins afresh.

        Raises:
            BadInput: there are checkpoints, and the run is not to be resumed.
            Refused: all are damaged.
        """
        found = self.group.first(lambda: self._find(resume))
        return None if found is None else Checkpoint(folder_of(self.run, found["step"]), found["step"], found["state"])

    def begin(self, seed: int) -> None:
        """Begin this rank's random numbers, and give all ranks the weights of rank 0."""
        torch.manual_seed(_seed_of(seed, self.group.rank))
        if self.group.size > 1 and self.root is None:
            weights = {f"weight/{name}": weight.detach() for name, weight in self.trainable.items()}
            self.step.restore_weights(self.group.share_tensors(weights))

    def restore(self, checkpoint: Checkpoint, seed: int, best: int | None, keep: int) -> None:
        """Put everything back as it was at the checkpoint, and remove what came after it."""
        tensors = self._read(checkpoint)
        self.step.restore(tensors)
        self._restore_random(tensors, _seed_of(seed, self.group.rank, checkpoint.step))
        self.group.first(lambda: self._tidy(checkpoint.step, keep, best))

    def restore_weights(self, step: int) -> None:
        """Put back the trained weights of a step's checkpoint."""
        self.step.restore_weights(self._read(Checkpoint(folder_of(self.run, step), step, {})))

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, whole or not at all.

        Raises:
            Refused: a weight is not finite, on whichever rank.
            BadInput: a disk refused, on whichever rank.
        """
        tensors = self.step.tensors()
        self.group.together(lambda: _refuse_broken_weights(tensors, step))
        tensors = {**tensors, **self._random()}
        if self.root is not None:
            return self._save_sharded(self.root, step, tensors, state)
        path = self.group.first(lambda: str(save_checkpoint(self.run, step, tensors, state, self.save_adapter)))
        return Path(path)

    def retain(self, keep: int, best: int | None) -> list[int]:
        """Remove all but the newest and the best; return which."""
        return self.group.first(lambda: retain(self.run, keep, best))

    def fault(self, step: int) -> str | None:
        """Return what is wrong with a step's checkpoint, or None."""
        return self.group.first(lambda: next(iter(verify_folder(folder_of(self.run, step))), None))

    def adapter_bytes(self, step: int) -> int:
        """Return the size of what a checkpoint saved for other tools."""
        adapter = folder_of(self.run, step) / ADAPTER
        return self.group.first(lambda: sum(file.stat().st_size for file in adapter.rglob("*") if file.is_file()))

    # -- in detail -------------------------------------------------------------------------------------------------

    def _find(self, resume: bool) -> dict[str, Any] | None:
        if not resume and saved_steps(self.run):
            raise BadInput(
                "this folder holds the checkpoints of a run",
                where=str(self.run),
                fix="add --resume, or choose another --out",
            )
        checkpoint = latest_valid(self.run, self.tell) if resume else None
        return None if checkpoint is None else {"step": checkpoint.step, "state": checkpoint.state}

    def _tidy(self, step: int, keep: int, best: int | None) -> None:
        for later in [number for number in saved_steps(self.run) if number > step]:
            discard(folder_of(self.run, later))  # damaged: it was told of, and its place is needed
        retain(self.run, keep, best)  # a kill may have come between saving and this

    def _read(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        if self.root is not None:
            return self.group.together(lambda: read_like(checkpoint.path, self.trainable, checkpoint.path / ADAPTER))
        own = self.group.together(lambda: checkpoint.tensors() if self.group.is_first else None)
        return self.group.share_tensors(own)

    def _save_sharded(
        self, root: ShardedLoss, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
    ) -> Path:
        group = self.group
        path = folder_of(self.run, step)
        everything = {**tensors, **random_tensors()}
        with contextlib.ExitStack() as stack:
            draft = Path(group.first(lambda: str(stack.enter_context(checkpoint_draft(path)))))
            with whole_weights(root, group, self.trainable):
                group.first(lambda: self.save_adapter(draft / ADAPTER))
            own = draft / f"training-{group.rank:03d}.safetensors"
            group.together(lambda: write_slices(own, everything, with_whole=group.is_first))
            group.first(lambda: write_state(draft, step, state))
            group.first(stack.close)
        return path

    def _random(self) -> dict[str, Tensor]:
        """Return the random numbers of every rank but the first, whose own are kept by every checkpoint."""
        if self.group.size == 1:
            return {}
        own = {name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in random_tensors().items()}
        return {
            f"{_RANK}{rank:03d}/{name}": torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
            for rank, states in enumerate(self.group.gather(own))
            for name, text in states.items()
            if rank
        }

    def _restore_random(self, tensors: Mapping[str, Tensor], otherwise: int) -> None:
        """Put this rank's random numbers back; a rank that was not there before begins with its own seed."""
        prefix = f"{_RANK}{self.group.rank:03d}/"
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if not own and self.group.is_first:
            own = dict(tensors)
        if own:
            restore_random(own)
        else:
            torch.manual_seed(otherwise)


def _seed_of(seed: int, rank: int, *after: int) -> int:
    return derived_seed(seed, "training", *((rank, *after) if rank else ()))


def _refuse_broken_weights(tensors: Mapping[str, Tensor], step: int) -> None:
    for name, tensor in tensors.items():
        part = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if part.is_floating_point() and not bool(part.isfinite().all()):
            raise Refused(f"{name} is not finite after step {step}, and was not saved", fix="lower train.learning_rate")
