"""One optimizer step of many processes: each sums the gradient of its rows, and the sums are added up.

Loss, target count and gradient are sums, so one all-reduce of each and one division by the whole count is all that a
step over many processes is; `DistributedDataParallel` averages means over processes, which is another number whenever
these have unlike many targets. `ParallelStep` holds the whole model in every process; `ShardedStep` drives a model
whose weights lie sharded (`luthier.training.parallel.sharded`), where every process must run equally many packs.

    step = ParallelStep(model, objective, trainable, spec, group=group)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from luthier.ground.errors import BadInput
from luthier.ground.spec import TrainSpec
from luthier.objectives.base import Objective
from luthier.rows.packing import one_pack, single_rows
from luthier.rows.types import Encoded, Pack
from luthier.training.parallel.group import Group
from luthier.training.parallel.sharded import ShardedLoss
from luthier.training.step import Step, TorchStep


class ParallelStep(TorchStep):
    """The step of one process among several that hold the same weights; `packs` are this process's own."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        trainable: Mapping[str, nn.Parameter],
        spec: TrainSpec,
        autocast: torch.dtype | None = None,
        *,
        group: Group,
    ) -> None:
        super().__init__(model, objective, trainable, spec, autocast)
        self._group = group
        refuse_unfit(spec)

    def evaluate(self, packs: Sequence[Pack]) -> tuple[float, float]:
        """Return (loss sum, count) over the packs of all processes."""
        loss_sum, count = self._group.sum_numbers(super().evaluate(packs))
        return loss_sum, count

    def _accumulate(self, packs: Sequence[Pack], learning_rate: float) -> tuple[float, float]:  # noqa: ARG002  # the base's
        own_sum, own_count = self._add_up(packs)
        numbers = [own_sum, own_count, *(weight.grad is not None for weight in self._trainable.values())]
        loss_sum, count, *gradients = self._group.sum_numbers(numbers)
        if not math.isfinite(loss_sum):
            self._refuse("loss", packs)
        self._sum_gradients(gradients)
        return loss_sum, count

    def _add_up(self, packs: Sequence[Pack]) -> tuple[float, float]:
        """Add up loss and gradient of this process's packs; a loss that is not finite ends it, for all to see."""
        loss_sum, count = 0.0, 0.0
        for pack in packs:
            loss, targets = self._loss(pack)
            loss_sum, count = loss_sum + loss.item(), count + targets
            if not math.isfinite(loss_sum):
                break
            (loss * self._loss_factor if self._scale else loss).backward()  # type: ignore[no-untyped-call]
        return loss_sum, count

    def _sum_gradients(self, how_many: Sequence[float]) -> None:
        """Add up the gradients over the processes; `how_many` processes have one of each weight."""
        gradients: list[Tensor] = []
        for weight, number in zip(self._trainable.values(), how_many, strict=True):
            if number:  # a weight that nobody has a gradient of stays without one, as in a single process
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                gradients.append(weight.grad)
        self._group.sum_tensors_(gradients)

    def _guilty(self, what: str, packs: Sequence[Pack]) -> list[str]:
        rows = [row for pack in packs for row in single_rows(pack)]
        guilty = [row.places[0] for row in rows if not self._is_finite(what, row)]
        return self._of_all(guilty) or self._of_all([row.places[0] for row in rows])

    def _places(self, packs: Sequence[Pack]) -> list[str]:
        return self._of_all(super()._places(packs))

    def _of_all(self, places: Sequence[str]) -> list[str]:
        return [place for of_rank in self._group.gather(list(places)) for place in of_rank]


class ShardedStep(ParallelStep):
    """The step of one process among several that hold a shard each of every weight.

    Args:
        filler: a short pack; who has fewer packs than others runs it, and its loss counts nothing.
    """

    def __init__(
        self,
        root: ShardedLoss,
        objective: Objective,
        trainable: Mapping[str, nn.Parameter],
        spec: TrainSpec,
        autocast: torch.dtype | None = None,
        *,
        group: Group,
        filler: Pack,
    ) -> None:
        super().__init__(root.model, objective, trainable, spec, autocast, group=group)
        self._root = root
        self._filler = filler
        refuse_unfit_to_shard(spec)

    def evaluate(self, packs: Sequence[Pack]) -> tuple[float, float]:
        """Return (loss sum, count) over the packs of all processes."""
        missing = self._missing(packs)
        result = super().evaluate(packs)
        self._model.eval()
        with torch.no_grad():
            for _ in range(missing):
                self._loss(self._filler)
        self._root.reshard()  # what a forward alone leaves gathered would be stale after the next change of weights
        return result

    def _add_up(self, packs: Sequence[Pack]) -> tuple[float, float]:
        loss_sum, count = 0.0, 0.0
        for number in range(len(packs) + self._missing(packs)):
            counts = number < len(packs)
            loss, targets = self._loss(packs[number] if counts else self._filler)
            if counts:
                loss_sum, count = loss_sum + loss.item(), count + targets
            factor = self._loss_factor if counts else 0.0
            (loss * factor).backward()  # type: ignore[no-untyped-call]
        return loss_sum, count

    def _missing(self, packs: Sequence[Pack]) -> int:
        return max(number for [number] in self._group.gather_numbers([len(packs)])) - len(packs)

    def _sum_gradients(self, how_many: Sequence[float]) -> None:
        """Backward has summed and scattered them already."""

    def _grad_norm(self, count: float) -> float:
        gradients = [_local(weight.grad) for weight in self._trainable.values() if weight.grad is not None]
        norms = [torch.linalg.vector_norm(part, dtype=torch.float32) for part in gradients if part.numel()]
        own = torch.linalg.vector_norm(torch.stack(norms)).item() if norms else 0.0
        [total] = self._group.sum_numbers([own * own])
        return math.sqrt(total) / count / self._loss_factor

    def _loss(self, pack: Pack) -> tuple[Tensor, float]:
        with self._precision():
            loss: tuple[Tensor, float] = self._root(pack)
        return loss

    def _guilty(self, what: str, packs: Sequence[Pack]) -> list[str]:
        """Try every row of every process, one at a time, since all must run whatever one runs."""
        rows = [row for pack in packs for row in single_rows(pack)]
        counts = [number for [number] in self._group.gather_numbers([len(rows)])]
        guilty = []
        for owner, number in enumerate(counts):
            for index in range(number):
                mine = owner == self._group.rank
                finite = self._is_finite(what, rows[index] if mine else self._filler, counts=mine)
                if not finite and mine:
                    guilty.append(rows[index].places[0])
        return self._of_all(guilty) or self._of_all([row.places[0] for row in rows])

    def _is_finite(self, what: str, row: Pack, counts: bool = True) -> bool:
        """Whether the row that counts, of whichever process, gives a finite loss and gradient."""
        self._forget_gradients()
        loss, _ = self._loss(row)
        (loss * (1.0 if counts else 0.0)).backward()  # type: ignore[no-untyped-call]
        finite = not counts or math.isfinite(loss.item())
        if what == "gradient":
            parts = [_local(weight.grad) for weight in self._trainable.values() if weight.grad is not None]
            finite = finite and all(bool(part.isfinite().all()) for part in parts)
        return all(flag for [flag] in self._group.gather_numbers([int(finite)]))


def make_step(
    model: nn.Module,
    objective: Objective,
    trainable: Mapping[str, nn.Parameter],
    spec: TrainSpec,
    autocast: torch.dtype | None,
    group: Group,
    root: ShardedLoss | None,
    short_row: Encoded,
) -> Step:
    """Return the step that fits the group: plain, summed over processes, or over sharded weights."""
    if root is not None:
        filler = one_pack([short_row])
        return ShardedStep(root, objective, trainable, spec, autocast, group=group, filler=filler)
    if group.size > 1:
        return ParallelStep(model, objective, trainable, spec, autocast, group=group)
    return TorchStep(model, objective, trainable, spec, autocast)


def refuse_unfit(spec: TrainSpec) -> None:
    """Refuse what cannot be done by several processes."""
    if spec.optimizer_in_backward:
        raise BadInput(
            "train.optimizer_in_backward updates weights before the processes have added their gradients up",
            fix="leave it out, or train in one process",
        )


def refuse_unfit_to_shard(spec: TrainSpec) -> None:
    """Refuse what cannot be done on sharded weights."""
    unfit = {
        "train.layers_in_turn": spec.layers_in_turn is not None,
        f"train.optimizer: {spec.optimizer}": spec.optimizer != "adamw",
        "train.adapter.masters: none": spec.adapter.masters == "none",
        "train.best_by: metric": spec.best_by == "metric",
    }
    if found := [name for name, is_set in unfit.items() if is_set]:
        raise BadInput(f"{found[0]} does not go with train.strategy: fsdp", fix="leave it out, or set strategy: ddp")


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
