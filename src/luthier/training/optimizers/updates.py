"""Updating weights from their gradients: all at once, or one weight at a time.

Float32 weights are updated at once by one optimizer. One at a time serves two memory levers: a weight may be updated as
soon as its gradient is complete (`luthier.training.in_backward`), and a bfloat16 weight without a float32 master is
widened, updated in float32 and rounded stochastically, so that the float32 values of one weight are all that exist.
Scaling and clipping come in as one factor; when a step is taken is the step's affair.

    updates = Updates(trainable, spec); updates.step(learning_rate=1e-3, factor=1 / count)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from luthier.ground.seeds import derived_seed
from luthier.ground.spec import TrainSpec
from luthier.training.optimizers.base import OPTIMIZERS, make_optimizer, optimizer_tensors, restore_optimizer
from luthier.training.optimizers.rounding import round_stochastically


class Updates:
    """The optimizer of a run over `trainable`, float32 or bfloat16 weights by name."""

    def __init__(self, trainable: Mapping[str, nn.Parameter], spec: TrainSpec) -> None:
        self._trainable = dict(trainable)
        self._kind = OPTIMIZERS.get(spec.optimizer)
        self._seed = spec.seed
        self._exact = {name: _exact_of(weight) for name, weight in self._trainable.items()}
        narrow = any(self._exact[name] is not weight for name, weight in self._trainable.items())
        self._one_by_one = narrow or spec.optimizer_in_backward
        groups = [[name] for name in self._trainable] if self._one_by_one else [list(self._trainable)]
        self._groups = [
            (group, make_optimizer({name: self._exact[name] for name in group}, spec)) for group in groups if group
        ]
        self._optimizers = {name: optimizer for group, optimizer in self._groups for name in group}
        if spec.optimizer_in_backward and not spec.layers_in_turn:
            self.fill()

    def fill(self) -> None:
        """Make all state now: made during backward, it would lie between activations and scatter the memory."""
        for name, weight in self._trainable.items():
            self._optimizers[name].state[self._exact[name]] = self._kind.fresh(weight.shape, weight.device)

    @torch.no_grad()
    def step(self, learning_rate: float, factor: float) -> None:
        """Update every weight that has a gradient, from `factor` times that gradient; gradients may be spoiled."""
        if self._one_by_one:
            for name in self._trainable:
                self.step_one(name, learning_rate, factor)
            return
        gradients = [weight.grad for weight in self._trainable.values() if weight.grad is not None]
        torch._foreach_mul_(gradients, factor)
        for _, optimizer in self._groups:
            _run(optimizer, learning_rate)
        increment_version(self._trainable.values())  # the fused AdamW does not, and who copies weights asks for it

    @torch.no_grad()
    def step_one(self, name: str, learning_rate: float, factor: float) -> None:
        """Update the weight `name` from `factor` times its gradient; without a gradient it stays."""
        weight, exact = self._trainable[name], self._exact[name]
        if weight.grad is None:
            return
        if exact is not weight:
            exact.data = weight.to(torch.float32)
            exact.grad = weight.grad.to(torch.float32)
        exact.grad.mul_(factor)  # type: ignore[union-attr]  # set above, or the weight's own
        _run(self._optimizers[name], learning_rate)
        if exact is not weight:
            round_stochastically(weight, exact.data, self._generator(name))
            exact.grad, exact.data = None, _empty(weight)
        increment_version((weight,))

    def forget(self, names: Iterable[str]) -> None:
        """Drop the optimizer's state of these weights."""
        for name in names:
            self._optimizers[name].state.pop(self._exact[name], None)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of all weights by `STATE/NAME`."""
        tensors: dict[str, Tensor] = {}
        for group, optimizer in self._groups:
            tensors |= optimizer_tensors(optimizer, {name: self._exact[name] for name in group})
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` returned."""
        for group, optimizer in self._groups:
            shapes = {name: self._trainable[name].shape for name in group}
            restore_optimizer(optimizer, {name: self._exact[name] for name in group}, shapes, tensors, self._kind)

    def _generator(self, name: str) -> torch.Generator:
        """Return the random numbers of this update: seed, weight and step decide them, and no state has to be kept."""
        step = int(self._optimizers[name].state[self._exact[name]]["step"].item())
        device = self._trainable[name].device
        generator = torch.Generator(device="cpu" if device.type == "meta" else device)
        return generator.manual_seed(derived_seed(self._seed, "rounding", name, step))


def _run(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()


def _exact_of(weight: nn.Parameter) -> nn.Parameter:
    """Return the weight itself if it is float32, otherwise an empty place for its float32 values."""
    return weight if weight.dtype == torch.float32 else nn.Parameter(_empty(weight))


def _empty(weight: Tensor) -> Tensor:
    return torch.empty([0] * weight.ndim, device=weight.device)
