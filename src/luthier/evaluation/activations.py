"""Watch what goes in and out of a model's modules: the largest value and where, and values that are not finite.

Watched are all modules without children (norms, activations, the embedding), linear layers, the head among them, of
every kind, and the decoder blocks, whose outputs are the residual stream. Attention scores live inside the attention
function and are not seen. Nothing is changed, and no tensor is kept.

    with Watch(model) as watch: model(ids)
    watch.largest
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Place = tuple[str, str]  # module path; "in" or "out"


class Watch:
    """What was seen while the `with` block lasted.

    Attributes:
        peaks: largest finite absolute value by place.
        not_finite: values that were NaN or infinite; one that leaves a module and enters the next counts twice.
        first_bad: where the first of them stood, or None.
        tokens: of the pack that runs; what the model appends to fill a pack up is not looked at.
        seconds: that watching took.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [(path, module) for path, module in model.named_modules() if _is_watched(path, module, model)]
        self._hooks: list[RemovableHandle] = []
        self.peaks: dict[Place, float] = {}
        self.not_finite = 0
        self.first_bad: Place | None = None
        self.tokens = 0
        self.seconds = 0.0

    @property
    def largest(self) -> tuple[float, str]:
        """The largest finite absolute value and the path of its module; of equals the one that was seen first."""
        place = max(self.peaks, key=lambda place: self.peaks[place], default=None)
        return (self.peaks[place], place[0]) if place else (0.0, "")

    def __enter__(self) -> Watch:
        self._hooks = [module.register_forward_hook(self._hook(path)) for path, module in self._modules]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._modules = []  # who keeps what was seen must not keep the model

    def _hook(self, path: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            began = time.perf_counter()
            for tensor in _tensors(inputs):
                self._see((path, "in"), tensor)
            for tensor in _tensors(output if isinstance(output, tuple) else (output,)):
                self._see((path, "out"), tensor)
            self.seconds += time.perf_counter() - began

        return hook

    def _see(self, place: Place, tensor: Tensor) -> None:
        values = self._own(tensor.detach())
        if not values.numel():
            return
        low, high = torch.aminmax(values)  # one pass; a NaN comes through
        peak = torch.maximum(-low, high).item()
        if not peak < torch.inf:
            finite = values.isfinite()
            self.not_finite += int(values.numel() - finite.sum())
            self.first_bad = self.first_bad or place
            peak = values.masked_fill(~finite, 0).abs().max().item()
        self.peaks[place] = max(peak, self.peaks.get(place, 0.0))

    def _own(self, tensor: Tensor) -> Tensor:
        """Return the part of [1, T, …] or [T, …] that belongs to the pack's own tokens."""
        axis = 1 if tensor.ndim > 2 and tensor.shape[0] == 1 else 0
        filled = self.tokens and tensor.ndim > 1 and 0 < tensor.shape[axis] - self.tokens < _MOST_FILL
        return tensor.narrow(axis, 0, self.tokens) if filled else tensor


_MOST_FILL = 64  # `luthier.models.packed` fills a pack with fewer tokens than this


def computes(module: nn.Module) -> bool:
    """Whether a module is a step of the arithmetic: it has no children, or it is a linear layer that holds parts."""
    return isinstance(module, nn.Linear) or next(module.children(), None) is None


def _is_watched(path: str, module: nn.Module, model: nn.Module) -> bool:
    owner = path.rpartition(".")[0]
    return bool(path) and (computes(module) or isinstance(model.get_submodule(owner), nn.ModuleList))


def _tensors(values: tuple[Any, ...]) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
