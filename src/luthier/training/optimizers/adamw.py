"""AdamW (Loshchilov & Hutter 2019) in float32: torch's own, in its fused form; 8 bytes of state for a weight.

OPTIMIZERS.get("adamw").make([{"params": [weight], "weight_decay": 0.0}], TrainSpec())
"""

from __future__ import annotations

from typing import Any

import torch

from luthier.ground.spec import TrainSpec
from luthier.training.optimizers.base import OPTIMIZERS, OptimizerKind, same, scalar


def _make(groups: list[dict[str, Any]], spec: TrainSpec) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=spec.learning_rate, fused=True)


OPTIMIZERS.register("adamw")(OptimizerKind(_make, {"exp_avg": same, "exp_avg_sq": same, "step": scalar}))
