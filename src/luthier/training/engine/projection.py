"""Linear layers that read the same input, with their LoRA updates, as one matrix product each way.

The frozen weights W and the scaled up-projections sB lie side by side in one matrix, and the low-rank values z = A x in
the last columns of the input's buffer, so that y = W x + sB z is one product, and its backward gives the gradients of x
and of z in one product too. While a projection is in use, its layers' weights are views of that matrix: nothing is held
twice. Quantised weights are written into one scratch matrix, which all projections share, each time that they multiply.
Trained weights (full finetuning) work alike, without the extra columns. The plain way to the same is
`luthier.adapters.lora.LoraLinear`. Not seen by autograd: `luthier.training.engine.block` calls both directions.

Shapes: T tokens, I inputs, R low-rank columns of all layers (rounded up to 8), O outputs of all layers.

    projection = Projection([layer.q_proj, layer.k_proj, layer.v_proj]); y_TO = projection.forward(x_TX)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from luthier.adapters.lora import LoraLinear
from luthier.models.quantized import QuantizedLinear, QuantizedWeight

_RANK_STEP = 8
_NAMES = ("weight", "bias", "lora_A", "lora_B")


class Scratch:
    """Memory for one joined matrix at a time, as large as the largest that was announced."""

    def __init__(self) -> None:
        self._numbers = 0
        self._memory: Tensor | None = None

    def announce(self, rows: int, columns: int) -> None:
        """Say that a matrix of this shape will be wanted."""
        self._numbers = max(self._numbers, rows * columns)

    def matrix(self, rows: int, columns: int, like: Tensor) -> Tensor:
        """Return a matrix of any values, in the precision and place of `like`; the one before is overwritten."""
        if self._memory is None or len(self._memory) < self._numbers:
            self._memory = like.new_empty(self._numbers)
        return self._memory[: rows * columns].view(rows, columns)


class Projection:
    """One or more linear layers over one input.

    Args:
        scratch: where the matrix of quantised layers is made; its own if none is given.
    """

    def __init__(self, layers: Sequence[nn.Linear], scratch: Scratch | None = None) -> None:
        self.layers = list(layers)
        self.lora = [layer for layer in self.layers if isinstance(layer, LoraLinear)]
        self.inputs = self.layers[0].in_features
        self.sizes = [layer.out_features for layer in self.layers]
        self.outputs = sum(self.sizes)
        ranks = sum(layer.rank for layer in self.lora)
        self.rank = -(-ranks // _RANK_STEP) * _RANK_STEP
        like = _like(self.layers[0])
        self._down = like.new_zeros(self.rank, self.inputs)
        self._kept: Tensor | None = None
        self._scratch = scratch or Scratch()
        if any(_quantized(layer) is not None for layer in self.layers):
            self._scratch.announce(self.outputs, self.inputs + self.rank)
            self._up = like.new_zeros(self.outputs, self.rank)
        else:
            self._kept = like.new_zeros(self.outputs, self.inputs + self.rank)
            self._up = self._kept[:, self.inputs :]
            self._share_weights(self._kept)
        self._bias = self._joined_bias()
        self._seen: tuple[int, ...] = ()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained at present, in the order of `parameter_grads`."""
        every = [parameter for layer in self.layers for parameter in _parameters_of(layer)]
        return [parameter for parameter in every if parameter is not None and parameter.requires_grad]

    # -- forward -----------------------------------------------------------------------------------------------------

    def buffer(self, tokens: int) -> Tensor:
        """Return an empty input buffer [T, I + R]; its first I columns are to be filled."""
        return self._down.new_empty(tokens, self.inputs + self.rank)

    def forward(self, x_TX: Tensor, add_TO: Tensor | None = None, factor: float = 1.0) -> Tensor:
        """Return y [T, O], times `factor`, plus `add_TO`; fills the last R columns of `x_TX` with z."""
        self._refresh()
        if self.rank:
            torch.mm(x_TX[:, : self.inputs], self._down.t(), out=x_TX[:, self.inputs :])
        if add_TO is not None and self._bias is None:
            return torch.addmm(add_TO, x_TX, self._joined().t(), alpha=factor)
        y_TO = self._product(x_TX)
        if factor != 1.0:
            y_TO.mul_(factor)
        return y_TO if add_TO is None else y_TO.add_(add_TO)

    def low_rank(self, x_TI: Tensor) -> Tensor:
        """Return z = A x, [T, R]."""
        return torch.mm(x_TI, self._down.t())

    def _product(self, x_TX: Tensor) -> Tensor:
        if self._bias is None:
            return torch.mm(x_TX, self._joined().t())
        return torch.addmm(self._bias, x_TX, self._joined().t())

    # -- backward ----------------------------------------------------------------------------------------------------

    def input_back(self, dy_TO: Tensor, wants_input: bool = True) -> Tensor:
        """Return the gradient [T, I + R] of the buffer; without `wants_input` only its last R columns are computed."""
        if wants_input:
            return torch.mm(dy_TO, self._joined())
        d_TX = self.buffer(len(dy_TO))
        torch.mm(dy_TO, self._up, out=d_TX[:, self.inputs :])
        return d_TX

    def add_low_rank(self, d_TX: Tensor) -> None:
        """Add what comes through z to the input's gradient, the first I columns, in place."""
        if self.rank:
            d_TX[:, : self.inputs].addmm_(d_TX[:, self.inputs :], self._down)

    def parameter_grads(self, dy_TO: Tensor, x_TI: Tensor, z_TR: Tensor, dz_TR: Tensor) -> list[Tensor]:
        """Return the gradient of each of `parameters`.

        Args:
            x_TI: the input, without the extra columns.
            z_TR, dz_TR: the low-rank values and their gradient.
        """
        grads: list[Tensor] = []
        down_RI = torch.mm(dz_TR.t(), x_TI) if self.lora else None
        weight_OI = self._weight_grads(dy_TO, x_TI)
        output = low = 0
        for layer, size in zip(self.layers, self.sizes, strict=True):
            part_TO = dy_TO[:, output : output + size]
            if weight_OI is not None and _is_trained(layer):
                grads.append(weight_OI[output : output + size])
            if layer.bias is not None and layer.bias.requires_grad:
                grads.append(part_TO.sum(0, dtype=torch.float32).to(layer.bias.dtype))
            if isinstance(layer, LoraLinear):
                assert down_RI is not None
                if layer.active and layer.lora_A.requires_grad:
                    grads.append(down_RI[low : low + layer.rank].float())
                if layer.active and layer.lora_B.requires_grad:
                    up_OR = torch.mm(part_TO.t(), z_TR[:, low : low + layer.rank])
                    grads.append(up_OR.float().mul_(layer.scale))
                low += layer.rank
            output += size
        return grads

    def _weight_grads(self, dy_TO: Tensor, x_TI: Tensor) -> Tensor | None:
        return torch.mm(dy_TO.t(), x_TI) if any(map(_is_trained, self.layers)) else None

    # -- weights -----------------------------------------------------------------------------------------------------

    def _joined(self) -> Tensor:
        """Return the matrix [W | sB] of all layers, [O, I + R]; a quantised one only lasts until the next is made."""
        if self._kept is not None:
            return self._kept
        joined_OX = self._scratch.matrix(self.outputs, self.inputs + self.rank, self._down)
        joined_OX[:, self.inputs :] = self._up
        output = 0
        for layer, size in zip(self.layers, self.sizes, strict=True):
            view = joined_OX[output : output + size, : self.inputs]
            quantized = _quantized(layer)
            if quantized is None:
                view.copy_(layer.weight.data)
            else:
                quantized.write(view)
            output += size
        return joined_OX

    def _share_weights(self, joined_OX: Tensor) -> None:
        output = 0
        for layer, size in zip(self.layers, self.sizes, strict=True):
            view = joined_OX[output : output + size, : self.inputs]
            view.copy_(layer.weight.data)
            layer.weight.data = view
            output += size

    def _joined_bias(self) -> Tensor | None:
        biases = [layer.bias for layer in self.layers]
        if all(bias is None for bias in biases):
            return None
        parts = [
            self._down.new_zeros(size) if bias is None else bias.data
            for bias, size in zip(biases, self.sizes, strict=True)
        ]
        return torch.cat(parts)

    def _refresh(self) -> None:
        """Take over what an optimizer, a restore or a switch has changed: all but the weights, which are shared."""
        seen = tuple(n for layer in self.layers for n in _state_of(layer))
        if seen == self._seen:
            return
        self._seen = seen
        if self._bias is not None:
            self._bias = self._joined_bias()
        with torch.no_grad():
            output = low = 0
            for layer, size in zip(self.layers, self.sizes, strict=True):
                if isinstance(layer, LoraLinear):
                    self._down[low : low + layer.rank] = layer.lora_A
                    scale = layer.scale if layer.active else 0.0
                    self._up[output : output + size, low : low + layer.rank] = layer.lora_B * scale
                    low += layer.rank
                output += size


def _quantized(layer: nn.Linear) -> QuantizedWeight | None:
    return layer.quantized if isinstance(layer, LoraLinear | QuantizedLinear) else None


def _like(layer: nn.Linear) -> Tensor:
    """Return a tensor of no values in the precision and place of a layer's arithmetic."""
    quantized = _quantized(layer)
    if quantized is None:
        return layer.weight.data[:0]
    return torch.empty(0, dtype=quantized.dtype, device=quantized.device)


def _is_trained(layer: nn.Linear) -> bool:
    return _quantized(layer) is None and layer.weight.requires_grad


def _parameters_of(layer: nn.Linear) -> list[nn.Parameter | None]:
    is_off = isinstance(layer, LoraLinear) and not layer.active
    return [getattr(layer, name, None) for name in (("weight", "bias") if is_off else _NAMES)]


def _state_of(layer: nn.Linear) -> list[int]:
    """Return what changes whenever that changes which is copied from a layer."""
    own = [] if layer.bias is None else [layer.bias._version]
    if isinstance(layer, LoraLinear):
        own += [layer.lora_A._version, layer.lora_B._version, int(layer.active)]
    return own
