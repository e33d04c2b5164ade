"""The base model with what is trained put into it, whole or in shards over the processes of a run.

with injected(bench, get_kind("lora"), objective, SOLO) as (loaded, trainable, root): ...
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from luthier.adapters.base import AdapterKind, remove_adapter
from luthier.ground.errors import BadInput
from luthier.models.extension import applied
from luthier.models.load import LoadedModel
from luthier.objectives.base import Objective
from luthier.training.parallel.group import Group
from luthier.training.parallel.sharded import ShardedLoss, mesh_of, shard_model
from luthier.training.precision import base_precision, base_quantized
from luthier.verbs.workbench import Workbench

Injected = tuple[LoadedModel, Mapping[str, nn.Parameter], ShardedLoss | None]


@contextlib.contextmanager
def injected(bench: Workbench, kind: AdapterKind, objective: Objective, group: Group) -> Iterator[Injected]:
    """Yield the loaded model, what is trained by name, and, if its weights lie in shards, what holds them together.

    A model whose weights lie in shards stays so: its process trains once and ends.
    """
    spec = bench.spec.train
    if spec.strategy == "fsdp" and group.size > 1:
        mesh = mesh_of(group)
        refuse_sharded(objective)
        with group.in_turn():  # one whole model in the machine's memory at a time, and shards
            parts = _sharded(bench, kind, objective, mesh)
        yield parts
        return
    loaded = bench.model(base_precision(spec), base_quantized(spec))
    if group.size > 1:
        loaded.model.to(group.device)
    with applied(loaded.model, objective.extensions, seed=spec.seed) as extra:
        kind.inject(loaded.model, spec.adapter, seed=spec.seed)
        try:
            yield loaded, {**kind.trainable(loaded.model), **extra}, None
        finally:
            remove_adapter(loaded.model)


def refuse_sharded(objective: Objective) -> None:
    """Refuse what is put into a model whose weights lie in shards."""
    if objective.extensions:
        raise BadInput(
            f"{objective.extensions[0].name} cannot be put into a model in shards", fix="set train.strategy: ddp"
        )


def _sharded(bench: Workbench, kind: AdapterKind, objective: Objective, mesh: DeviceMesh) -> Injected:
    spec = bench.spec.train
    loaded = bench.model(base_precision(spec))
    own = spec.adapter.model_copy(update={"masters": "none"})  # the float32 shards are the masters
    kind.inject(loaded.model, own, seed=spec.seed)
    root, trainable = shard_model(loaded.model, objective, mesh, kind.trainable(loaded.model))
    return loaded, trainable, root
