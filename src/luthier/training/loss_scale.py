"""Dynamic loss scaling for float16, whose gradients would otherwise underflow (Micikevicius et al. 2018).

The rule is that of `torch.amp.GradScaler`: a step whose gradient overflowed is not taken and halves the scale; after
2,000 good steps in a row it doubles. It begins at 64 instead of 65,536, because the loss of a step is a sum over about
a thousand targets and not their mean. Finding the overflow is the step's affair, which knows the gradient's norm.

>>> scale = LossScale(); scale.note(overflow=True); scale.value
32.0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

GROWTH_STEPS = 2000
_LEAST = 2.0**-10


@dataclass
class LossScale:
    """The scale, and the good steps since it changed."""

    value: float = 64.0
    good_steps: int = 0

    def note(self, *, overflow: bool) -> None:
        """Count a step and adapt the scale."""
        self.good_steps = 0 if overflow else self.good_steps + 1
        if overflow:
            self.value /= 2
        elif self.good_steps == GROWTH_STEPS:
            self.value, self.good_steps = self.value * 2, 0

    @property
    def is_exhausted(self) -> bool:
        """Whether an overflow cannot be the scale's fault any more."""
        return self.value <= _LEAST

    def tensors(self) -> dict[str, Tensor]:
        """Return scale and count by name."""
        return {"loss_scale/value": torch.tensor(self.value), "loss_scale/good_steps": torch.tensor(self.good_steps)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` returned."""
        self.value = float(tensors["loss_scale/value"].item())
        self.good_steps = int(tensors["loss_scale/good_steps"].item())
