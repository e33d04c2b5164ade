"""One optimizer step: gradients of the step's packs, summed; checked; clipped; applied.

`Step` is the whole interface between the loop and whatever computes; the loop knows nothing of gradients, and a faster
step replaces `TorchStep` without touching it. Batches, schedules and checkpoints are not here.

    step = TorchStep(model, objective, trainable, spec)
    outcome = step.run(packs, learning_rate=1e-3)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from luthier.ground.errors import BadInput, Refused
from luthier.ground.spec import TrainSpec
from luthier.objectives.base import Objective
from luthier.rows.types import Pack
from luthier.training.optimizer import make_adamw, optimizer_tensors, restore_optimizer

NAMED_ROWS = 5  # rows that an error names


@dataclass(frozen=True)
class StepOutcome:
    """What one step was: its summed loss, its targets, and the norm of the mean gradient before clipping."""

    loss_sum: float
    count: int
    grad_norm: float


class Step(Protocol):
    """What the loop needs of whatever trains."""

    def run(self, packs: Sequence[Pack], learning_rate: float) -> StepOutcome:
        """Take one optimizer step on the mean loss over all targets of `packs`."""
        ...

    def evaluate(self, packs: Sequence[Pack]) -> tuple[float, int]:
        """Return (loss sum, count) without training."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return all that a resumed run needs: trained weights and optimizer state, by name."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` returned."""
        ...

    def restore_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back only the trained weights among what `tensors` returned."""
        ...


class TorchStep:
    """The plain step: autograd, gradient accumulation over packs, AdamW.

    Args:
        trainable: the trained parameters by name, in float32; all others must not require a gradient.
        autocast: compute in this dtype if the model's weights are of another; None computes in the weights' own.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        trainable: Mapping[str, nn.Parameter],
        spec: TrainSpec,
        autocast: torch.dtype | None = None,
    ) -> None:
        self._model = model
        self._objective = objective
        self._trainable = dict(trainable)
        self._max_grad_norm = spec.max_grad_norm
        self._autocast = autocast if autocast != next(model.parameters()).dtype else None
        self._optimizer = make_adamw(self._trainable, spec)

    def run(self, packs: Sequence[Pack], learning_rate: float) -> StepOutcome:
        """Take one optimizer step on the mean loss over all targets of `packs`.

        Raises:
            Refused: a loss or the gradient is not finite; the rows are named, and weights, optimizer state and random
                numbers are as they were before the step.
        """
        self._model.train()
        self._optimizer.zero_grad(set_to_none=True)
        with _random_numbers_kept_on_error():
            loss_sum, count = self._accumulate(packs)
            grad_norm = self._scale_gradients(packs, count)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        increment_version(self._trainable.values())  # the fused AdamW does not, and who copies weights asks for it
        self._optimizer.zero_grad(set_to_none=True)
        return StepOutcome(loss_sum, count, grad_norm)

    def evaluate(self, packs: Sequence[Pack]) -> tuple[float, int]:
        """Return (loss sum, count) over `packs`, in evaluation mode, without gradients."""
        self._model.eval()
        with torch.no_grad():
            parts = [self._loss(pack) for pack in packs]
        return math.fsum(loss.item() for loss, _ in parts), sum(count for _, count in parts)

    def tensors(self) -> dict[str, Tensor]:
        """Return trained weights as `weight/NAME` and the optimizer's state."""
        weights = {f"weight/{name}": parameter.detach() for name, parameter in self._trainable.items()}
        return weights | optimizer_tensors(self._optimizer, self._trainable)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back trained weights and optimizer state."""
        self.restore_weights(tensors)
        restore_optimizer(self._optimizer, self._trainable, tensors)

    def restore_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back trained weights.

        Raises:
            BadInput: a weight is missing or has another shape.
        """
        with torch.no_grad():
            for name, parameter in self._trainable.items():
                saved = tensors.get(f"weight/{name}")
                if saved is None or saved.shape != parameter.shape:
                    raise BadInput(f'the checkpoint holds no weight "{name}" of shape {tuple(parameter.shape)}')
                parameter.copy_(saved)

    def _accumulate(self, packs: Sequence[Pack]) -> tuple[float, int]:
        """Add up the gradients of the loss *sum*; dividing once, by the step's count, is what makes packs add up."""
        loss_sum, count = 0.0, 0
        for pack in packs:
            loss, targets = self._loss(pack)
            if not math.isfinite(value := loss.item()):
                self._refuse("loss", [pack])
            loss.backward()  # type: ignore[no-untyped-call]
            loss_sum, count = loss_sum + value, count + targets
        return loss_sum, count

    def _scale_gradients(self, packs: Sequence[Pack], count: int) -> float:
        """Divide by the count and clip, in one multiplication; return the norm before clipping."""
        gradients = [p.grad for p in self._trainable.values() if p.grad is not None]
        grad_norm = nn.utils.get_total_norm(gradients).item() / count
        if not math.isfinite(grad_norm):
            self._refuse("gradient", packs)
        clip = min(1.0, self._max_grad_norm / (grad_norm + 1e-6)) if self._max_grad_norm else 1.0
        torch._foreach_mul_(gradients, clip / count)
        return grad_norm

    def _loss(self, pack: Pack) -> tuple[Tensor, int]:
        with self._precision():
            return self._objective.loss(self._model, pack)

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        if self._autocast is None:
            return contextlib.nullcontext()
        device = next(iter(self._trainable.values())).device.type
        return torch.autocast(device, dtype=self._autocast)

    def _refuse(self, what: str, packs: Sequence[Pack]) -> None:
        rows = [row for pack in packs for row in single_rows(pack)]
        guilty = [row for row in rows if not self._is_finite(what, row)] or rows
        self._optimizer.zero_grad(set_to_none=True)
        named = ", ".join(row.places[0] for row in guilty[:NAMED_ROWS])
        more = f" and {len(guilty) - NAMED_ROWS} more" if len(guilty) > NAMED_ROWS else ""
        raise Refused(
            f"the {what} of {named}{more} is not finite, and the step was not taken",
            fix="look at these rows, or lower train.learning_rate",
        )

    def _is_finite(self, what: str, row: Pack) -> bool:
        self._optimizer.zero_grad(set_to_none=True)
        loss, _ = self._loss(row)
        if what == "loss" or not math.isfinite(loss.item()):
            return math.isfinite(loss.item())
        loss.backward()  # type: ignore[no-untyped-call]
        return all(bool(p.grad.isfinite().all()) for p in self._trainable.values() if p.grad is not None)


def single_rows(pack: Pack) -> list[Pack]:
    """Return each row of a pack as a pack of its own."""
    rows, start = [], 0
    for length, place in zip(pack.lengths, pack.places, strict=True):
        part = slice(start, start + length)
        rows.append(Pack(pack.ids_T[part], pack.positions_T[part], pack.target_T[part], (length,), (place,)))
        start += length
    return rows


@contextlib.contextmanager
def _random_numbers_kept_on_error() -> Iterator[None]:
    state = torch.get_rng_state()
    try:
        yield
    except Refused:
        torch.set_rng_state(state)
        raise
