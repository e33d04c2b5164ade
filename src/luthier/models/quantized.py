"""Linear layers whose frozen weights are quantised: 8-bit integers or NF4, rounded to nearest.

`int8` keeps one float32 scale a row, the largest magnitude / 127. `nf4` (QLoRA, Dettmers et al. 2023, arXiv:2305.14314)
keeps 4-bit codes of the nearest normal quantile in blocks of 64 with one scale each; the scales, less their mean, are
8-bit floats in groups of 256 (double quantisation). Blocks do not cross rows. A layer turns its weight into numbers
when it multiplies, and again in its backward, so that the numbers are never kept. Which rounding is best (GPTQ and the
like), training through the rounding, and file formats are not here.

    quantize_model(model, "nf4"); quantized_bytes((4096, 4096), "nf4")
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel

from luthier.ground.errors import BadInput
from luthier.models.kernels import dequantize
from luthier.models.kernels.dequantize import NF4_BLOCK, NF4_LEVELS, SCALE_GROUP

QuantizedKind = Literal["int8", "nf4"]
Layout = dict[str, tuple[tuple[int, ...], torch.dtype]]

_FLOAT8_MAX = 448.0
_BORDERS: list[float] = ((NF4_LEVELS.double()[1:] + NF4_LEVELS.double()[:-1]) / 2).float().tolist()
_TILE = 1 << 15  # weights that are rounded at once


def quantize_model(model: PreTrainedModel, kind: QuantizedKind) -> None:
    """Replace the linear layers of the decoder blocks in place, one after another; each original weight is let go.

    Embedding, head and norms stay. On the meta device the layers get their shapes and no memory.

    Raises:
        BadInput: there is no such layer.
    """
    paths = quantizable_paths(model)
    if not paths:
        raise BadInput(
            f"{type(model).__name__} has no nn.Linear layers in its blocks, so nothing of it can be quantised",
            fix="set train.base: bf16 or fp32",
        )
    for path in paths:
        linear = model.get_submodule(path)
        assert isinstance(linear, nn.Linear)
        model.set_submodule(path, QuantizedLinear.of(linear, kind))


def quantizable_paths(model: PreTrainedModel) -> list[str]:
    """Return the module paths of the linear layers that would be quantised, in the model's order."""
    return [path for path in linear_paths(model) if type(model.get_submodule(path)) is nn.Linear]


def linear_paths(model: PreTrainedModel) -> list[str]:
    """Return the module paths of all linear layers inside numbered blocks, except the output head."""
    head = model.get_output_embeddings()
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and any(part.isdigit() for part in path.split("."))
    ]


def quantized_bytes(shape: tuple[int, int], kind: QuantizedKind) -> int:
    """Return the bytes of a quantised weight of this shape (outputs, inputs), scales included."""
    return sum(math.prod(size) * dtype.itemsize for size, dtype in KINDS[kind].layout(*shape).values())


def parameter_count(model: nn.Module) -> int:
    """Return the number of weights of a model, quantised ones included."""
    return sum(weight_counts(model).values())


def weight_counts(model: nn.Module) -> dict[str, int]:
    """Return how many weights each parameter has, and each quantised weight, by name; tied ones once."""
    counts = {name: weight.numel() for name, weight in model.named_parameters()}
    quantized = ((name, part) for name, part in model.named_modules() if isinstance(part, QuantizedWeight))
    return counts | {name: math.prod(part.shape) for name, part in quantized}


class QuantizedWeight(nn.Module, ABC):
    """Codes and scales of a weight matrix, as buffers. Shapes: O outputs (rows), I inputs.

    Attributes:
        dtype: what the weight stands for when nothing else is asked for; a cast of the model changes it, and only it.
    """

    kind: ClassVar[QuantizedKind]

    def __init__(self, outputs: int, inputs: int, dtype: torch.dtype, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.shape, self.dtype = (outputs, inputs), dtype
        for name, (size, of) in self.layout(outputs, inputs).items():
            self.register_buffer(name, torch.empty(size, dtype=of, device=device))

    @staticmethod
    def of(weight_OI: Tensor, kind: QuantizedKind, dtype: torch.dtype | None = None) -> QuantizedWeight:
        """Round a weight matrix as it is in `dtype` (default: its own); without memory it gives one without memory."""
        outputs, inputs = weight_OI.shape
        made = KINDS[kind](outputs, inputs, dtype or weight_OI.dtype, weight_OI.device)
        if not weight_OI.is_meta:
            made.fill(weight_OI.detach())
        return made

    def dequantized(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the weight [O, I] as numbers."""
        return self.write(torch.empty(self.shape, dtype=dtype or self.dtype, device=self.device))

    @property
    def device(self) -> torch.device:
        """Where the codes lie."""
        return next(self.buffers()).device

    @staticmethod
    @abstractmethod
    def layout(outputs: int, inputs: int) -> Layout:
        """Return shape and element type of each buffer."""

    @abstractmethod
    def fill(self, weight_OI: Tensor) -> None:
        """Make codes and scales from a weight."""

    @abstractmethod
    def write(self, out_OI: Tensor) -> Tensor:
        """Write the numbers to `out_OI`, whose rows may lie in a wider buffer, and return it."""

    def is_finite(self) -> bool:
        """Whether all scales are finite, and so were all weights."""
        return all(bool(part.isfinite().all()) for part in self.buffers() if part.is_floating_point())

    def _tiles(self, weight_OI: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows and their weights as they are in `dtype`, in float32: few at once, to need little memory."""
        step = max(1, _TILE // max(1, weight_OI.shape[1]))
        for first in range(0, len(weight_OI), step):
            rows = slice(first, first + step)
            yield rows, weight_OI[rows].to(self.dtype).float()

    def extra_repr(self) -> str:
        return f"{self.kind}, {self.shape[0]} x {self.shape[1]}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedWeight:
        """Move with the model, but do not let a cast round the scales."""
        before = dict(self._buffers)
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.device)).dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch does not type it
        for name, buffer in before.items():
            moved = self._buffers[name]
            if buffer is not None and moved is not None and moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self


class Int8Weight(QuantizedWeight):
    """Integers from -127 to 127 and a scale for each row."""

    kind = "int8"
    codes: Tensor
    scales: Tensor

    @staticmethod
    def layout(outputs: int, inputs: int) -> Layout:
        return {"codes": ((outputs, inputs), torch.int8), "scales": ((outputs,), torch.float32)}

    def fill(self, weight_OI: Tensor) -> None:
        for rows, tile in self._tiles(weight_OI):
            self.scales[rows] = tile.abs().amax(1) / 127
            steps = tile / _divisor(self.scales[rows, None])
            self.codes[rows] = steps.round_().clamp_(-127, 127).to(torch.int8)

    def write(self, out_OI: Tensor) -> Tensor:
        return dequantize.int8(self.codes, self.scales, out_OI)


class Nf4Weight(QuantizedWeight):
    """Two codes a byte (P bytes a row), an 8-bit float for each of B blocks of a row, and a scale for 256 of those."""

    kind = "nf4"
    codes: Tensor
    scale_codes: Tensor
    outer: Tensor
    mean: Tensor

    @staticmethod
    def layout(outputs: int, inputs: int) -> Layout:
        blocks = -(-inputs // NF4_BLOCK)
        return {
            "codes": ((outputs, -(-inputs // 2)), torch.uint8),
            "scale_codes": ((outputs, blocks), torch.uint8),
            "outer": ((-(-outputs * blocks // SCALE_GROUP),), torch.float32),
            "mean": ((), torch.float32),
        }

    def fill(self, weight_OI: Tensor) -> None:
        largest_OB = torch.cat([_blocks(tile).abs().amax(-1) for _, tile in self._tiles(weight_OI)])
        self._fill_scales(largest_OB)
        scales_OB = dequantize.nf4_scales(self.scale_codes, self.outer, self.mean)
        for rows, tile in self._tiles(weight_OI):
            # divided by the scale that the weight will be multiplied with, so that the nearest code is the nearest
            steps = _blocks(tile) / _divisor(scales_OB[rows, :, None])
            codes = _count_below(steps).flatten(1)
            self.codes[rows] = (codes[:, ::2] | codes[:, 1::2] << 4)[:, : self.codes.shape[1]]

    def _fill_scales(self, largest_OB: Tensor) -> None:
        self.mean.copy_(largest_OB.double().mean())  # in float64, whose sum hardly depends on the order
        apart_N = largest_OB.flatten() - self.mean
        missing = -len(apart_N) % SCALE_GROUP
        apart_GS = functional.pad(apart_N, (0, missing)).view(-1, SCALE_GROUP)
        # few bits, so that a product with an 8-bit float is exact and every way of adding the mean gives the same
        self.outer.copy_((apart_GS.abs().amax(1) / _FLOAT8_MAX).bfloat16())
        inner_GS = (apart_GS / _divisor(self.outer[:, None])).clamp_(-_FLOAT8_MAX, _FLOAT8_MAX)
        inner_N = inner_GS.to(torch.float8_e4m3fn).view(torch.uint8).flatten()[: len(apart_N)]
        self.scale_codes.copy_(inner_N.view(self.scale_codes.shape))

    def write(self, out_OI: Tensor) -> Tensor:
        return dequantize.nf4(self.codes, self.scale_codes, self.outer, self.mean, out_OI)


KINDS: dict[QuantizedKind, type[QuantizedWeight]] = {"int8": Int8Weight, "nf4": Nf4Weight}


class QuantizedLinear(nn.Linear):
    """A linear layer with a frozen quantised weight. `weight` is None: what reads it must know of `quantized`."""

    def __init__(self, quantized: QuantizedWeight, bias: nn.Parameter | None) -> None:
        nn.Module.__init__(self)  # not Linear's: no weight is made
        self.out_features, self.in_features = quantized.shape
        self.register_parameter("weight", None)
        self.register_parameter("bias", bias)
        self.quantized = quantized

    @classmethod
    def of(cls, linear: nn.Linear, kind: QuantizedKind) -> QuantizedLinear:
        """Return a layer that stands for `linear`, with its bias."""
        made = cls(QuantizedWeight.of(linear.weight, kind), linear.bias)
        return made.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        return quantized_linear(input, self.quantized, self.bias)


def quantized_linear(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """Return W x + b; neither its forward nor its backward leaves the numbers of W in memory."""
    out: Tensor = _QuantizedProduct.apply(x, bias, weight)  # type: ignore[no-untyped-call]
    return out


class _QuantizedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, weight: QuantizedWeight) -> Tensor:
        ctx.weight = weight
        return functional.linear(x, weight.dequantized(x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight: QuantizedWeight = ctx.weight
        grad_x = grad @ weight.dequantized(grad.dtype) if ctx.needs_input_grad[0] else None
        grad_bias = grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return grad_x, grad_bias, None


def _blocks(weight_OI: Tensor) -> Tensor:
    """Return the weights in blocks; the last of a row is filled up with zeros."""
    missing = -weight_OI.shape[1] % NF4_BLOCK
    filled = functional.pad(weight_OI, (0, missing)) if missing else weight_OI
    return filled.view(len(filled), -1, NF4_BLOCK)


def _count_below(steps: Tensor) -> Tensor:
    """Return the number of borders below each value: the nearest level (faster than a search by `bucketize`)."""
    codes = torch.zeros_like(steps, dtype=torch.uint8)
    for border in _BORDERS:
        codes += steps > border
    return codes


def _divisor(scales: Tensor) -> Tensor:
    """Return scales with 1 in the place of 0: what they divide is 0 then, or becomes it."""
    return scales.masked_fill(scales == 0, 1.0)
