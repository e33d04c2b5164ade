"""A model whose weights, gradients and optimizer state lie in shards over the processes (FSDP2, `fully_shard`).

Each decoder block is gathered for its forward and its backward and let go again; embedding, last norm and head are the
root's. The loss is the root's forward, so that the head is gathered while it is computed. Gradients are summed, not
averaged, because a step divides once by its whole count. Nothing here steps or saves.

    root, trainable = shard_model(model, objective, mesh_of(group), kind.trainable(model))
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from luthier.ground.errors import BadInput
from luthier.objectives.base import Objective
from luthier.rows.types import Pack
from luthier.training.parallel.group import Group


class ShardedLoss(nn.Module):
    """The objective's loss as a module, so that the root's weights are there while it is computed.

    Attributes:
        saved_as: the precision in which trained weights are saved; None for the one in which they are held.
    """

    def __init__(self, model: PreTrainedModel, objective: Objective, saved_as: torch.dtype | None) -> None:
        super().__init__()
        self.model = model
        self._objective = objective
        self.saved_as = saved_as

    def forward(self, pack: Pack) -> tuple[Tensor, float]:
        return self._objective.loss(self.model, pack)

    def reshard(self) -> None:
        """Let go of what is gathered."""
        for module in self.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def mesh_of(group: Group) -> DeviceMesh:
    """Return the processes as FSDP2 wants them; all must call this together."""
    return init_device_mesh(group.device.type, (group.size,))


def shard_model(
    model: PreTrainedModel, objective: Objective, mesh: DeviceMesh, trainable: Mapping[str, nn.Parameter]
) -> tuple[ShardedLoss, dict[str, nn.Parameter]]:
    """Replace every weight of the model by this process's shard of it, block by block; return what is trained now.

    Trained weights that are not float32 get float32 shards; the arithmetic stays in the model's precision.

    Raises:
        BadInput: the model has no list of blocks, or something that is trained is not a weight of its modules.
    """
    places = _places(model, trainable)
    dtype = model.dtype
    narrow = any(weight.dtype != torch.float32 for weight in trainable.values())
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32) if narrow else MixedPrecisionPolicy()
    root = ShardedLoss(model, objective, dtype if narrow else None)
    for module in [*_blocks(model), root]:
        module.to(device=mesh.device_type, dtype=torch.float32 if narrow else None)
        fully_shard(module, mesh=mesh, mp_policy=policy)
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    sharded = {name: getattr(module, attribute) for name, (module, attribute) in places.items()}
    return root, sharded


@contextlib.contextmanager
def whole_weights(root: ShardedLoss, group: Group, trainable: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Put the trained weights, whole, into rank 0's modules for the length of the block, on the CPU."""
    wholes: dict[int, nn.Parameter] = {}
    for weight in trainable.values():
        whole = weight.full_tensor().detach() if isinstance(weight, DTensor) else weight.detach()
        if group.is_first:
            wholes[id(weight)] = nn.Parameter(whole.to("cpu", root.saved_as), requires_grad=False)
    held = [
        (module, name, weight)
        for module in root.model.modules()
        for name, weight in module._parameters.items()
        if weight is not None and id(weight) in wholes
    ]
    for module, name, weight in held:
        module._parameters[name] = wholes[id(weight)]
    try:
        yield
    finally:
        for module, name, weight in held:
            module._parameters[name] = weight


def _places(model: nn.Module, trainable: Mapping[str, nn.Parameter]) -> dict[str, tuple[nn.Module, str]]:
    """Return the module and attribute that holds each trained weight."""
    held = {
        id(weight): (module, attribute)
        for module in model.modules()
        for attribute, weight in module._parameters.items()
        if weight is not None
    }
    if missing := [name for name, weight in trainable.items() if id(weight) not in held]:
        raise BadInput(f"{missing[0]} is not a weight of the model's modules", fix="set train.strategy: ddp")
    return {name: held[id(weight)] for name, weight in trainable.items()}


def _blocks(model: PreTrainedModel) -> list[nn.Module]:
    layers = model.config.num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            return list(module)
    raise BadInput(f"{type(model).__name__} has no list of {layers} blocks to shard", fix="set train.strategy: ddp")
