"""One process of some tiny training runs; `parallel_processes` starts several of them as `torchrun` would.

python parallel_run.py '[{"folder": "runs/1", "strategy": "ddp", "kind": "full"}, …]'    # RANK and WORLD_SIZE are set
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from tiny_training import tiny_model, tiny_objective, tiny_rows, tiny_spec
from torch import Tensor, nn

from luthier.adapters.base import get_kind
from luthier.ground.errors import LuthierError
from luthier.ground.spec import AdapterSpec
from luthier.objectives.base import ObjectiveContext
from luthier.objectives.sft import SupervisedFinetuning
from luthier.rows.types import Encoded, Pack
from luthier.training.loop import train_rows
from luthier.training.parallel import keeper
from luthier.training.parallel.group import SOLO, Group, joined
from luthier.training.parallel.sharded import mesh_of, shard_model
from luthier.training.progress import TrainOutcome

BROKEN = 29  # the token that breaks a row


def main(wanted: list[dict[str, Any]]) -> None:
    with joined() as group:
        print(json.dumps([report(each, group) for each in wanted]), flush=True)


def report(wanted: dict[str, Any], group: Group = SOLO) -> dict[str, Any]:
    """Train as wanted, and return what came of it as JSON values."""
    told: list[Any] = []
    try:
        outcome = _train(wanted, group, told)
    except LuthierError as error:
        return {"error": type(error).__name__, "text": str(error), "code": error.exit_code}
    return {
        "losses": [record.loss for record in outcome.history],
        "norms": [record.grad_norm for record in outcome.history],
        "dev": [record.dev_loss for record in outcome.evals],
        "metrics": [record.metric for record in outcome.evals],
        "best_step": outcome.best_step,
        "stopped": outcome.stopped,
        "adapter": str(outcome.adapter),
        "memory": [outcome.processes, outcome.peak_bytes, outcome.total_peak_bytes],
        "counts": [outcome.tokens, outcome.target_tokens, outcome.trainable_parameters, outcome.total_parameters],
        "told": len(told),
    }


def _train(wanted: dict[str, Any], group: Group, told: list[Any]) -> TrainOutcome:
    model = tiny_model(wanted.get("dropout", 0.0)).to(torch.bfloat16 if wanted.get("bf16") else torch.float32)
    model.requires_grad_(False)
    objective = _objective(wanted, group)
    kind, adapter = get_kind(wanted.get("kind", "lora")), AdapterSpec(kind=wanted.get("kind", "lora"), rank=3)
    root = None
    if wanted.get("strategy") == "fsdp" and group.size > 1:
        kind.inject(model, adapter.model_copy(update={"masters": "none"}), seed=0)
        root, trainable = shard_model(model, objective, mesh_of(group), kind.trainable(model))
    else:
        kind.inject(model, adapter, seed=0)
        trainable = kind.trainable(model)

    def save(folder: Path) -> None:
        kind.save(model, folder, adapter, None)

    writes = keeper.write_slices
    if wanted.get("disk_full") == group.rank:
        keeper.write_slices = _full_disk
    try:
        return train_rows(
            model, objective, _rows(wanted, group), tiny_rows(5, seed=9), tiny_spec(**wanted.get("spec", {})),
            Path(wanted["folder"]), trainable=trainable, save_adapter=save, pack_tokens=24,
            resume=wanted.get("resume", False), score_dev=(lambda: 0.5) if wanted.get("score") else None,
            deadline_s=wanted.get("deadline_s"), group=group, root=root, tell=told.append,
            resume_command="do it again",
        )  # fmt: skip
    finally:
        keeper.write_slices = writes


def _rows(wanted: dict[str, Any], group: Group) -> list[Encoded]:
    rows = tiny_rows(wanted.get("rows", 16), seed=5 if wanted.get("other_rows_on") == group.rank else 0)
    if "broken_row" in wanted:
        for row in rows:
            row.ids_T[:] = row.ids_T % BROKEN
        rows[wanted["broken_row"]].ids_T[-1] = BROKEN
    return rows


class _Objective(SupervisedFinetuning):
    """The plain one, but for a broken row, and for what befalls a rank in its n-th pack."""

    def __init__(self, wanted: dict[str, Any], rank: int) -> None:
        super().__init__(ObjectiveContext(None))
        self._breaks = wanted.get("breaks")  # loss, gradient, or nothing
        self._befalls = wanted.get("befalls")  # rank, pack, signal
        self._rank, self._packs = rank, 0

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        self._packs += model.training
        if model.training and self._befalls and self._befalls[:2] == [self._rank, self._packs]:
            os.kill(os.getpid(), signal.Signals(self._befalls[2]))
        loss, count = super().loss(model, pack)
        if not self._breaks or BROKEN not in pack.ids_T:
            return loss, count
        bad = torch.sqrt((loss - loss.detach()).clamp(min=0)) if self._breaks == "gradient" else float("nan")
        return loss + bad * 1.0, count


def _objective(wanted: dict[str, Any], group: Group) -> SupervisedFinetuning:
    if {"breaks", "befalls"} & wanted.keys():
        return _Objective(wanted, group.rank)
    return tiny_objective()


def _full_disk(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
