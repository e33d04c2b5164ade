"""Components that torchtune's configuration names by path: the rows, the pad id, the schedule, the listener.

`METERS` gets its one entry from `run_torchtune.py` before the recipe is made.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset

from benchmarks.training.runners.meter import Meter

METERS: list[Meter] = []


class Rows(Dataset):  # type: ignore[type-arg]
    """The micro-batches' rows, in order."""

    def __init__(self, tokenizer: Any) -> None:
        assert tokenizer.pad_id == PadOnly.pad_id
        batches, _ = METERS[0].micro_batches()
        self.rows = [{"tokens": row["input_ids"], "labels": row["labels"]} for batch in batches for row in batch]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.rows[index]


class PadOnly:
    """The recipe asks its tokenizer for nothing but the pad id, since the rows are tokens already."""

    pad_id = 2


class Listener:
    """A metric logger that feeds the meter."""

    def log_config(self, _: Any) -> None:
        """Nothing to keep."""

    def log_dict(self, payload: dict[str, Any], step: int) -> None:
        """One optimizer step is over."""
        assert step == len(METERS[0].steps) + 1
        METERS[0].step(float(payload["loss"]), float(payload["grad_norm"]))

    def close(self) -> None:
        """Nothing to close."""


def linear_schedule(
    optimizer: torch.optim.Optimizer, num_training_steps: int, last_epoch: int = -1
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return the schedule of the comparison: linear to zero, without warm-up."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / num_training_steps, last_epoch)
