"""LoRA: W x + (alpha / r) B A x beside every chosen linear layer (Hu et al. 2021, arXiv:2106.09685).

A and B are float32 and are cast to the activations' precision for the arithmetic; A starts random, B zero. The layer is
replaced in place by a subclass of `nn.Linear` that shares its weight, quantised or not, so module paths stay those that
PEFT's on-disk format names. Reading and writing that format is `luthier.adapters.peft_format`. DoRA, biases and saved
modules are not supported; a folder that needs them is refused.

    LORA.inject(model, AdapterSpec(rank=16), seed=0)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel

from luthier.adapters.base import ADAPTERS, adapter_folder, mark_injected, mark_removed
from luthier.adapters.peft_format import Plan, read_peft, write_peft
from luthier.adapters.targets import choose_targets
from luthier.ground.errors import BadInput
from luthier.ground.results import Provenance
from luthier.ground.seeds import derived_seed
from luthier.ground.spec import AdapterSpec
from luthier.models.planned import device_type
from luthier.models.quantized import QuantizedLinear, QuantizedWeight, quantized_linear


class LoraLinear(nn.Linear):
    """A linear layer with a low-rank update beside it. It shares weight and bias with the layer that it stands for."""

    def __init__(self, base: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        nn.Module.__init__(self)  # not Linear's: no weight is made, the base's is shared
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.quantized = base.quantized if isinstance(base, QuantizedLinear) else None  # then there is no weight
        self.base = (base,)  # a tuple hides it from the module tree, so names and counts stay those of the base
        base._parameters.update(weight=None, bias=None)  # held once: who shards or moves the weight moves all of it
        self.rank, self.scale, self.dropout = rank, scale, dropout
        self.active = True
        device = self.weight.device if self.quantized is None else self.quantized.device
        self.lora_A = nn.Parameter(torch.zeros(rank, base.in_features, dtype=torch.float32, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, dtype=torch.float32, device=device))
        self.train(base.training)

    def forward(self, input: Tensor) -> Tensor:
        if not self.active:
            return self._base(input)
        drops = self.training and self.dropout > 0
        if drops or torch.is_autocast_enabled(device_type(input.device)):
            changed = functional.dropout(input, self.dropout, self.training)
            return self._base(input) + self._update(changed)
        inputs = (input, self.weight, self.bias, self.lora_A, self.lora_B, self.scale, self.quantized)
        out: Tensor = _LoraProduct.apply(*inputs)  # type: ignore[no-untyped-call]
        return out

    def _base(self, x: Tensor) -> Tensor:
        if self.quantized is not None:
            return quantized_linear(x, self.quantized, self.bias)
        return functional.linear(x, self.weight, self.bias)

    def _update(self, x: Tensor) -> Tensor:
        """The plain way to the update; also the reference of the fused one."""
        return functional.linear(functional.linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype)) * self.scale


class _LoraProduct(torch.autograd.Function):
    """y = W x + b + s B A x, keeping only x and A x for the backward, and adding in place.

    `quantized`, if it is not None, is asked for W in each direction.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        quantized: QuantizedWeight | None,
    ) -> Tensor:
        x_TI = x.reshape(-1, x.shape[-1])
        low_TR = functional.linear(x_TI, a.to(x.dtype))
        y_TO = functional.linear(x_TI, _numbers(weight, quantized, x.dtype), bias)
        y_TO.addmm_(low_TR, b.to(x.dtype).t(), alpha=scale)
        ctx.save_for_backward(x_TI, low_TR, weight, a, b)
        ctx.scale, ctx.shape, ctx.quantized = scale, x.shape, quantized
        return y_TO.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_TI, low_TR, weight, a, b = ctx.saved_tensors
        grad_TO = grad.reshape(-1, grad.shape[-1])
        grad_low_TR = torch.mm(grad_TO, b.to(grad.dtype)).mul_(ctx.scale)
        grad_b = torch.mm(grad_TO.t(), low_TR).to(b.dtype).mul_(ctx.scale)
        grad_a = torch.mm(grad_low_TR.t(), x_TI).to(a.dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            weight_OI = _numbers(weight, ctx.quantized, grad.dtype)
            grad_x = torch.mm(grad_TO, weight_OI).addmm_(grad_low_TR, a.to(grad.dtype)).view(ctx.shape)
        return grad_x, None, None, grad_a, grad_b, None, None


def _numbers(weight: Tensor | None, quantized: QuantizedWeight | None, dtype: torch.dtype) -> Tensor:
    if quantized is not None:
        return quantized.dequantized(dtype)
    assert weight is not None
    return weight


@dataclass(frozen=True)
class _Lora:
    """The adapter kind `lora`."""

    def inject(self, model: PreTrainedModel, spec: AdapterSpec, *, seed: int) -> None:
        paths = choose_targets(model, spec.targets, spec.layers)
        plan = Plan(dict.fromkeys(paths, spec.rank), dict.fromkeys(paths, spec.alpha / spec.rank), spec.dropout)
        mark_injected(model, self)
        _replace(model, plan)
        for path, layer in lora_layers(model).items():
            generator = torch.Generator().manual_seed(derived_seed(seed, "lora", path))
            bound = 1 / math.sqrt(layer.in_features)  # Kaiming uniform with a = sqrt(5), as PEFT does
            values = torch.empty(layer.lora_A.shape).uniform_(-bound, bound, generator=generator)
            layer.lora_A.data.copy_(values)

    def trainable(self, model: PreTrainedModel) -> dict[str, nn.Parameter]:
        layers = lora_layers(model)
        if not layers:
            raise BadInput("the model carries no LoRA adapter", fix="inject or load one first")
        return {
            f"{path}.{part}": getattr(layer, part) for path, layer in layers.items() for part in ("lora_A", "lora_B")
        }

    def save(
        self,
        model: PreTrainedModel,
        folder: Path,
        spec: AdapterSpec,
        provenance: Provenance | None,
        *,
        template_key: str | None = None,
    ) -> None:
        tensors = {name: weight.detach() for name, weight in self.trainable(model).items()}
        with adapter_folder(folder) as draft:
            write_peft(draft, model, tensors, spec, provenance, template_key)

    def load(self, model: PreTrainedModel, folder: Path) -> None:
        plan, tensors = read_peft(folder, model)
        mark_injected(model, self)
        _replace(model, plan)
        _fill(model, tensors)

    def remove(self, model: PreTrainedModel) -> None:
        for path, layer in lora_layers(model).items():
            base = layer.base[0].train(layer.training)
            base.weight, base.bias = layer.weight, layer.bias
            model.set_submodule(path, base)
        mark_removed(model)

    def switch(self, model: PreTrainedModel, on: bool) -> None:
        for layer in lora_layers(model).values():
            layer.active = on


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """Return the LoRA layers of a model by module path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LoraLinear)}


def _replace(model: PreTrainedModel, plan: Plan) -> None:
    for path, rank in plan.ranks.items():
        base = model.get_submodule(path)
        assert isinstance(base, nn.Linear)
        model.set_submodule(path, LoraLinear(base, rank, plan.scales[path], plan.dropout))


def _fill(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    applied = 0
    for path, layer in lora_layers(model).items():
        for part in ("lora_A", "lora_B"):
            getattr(layer, part).data.copy_(tensors[f"{path}.{part}"])
            applied += 1
    if applied != len(tensors):
        raise AssertionError(f"{applied} of {len(tensors)} adapter tensors were applied")


LORA = ADAPTERS.register("lora")(_Lora())
