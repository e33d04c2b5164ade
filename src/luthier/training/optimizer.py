"""AdamW over named float32 parameters, and the learning-rate schedules as pure functions.

The optimizer is torch's own (Loshchilov & Hutter 2019), in its fused form. Its state is handed out and taken back as
named tensors, so that a checkpoint holds no pickle. Clipping and the order of steps are not here.

    >>> spec = TrainSpec(learning_rate=1.0, schedule="linear", warmup=0)
    >>> [rate_at(step, 4, spec) for step in range(4)]
    [1.0, 0.75, 0.5, 0.25]
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from luthier.ground.errors import BadInput
from luthier.ground.spec import TrainSpec

STATES = ("exp_avg", "exp_avg_sq", "step")


def rate_at(step: int, total: int, spec: TrainSpec) -> float:
    """Return the learning rate of step `step` (from 0) of `total`.

    The warm-up of w steps rises in equal parts and is not yet at the peak; the peak is at step w. From there the rate
    falls to what would be zero at step `total`, so that neither the first nor the last step is wasted at rate zero.
    """
    warmup = warmup_steps(total, spec)
    if step < warmup:
        return spec.learning_rate * (step + 1) / (warmup + 1)
    return spec.learning_rate * _shape(spec.schedule, (step - warmup) / max(1, total - warmup))


def warmup_steps(total: int, spec: TrainSpec) -> int:
    """Return the number of warm-up steps: `spec.warmup` is a share of all steps below 1, otherwise a number."""
    return round(spec.warmup * total) if spec.warmup < 1 else round(spec.warmup)


def make_adamw(trainable: Mapping[str, nn.Parameter], spec: TrainSpec) -> torch.optim.AdamW:
    """Return AdamW over `trainable`; weight decay acts on matrices only, not on biases and norms."""
    matrices = [parameter for parameter in trainable.values() if parameter.ndim >= 2]
    others = [parameter for parameter in trainable.values() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=spec.learning_rate, fused=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer, trainable: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the optimizer's state as `exp_avg/NAME`, `exp_avg_sq/NAME` and `step/NAME`."""
    states = {name: optimizer.state[parameter] for name, parameter in trainable.items() if optimizer.state[parameter]}
    return {f"{key}/{name}": state[key] for name, state in states.items() for key in STATES}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, trainable: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` returned.

    Raises:
        BadInput: a tensor has another shape than its parameter.
    """
    for name, parameter in trainable.items():
        found = {key: tensors[f"{key}/{name}"] for key in STATES if f"{key}/{name}" in tensors}
        if any(found[key].shape != parameter.shape for key in found if key != "step"):
            raise BadInput(f'the optimizer state of "{name}" has another shape than the parameter')
        optimizer.state[parameter] = {key: tensor.to(parameter.device, copy=True) for key, tensor in found.items()}


def _shape(schedule: str, progress: float) -> float:
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0
