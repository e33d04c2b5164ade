"""One process of a tiny training run; `test_parallel` starts several of them as `torchrun` would.

python parallel_run.py FOLDER '{"strategy": "ddp", "kind": "full", "resume": false, …}'    # RANK, WORLD_SIZE set
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
from luthier.objectives.sft import SupervisedFinetuning
from luthier.rows.types import Pack
from luthier.training.loop import train_rows
from luthier.training.parallel.group import joined
from luthier.training.parallel.sharded import mesh_of, shard_model


class _BreaksAtRow(SupervisedFinetuning):
    """The loss of rows that hold the token 29 is no number, or only its gradient is not."""

    def __init__(self, gradient_only: bool) -> None:
        self._gradient_only = gradient_only

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        loss, count = super().loss(model, pack)
        if 29 not in pack.ids_T:
            return loss, count
        bad = torch.sqrt((loss - loss.detach()).clamp(min=0)) if self._gradient_only else float("nan")
        return loss + bad * 1.0, count


def main(folder: Path, wanted: dict[str, Any]) -> None:
    with joined() as group:
        told: list[dict[str, Any]] = []
        try:
            outcome = _train(folder, wanted, group, told)
            report = {
                "losses": [[record.loss, record.grad_norm] for record in outcome.history],
                "evals": [record.model_dump() for record in outcome.evals],
                "best_step": outcome.best_step,
                "stopped": outcome.stopped,
                "peaks": [outcome.processes, outcome.peak_bytes, outcome.total_peak_bytes],
                "tokens": [outcome.tokens, outcome.target_tokens],
                "parameters": [outcome.trainable_parameters, outcome.total_parameters],
            }
        except LuthierError as error:
            report = {"error": type(error).__name__, "text": str(error), "code": error.exit_code}
        report["told"] = [event["kind"] for event in told]
        print(json.dumps(report), flush=True)


def _train(folder: Path, wanted: dict[str, Any], group: Any, told: list[dict[str, Any]]) -> Any:
    spec = tiny_spec(**wanted.get("spec", {}))
    dtype = torch.bfloat16 if wanted.get("bf16") else torch.float32
    model = tiny_model(wanted.get("dropout", 0.0)).to(dtype).requires_grad_(False)
    sharded = wanted.get("strategy") == "fsdp" and group.size > 1
    objective = _BreaksAtRow(wanted["breaks"] == "gradient") if wanted.get("breaks") else tiny_objective()
    rows = tiny_rows(wanted.get("rows", 16))
    if wanted.get("breaks"):
        for number, row in enumerate(rows):
            row.ids_T[:] = row.ids_T % 29
            if number == wanted["broken_row"]:
                row.ids_T[-1] = 29
    if wanted.get("other_rows") == group.rank:
        rows = tiny_rows(16, seed=5)
    kind = get_kind(wanted.get("kind", "lora"))
    adapter = AdapterSpec(kind=wanted.get("kind", "lora"), rank=3)
    if sharded and adapter.kind == "full":
        adapter = adapter.model_copy(update={"masters": "none"})
    kind.inject(model, adapter, seed=0)
    trainable = kind.trainable(model)
    root = None
    if sharded:
        root, trainable = shard_model(model, objective, mesh_of(group), trainable)

    def tell(event: Any) -> None:
        told.append(event)
        _disturb(wanted, group, event)

    def save(into: Path) -> None:
        kind.save(model, into, adapter, None)

    if wanted.get("kill_in_step"):
        _kill_in_step(objective, group, wanted["kill_in_step"])
    return train_rows(
        model, objective, rows, tiny_rows(5, seed=9), spec, folder,
        trainable=trainable, save_adapter=save, pack_tokens=24, resume=wanted.get("resume", False),
        deadline_s=wanted.get("deadline_s"), group=group, root=root, tell=tell, resume_command="do it again",
    )  # fmt: skip


def _disturb(wanted: dict[str, Any], group: Any, event: Any) -> None:
    if event["kind"] == "step" and event["step"] == wanted.get("signal_at"):
        os.kill(os.getpid(), wanted["signal"])


def _kill_in_step(objective: Any, group: Any, where: list[int]) -> None:
    """Let a rank kill itself, or get a signal, at its n-th loss: `[rank, n, signal]`."""
    rank, number, which = where
    plain, calls = objective.loss, [0]

    def loss(model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        calls[0] += model.training
        if group.rank == rank and calls[0] == number:
            os.kill(os.getpid(), signal.Signals(which))
        return plain(model, pack)

    objective.loss = loss


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
