"""Float32 masters of weights that compute in bfloat16: they are trained, and the weights are rounded from them.

Whoever has masters hands each complete gradient on to them (`receive`) and rounds the weights before each forward;
small updates are then not lost to rounding. How `luthier.adapters.full` does it for all weights is described there.

    master = master_of(weight)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def master_of(weight: nn.Parameter) -> nn.Parameter:
    """Return a float32 master of a weight; a float32 weight is its own."""
    return weight if weight.dtype == torch.float32 else Master(weight.detach().to(torch.float32))


class Master(nn.Parameter):
    """A float32 parameter that is handed its gradients, and then calls the hooks that autograd would have called."""

    def __init__(self, *_: object) -> None:
        self._hooks: list[Callable[[Tensor], None]] = []

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> None:
        """Call `hook` with this parameter whenever a gradient was added."""  # no handle: it lives as long as this
        self._hooks.append(hook)

    def receive(self, gradient: Tensor) -> None:
        """Add a gradient in float32."""
        wide = gradient.to(torch.float32)
        self.grad = wide if self.grad is None else self.grad.add_(wide)
        for hook in self._hooks:
            hook(self)
