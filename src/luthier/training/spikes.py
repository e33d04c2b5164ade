"""What counts as a spike: a loss or gradient norm far above those of the last steps, by medians, not means.

A ceiling is the median of the last 50 steps that were taken, plus `train.spike_factor` robust deviations (1.4826 times
the median absolute deviation, and at least 2 % of the median, so that calm stretches do not make everything a spike).
It is a pure function of the history, which a checkpoint keeps, so that a resumed run judges alike, and of numbers that
are the same on all ranks. What follows from a spike is decided by `train.on_spike`, in the step and in the loop.

    ceiling = ceiling_of(history, TrainSpec(on_spike="skip"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from luthier.ground.results import StepRecord
from luthier.ground.spec import TrainSpec

WINDOW = 50
FEWEST = 10  # steps before anything is judged
MOST_SKIPPED = 10  # spikes in a row are no spikes
_LEAST_DEVIATION = 0.02  # of the median


@dataclass(frozen=True)
class Ceiling:
    """Above one of these (loss per target, norm of the mean gradient) a step is a spike."""

    loss: float
    grad_norm: float

    def fault(self, loss: float, grad_norm: float) -> str | None:
        """Return in words what is above the ceiling, or None."""
        for name, value, most in (("loss", loss, self.loss), ("gradient norm", grad_norm, self.grad_norm)):
            if value > most:
                return f"the {name} {value:.4g} is far above that of the last steps (ceiling {most:.4g})"
        return None


def ceiling_of(history: Sequence[StepRecord], spec: TrainSpec) -> Ceiling | None:
    """Return the ceiling for the next step, or None while too few steps have been taken."""
    window = [record for record in history[-4 * WINDOW :] if not record.skipped][-WINDOW:]
    if len(window) < FEWEST:
        return None
    losses, norms = [record.loss for record in window], [record.grad_norm for record in window]
    return Ceiling(_ceiling(losses, spec.spike_factor), _ceiling(norms, spec.spike_factor))


def skipped_in_a_row(history: Sequence[StepRecord]) -> int:
    """Return how many of the last steps were skipped as spikes, counted from the end."""
    count = 0
    for record in reversed(history):
        if record.skipped != "spike":
            break
        count += 1
    return count


def _ceiling(values: Sequence[float], factor: float) -> float:
    middle = median(values)
    deviation = 1.4826 * median(abs(value - middle) for value in values)
    return middle + factor * max(deviation, _LEAST_DEVIATION * middle)
