"""Updating each weight as soon as its gradient is complete, during backward, and freeing the gradient at once.

All gradients are then never there together, which saves their memory when a step is one pack; with several packs they
add up until the last pack's backward, which updates. The mathematics is that of the plain step without clipping. What
cannot be had: a norm before the first update. A gradient that is not finite is found before its own weight's update,
but other weights may have been updated by then: the step is torn, and only a checkpoint is whole.

    with in_backward.armed(learning_rate=1e-3, factor=1 / count): loss.backward()
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from luthier.training.optimizers.updates import Updates


class BrokenGradientError(Exception):
    """A gradient was not finite, or came in two parts, while weights were being updated."""


class InBackward:
    """Hooks on all trained weights; they act only while armed."""

    def __init__(self, trainable: Mapping[str, nn.Parameter], updates: Updates) -> None:
        self._trainable = dict(trainable)
        self._updates = updates
        self._how: tuple[float, float] | None = None
        self._norms: dict[str, Tensor] = {}
        for name, weight in self._trainable.items():
            weight.register_post_accumulate_grad_hook(self._hook(name))  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def armed(self, learning_rate: float, factor: float) -> Iterator[None]:
        """Update weights, from `factor` times their gradients, during the one backward of the block.

        Raises:
            BrokenGradientError: a gradient is not finite; some weights were updated, and some were not.
        """
        self._how, self._norms = (learning_rate, factor), {}
        try:
            yield
            for name, weight in self._trainable.items():  # gradients of earlier packs that the last one did not touch
                if weight.grad is not None:
                    self._update(name)
        finally:
            self._how = None

    def grad_norm(self) -> float:
        """Return the norm of the last block's gradients, before `factor`."""
        norms = [self._norms[name] for name in self._trainable if name in self._norms]
        return torch.linalg.vector_norm(torch.stack(norms)).item() if norms else 0.0

    def _hook(self, name: str) -> Callable[[Tensor], None]:
        def complete(_: Tensor) -> None:
            if self._how is not None:
                self._update(name)

        return complete

    def _update(self, name: str) -> None:
        weight = self._trainable[name]
        if self._how is None or weight.grad is None:
            return
        norm = torch.linalg.vector_norm(weight.grad, dtype=torch.float32)
        if name in self._norms or not math.isfinite(norm.item()):
            raise BrokenGradientError(name)
        self._norms[name] = norm
        self._updates.step_one(name, *self._how)
        weight.grad = None
