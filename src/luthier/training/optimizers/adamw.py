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
    is_meta = any(weight.is_meta for group in groups for weight in group["params"])
    kind = _WithoutMemory if is_meta else torch.optim.AdamW
    return kind(groups, lr=spec.learning_rate, fused=not is_meta)


class _WithoutMemory(torch.optim.AdamW):
    """What the fused kernel leaves behind on tensors that have no memory: its state, and nothing beside it."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002  # torch's signature
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and not self.state[weight]:
                    self.state[weight] = _fresh(weight.shape, weight.device)


def _fresh(shape: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    moments = {key: torch.zeros(tuple(shape), device=device) for key in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), device=device), **moments}


OPTIMIZERS.register("adamw")(OptimizerKind(_make, _fresh))
