"""One optimizer step: gradients of the step's packs, summed; checked; clipped; applied.

Also here: the ways a step may end without an update (a spike, an overflow of float16), and the order of the memory
levers (update in backward, layers in turn). What they compute stands in modules of their own. `Step` is the whole
interface between the loop and whatever computes; the loop knows nothing of gradients, and a faster step replaces
`TorchStep` without touching it. Batches, schedules and checkpoints are not here.

    step = TorchStep(model, objective, trainable, spec)
    outcome = step.run(packs, learning_rate=1e-3)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NoReturn, Protocol

import torch
from torch import Tensor, nn

from luthier.ground.errors import BadInput, Refused
from luthier.ground.spec import TrainSpec
from luthier.objectives.base import Objective
from luthier.rows.packing import single_rows
from luthier.rows.types import Pack
from luthier.training.in_backward import BrokenGradientError, InBackward
from luthier.training.loss_scale import LossScale
from luthier.training.optimizers.updates import Updates
from luthier.training.spikes import Ceiling
from luthier.training.turns import LayerTurns

NAMED_ROWS = 5  # rows that an error names


@dataclass(frozen=True)
class StepOutcome:
    """What one step was: its summed loss, its targets by weight, and the norm of the mean gradient before clipping.

    Attributes:
        count: the sum of the targets' weights; without weights, how many they are.
        skipped: why no weight was changed: `spike`, `overflow` (then `grad_norm` stands at 0.0), or nothing.
        spike: in words, what was above the ceiling, whether the step was skipped or not.
    """

    loss_sum: float
    count: float
    grad_norm: float
    skipped: Literal["", "spike", "overflow"] = ""
    spike: str = ""


class TornStepError(Refused):
    """A step that was refused when some weights had been updated already: only a checkpoint is whole."""


class Step(Protocol):
    """What the loop needs of whatever trains."""

    def run(self, packs: Sequence[Pack], learning_rate: float, ceiling: Ceiling | None = None) -> StepOutcome:
        """Take one optimizer step on the mean loss over all targets of `packs`, unless it is above the ceiling."""
        ...

    def evaluate(self, packs: Sequence[Pack]) -> tuple[float, float]:
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
    """The plain step: autograd, gradient accumulation over packs, the optimizer.

    Args:
        trainable: the trained parameters by name, in float32 (or bfloat16: they are then updated with stochastic
            rounding); all others must not require a gradient.
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
        self._on_spike = spec.on_spike
        self._updates = Updates(self._trainable, spec)
        self._in_backward = InBackward(self._trainable, self._updates) if spec.optimizer_in_backward else None
        self._scale = LossScale() if spec.precision == "fp16" else None
        self._turns = (
            LayerTurns(model, self._trainable, spec.layers_in_turn, spec.seed) if spec.layers_in_turn else None
        )

    def run(self, packs: Sequence[Pack], learning_rate: float, ceiling: Ceiling | None = None) -> StepOutcome:
        """Take one optimizer step on the mean loss over all targets of `packs`, unless it is above the ceiling.

        Raises:
            Refused: a loss or the gradient is not finite, or above the ceiling and `on_spike` is stop; the rows are
                named, and weights, optimizer state and random numbers are as they were before the step.
            TornStepError: as above, but weights were updated in backward already.
        """
        if not self._model.training:  # setting it walks through all modules, which takes 1 % of a step
            self._model.train()
        self._forget_gradients()
        with self._undone_on_error():
            ended = self._turns.begin() if self._turns else []
            loss_sum, count = self._accumulate(packs, learning_rate)
            grad_norm = self._in_backward.grad_norm() / count if self._in_backward else self._grad_norm(count)
            outcome = self._judged(packs, StepOutcome(loss_sum, count, grad_norm), ceiling)
        self._updates.forget(ended)  # not sooner: a refused step leaves the state that it found
        if not outcome.skipped and not self._in_backward:
            clip = min(1.0, self._max_grad_norm / (grad_norm + 1e-6)) if self._max_grad_norm else 1.0
            self._updates.step(learning_rate, clip / count / self._loss_factor)
        if self._scale:
            self._scale.note(overflow=outcome.skipped == "overflow")
        self._forget_gradients()
        return outcome

    def prepare(self) -> None:
        """Make the optimizer's state now, as it is after a first step."""
        self._updates.fill()

    def evaluate(self, packs: Sequence[Pack]) -> tuple[float, float]:
        """Return (loss sum, count) over `packs`, in evaluation mode, without gradients."""
        self._model.eval()
        with torch.no_grad():
            parts = [self._loss(pack) for pack in packs]
        return math.fsum(loss.item() for loss, _ in parts), sum(count for _, count in parts)

    def tensors(self) -> dict[str, Tensor]:
        """Return trained weights as `weight/NAME`, the optimizer's state, and the counters of scale and turns."""
        weights = {f"weight/{name}": parameter.detach() for name, parameter in self._trainable.items()}
        counters = [part.tensors() for part in (self._scale, self._turns) if part]
        return {
            **weights,
            **self._updates.tensors(),
            **{name: value for part in counters for name, value in part.items()},
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back trained weights and optimizer state."""
        self.restore_weights(tensors)
        self._updates.restore(tensors)
        for part in (self._scale, self._turns):
            if part:
                part.restore(tensors)

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

    def _accumulate(self, packs: Sequence[Pack], learning_rate: float) -> tuple[float, float]:
        """Add up the gradients of the loss *sum*; dividing once, by the step's count, is what makes packs add up."""
        loss_sum, count = 0.0, 0.0
        for number, pack in enumerate(packs, start=1):
            loss, targets = self._loss(pack)
            if not math.isfinite(value := loss.item()):
                self._refuse("loss", [pack])
            loss_sum, count = loss_sum + value, count + targets
            with self._updating(packs, learning_rate, count, is_last=number == len(packs)):
                (loss * self._loss_factor if self._scale else loss).backward()  # type: ignore[no-untyped-call]
        return loss_sum, count

    @contextlib.contextmanager
    def _updating(self, packs: Sequence[Pack], learning_rate: float, count: float, *, is_last: bool) -> Iterator[None]:
        """Update in backward, if so wanted, when the gradients are complete and the step's count is known."""
        if self._in_backward is None or not is_last:
            yield
            return
        try:
            with self._in_backward.armed(learning_rate, 1.0 / count):
                yield
        except BrokenGradientError:
            self._refuse("gradient", packs, TornStepError)

    def _grad_norm(self, count: float) -> float:
        """Return the norm of the mean gradient."""
        gradients = [p.grad for p in self._trainable.values() if p.grad is not None]
        norms = [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]
        total = torch.linalg.vector_norm(torch.stack(norms)).item() if norms else 0.0
        return total / count / self._loss_factor

    def _judged(self, packs: Sequence[Pack], outcome: StepOutcome, ceiling: Ceiling | None) -> StepOutcome:
        """Decide, from loss and norm alone, whether the step is taken."""
        if not math.isfinite(outcome.grad_norm):
            if self._scale is None or self._scale.is_exhausted:
                self._refuse("gradient", packs)
            return replace(outcome, grad_norm=0.0, skipped="overflow")
        fault = ceiling.fault(outcome.loss_sum / outcome.count, outcome.grad_norm) if ceiling else None
        if fault is None:
            return outcome
        if self._on_spike == "stop":
            self._forget_gradients()
            named = _named(self._places(packs))
            raise Refused(
                f"{fault}, and the step was not taken; its rows are {named}",
                fix="look at these rows, lower train.learning_rate, or set train.on_spike: skip",
            )
        return replace(outcome, spike=fault, skipped="spike" if self._on_spike == "skip" else "")

    @property
    def _loss_factor(self) -> float:
        return self._scale.value if self._scale else 1.0

    def _forget_gradients(self) -> None:
        for parameter in self._trainable.values():
            parameter.grad = None

    def _loss(self, pack: Pack) -> tuple[Tensor, float]:
        with self._precision():
            return self._objective.loss(self._model, pack)

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        if self._autocast is None:
            return contextlib.nullcontext()
        device = next(iter(self._trainable.values())).device.type
        return torch.autocast(device, dtype=self._autocast)

    def _refuse(self, what: str, packs: Sequence[Pack], how: type[Refused] = Refused) -> NoReturn:
        guilty = self._guilty(what, packs)
        self._forget_gradients()
        torn = "was not taken" if how is Refused else "had changed weights already, so that only checkpoints are whole"
        raise how(
            f"the {what} of {_named(guilty)} is not finite, and the step {torn}",
            fix="look at these rows, or lower train.learning_rate",
        )

    def _guilty(self, what: str, packs: Sequence[Pack]) -> list[str]:
        """Return the places of the rows that alone give no finite number, or of all rows if there are none such."""
        rows = [row for pack in packs for row in single_rows(pack)]
        return [row.places[0] for row in rows if not self._is_finite(what, row)] or self._places(packs)

    def _places(self, packs: Sequence[Pack]) -> list[str]:
        return [place for pack in packs for place in pack.places if place]  # a shared beginning is nobody's row

    def _is_finite(self, what: str, row: Pack) -> bool:
        self._forget_gradients()
        loss, _ = self._loss(row)
        if what == "loss" or not math.isfinite(loss.item()):
            return math.isfinite(loss.item())
        loss.backward()  # type: ignore[no-untyped-call]
        return all(bool(p.grad.isfinite().all()) for p in self._trainable.values() if p.grad is not None)

    @contextlib.contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Put random numbers and turns back if the step is refused."""
        state = torch.get_rng_state()
        try:
            yield
        except Refused:
            torch.set_rng_state(state)
            if self._turns:
                self._turns.take_back()
            raise


def _named(places: Sequence[str]) -> str:
    more = f" and {len(places) - NAMED_ROWS} more" if len(places) > NAMED_ROWS else ""
    return ", ".join(places[:NAMED_ROWS]) + more
