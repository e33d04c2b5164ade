"""Quantise while loading: each weight is rounded as it is read, so the whole model is never in memory unquantised.

transformers reads tensor by tensor into a model without memory and hands those that a quantiser wants to it; this is
that quantiser. The result is bit for bit what `quantize_model` makes of the loaded model, which carries no mark of it.
Other weights stay as they were read.

    how = RoundToNearest("nf4", torch.bfloat16, folder)
    AutoModelForCausalLM.from_pretrained(folder, quantization_config=how)
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from luthier.models.own_memory import let_go, mapped_ranges
from luthier.models.quantized import QuantizedKind, QuantizedLinear, QuantizedWeight, quantizable_paths

_METHOD = "luthier_round_to_nearest"


@register_quantization_config(_METHOD)
class RoundToNearest(QuantizationConfigMixin):  # type: ignore[misc]  # transformers is not typed here
    """What `from_pretrained` is given: the kind, the precision that weights have before they are rounded, the files."""

    def __init__(self, kind: QuantizedKind, dtype: torch.dtype, folder: Path) -> None:
        self.quant_method = _METHOD
        self.kind, self.dtype, self.folder = kind, dtype, folder

    @cached_property
    def mapped(self) -> list[tuple[int, int]]:
        """Where the files lie in memory, once they are open."""
        return mapped_ranges(self.folder)


@register_quantizer(_METHOD)
class _Quantizer(HfQuantizer):  # type: ignore[misc]
    """Which weights are wanted, and what is left behind."""

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_: Any) -> PreTrainedModel:
        self._wanted = {f"{path}.weight" for path in quantizable_paths(model)}
        return model

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **_: Any) -> bool:  # noqa: ARG002
        return param_name in self._wanted

    def get_quantize_ops(self) -> ConversionOps:
        return _Round(self.quantization_config)

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> PreTrainedModel:
        self.remove_quantization_config(model)
        model.config._is_quantized = False
        return model

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return True


class _Round(ConversionOps):  # type: ignore[misc]
    def __init__(self, how: RoundToNearest) -> None:
        self._how = how

    def convert(
        self,
        input_dict: dict[str, Tensor | list[Tensor]],
        model: PreTrainedModel,
        full_layer_name: str,
        missing_keys: set[str],
        **_: Any,
    ) -> dict[str, Tensor]:
        """Put a quantised layer in the place of the one whose weight was read; nothing is left to be set."""
        [value] = input_dict.values()
        weight_OI = value[0] if isinstance(value, list) else value
        path = full_layer_name.removesuffix(".weight")
        linear = model.get_submodule(path)
        assert isinstance(linear, nn.Linear)
        if weight_OI.shape != linear.weight.shape:
            raise ValueError(f"{full_layer_name} is {list(weight_OI.shape)} and not {list(linear.weight.shape)}")
        layer = QuantizedLinear(QuantizedWeight.of(weight_OI, self._how.kind, self._how.dtype), linear.bias)
        let_go(weight_OI, self._how.mapped)
        for module in (layer, layer.quantized):
            vars(module)["_is_hf_initialized"] = True  # otherwise transformers would give it random numbers
        model.set_submodule(path, layer)
        missing_keys.discard(full_layer_name)
        return {}
