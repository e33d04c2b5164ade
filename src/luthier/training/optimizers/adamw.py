"""AdamW (Loshchilov & Hutter 2019) in float32: torch's own, in its fused form; 8 bytes of state for a weight.

OPTIMIZERS.get("adamw").make([{"params": [weight], "weight_decay": 0.0}], TrainSpec())
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from luthier.ground.spec import TrainSpec
from luthier.training.optimizers.base import OPTIMIZERS, OptimizerKind


def _make(groups: list[dict[str, Any]], spec: TrainSpec) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=spec.learning_rate, fused=True)


def _fresh(shape: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    moments = {key: torch.zeros(tuple(shape), device=device) for key in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), device=device), **moments}


OPTIMIZERS.register("adamw")(OptimizerKind(_make, _fresh))
