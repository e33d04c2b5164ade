"""The registry of optimizers, and their state as named tensors, so that a checkpoint holds no pickle.

An optimizer is a `torch.optim.Optimizer` over float32 weights whose state of a weight is a dict of tensors, `step`
among them; an entry of the registry makes it and names these tensors. Built-in ones and plug-ins (entry-point group
`luthier.optimizers`) stand in one registry. When and on what an optimizer steps is `optimizers.updates`.

    optimizer = make_optimizer({"w": weight}, TrainSpec(optimizer="adamw8bit"))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from luthier.ground.errors import BadInput
from luthier.ground.registry import Registry
from luthier.ground.spec import TrainSpec


@dataclass(frozen=True)
class OptimizerKind:
    """How to make an optimizer, and what it keeps of a weight.

    Attributes:
        make: gets torch's parameter groups (each with its own `weight_decay`) and the spec.
        fresh: gets the shape of a weight and a device, and returns the state before the first step.
    """

    make: Callable[[list[dict[str, Any]], TrainSpec], torch.optim.Optimizer]
    fresh: Callable[[Sequence[int], torch.device], dict[str, Tensor]]


OPTIMIZERS: Registry[OptimizerKind] = Registry(
    group="luthier.optimizers",
    kind="optimizer",
    modules=(
        "luthier.training.optimizers.adamw",
        "luthier.training.optimizers.adamw8bit",
        "luthier.training.optimizers.adafactor",
    ),
    missing=lambda entry: None if isinstance(entry, OptimizerKind) else "it is not an OptimizerKind",
)


def make_optimizer(trainable: Mapping[str, nn.Parameter], spec: TrainSpec) -> torch.optim.Optimizer:
    """Return the optimizer that `spec` names; weight decay acts on matrices only, not on biases and norms."""
    matrices = [parameter for parameter in trainable.values() if parameter.ndim >= 2]
    others = [parameter for parameter in trainable.values() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return OPTIMIZERS.get(spec.optimizer).make([group for group in groups if group["params"]], spec)


def optimizer_tensors(optimizer: torch.optim.Optimizer, trainable: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the optimizer's state as `exp_avg/NAME`, `step/NAME` and so on."""
    states = {name: optimizer.state[parameter] for name, parameter in trainable.items() if parameter in optimizer.state}
    return {f"{key}/{name}": tensor for name, state in states.items() for key, tensor in state.items()}


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    trainable: Mapping[str, nn.Parameter],
    shapes: Mapping[str, Sequence[int]],
    tensors: Mapping[str, Tensor],
    kind: OptimizerKind,
) -> None:
    """Put back what `optimizer_tensors` returned; `shapes` are the weights'.

    Raises:
        BadInput: a tensor has another shape than belongs to its parameter.
    """
    optimizer.state.clear()
    for name, parameter in trainable.items():
        wanted = kind.fresh(shapes[name], torch.device("meta"))
        found = {key: tensors[f"{key}/{name}"] for key in wanted if f"{key}/{name}" in tensors}
        if any(tensor.shape != wanted[key].shape for key, tensor in found.items()):
            raise BadInput(f'the optimizer state of "{name}" has another shape than belongs to the parameter')
        if found:
            optimizer.state[parameter] = {key: tensor.to(parameter.device, copy=True) for key, tensor in found.items()}
