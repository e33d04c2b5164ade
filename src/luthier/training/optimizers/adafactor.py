"""Adafactor (Shazeer & Stern 2018): torch's own; the second moment of a matrix is one row and one column of numbers.

There is no first moment. `train.learning_rate` is relative here: a step moves a weight by at most about this share of
the weight's own root mean square, and by no more than 1/sqrt(step).

    OPTIMIZERS.get("adafactor").make([{"params": [weight], "weight_decay": 0.0}], TrainSpec(learning_rate=1e-2))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from luthier.ground.spec import TrainSpec
from luthier.training.optimizers.base import OPTIMIZERS, OptimizerKind


def _make(groups: list[dict[str, Any]], spec: TrainSpec) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(groups, lr=spec.learning_rate, foreach=False)


def _fresh(shape: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    step = torch.zeros(())  # torch keeps it on the CPU
    if len(shape) < 2:
        return {"step": step, "variance": torch.zeros(tuple(shape), device=device)}
    row, column = (*shape[:-1], 1), (*shape[:-2], 1, shape[-1])
    return {"step": step, "row_var": torch.zeros(row, device=device), "col_var": torch.zeros(column, device=device)}


OPTIMIZERS.register("adafactor")(OptimizerKind(_make, _fresh))
