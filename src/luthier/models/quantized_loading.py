"""Quantise while loading: each weight is rounded as it is read, so the whole model is never in memory unquantised.

transformers reads tensor by tensor into a model without memory and hands those that a quantiser wants to it; this is
that quantiser. The result is bit for bit what `quantize_model` makes of the loaded model, which carries no mark of it.

    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, quantization_config=RoundToNearest("nf4"))
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from luthier.models.quantized import QuantizedKind, QuantizedLinear, QuantizedWeight, quantizable_paths

_METHOD = "luthier_round_to_nearest"


@register_quantization_config(_METHOD)
class RoundToNearest(QuantizationConfigMixin):  # type: ignore[misc]  # transformers is not typed here
    """What `from_pretrained` is given."""

    def __init__(self, kind: QuantizedKind) -> None:
        self.quant_method = _METHOD
        self.kind = kind


@register_quantizer(_METHOD)
class _Quantizer(HfQuantizer):  # type: ignore[misc]
    """Which weights are wanted, and what is left behind."""

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_: Any) -> PreTrainedModel:
        self._wanted = {f"{path}.weight" for path in quantizable_paths(model)}
        return model

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **_: Any) -> bool:  # noqa: ARG002
        return param_name in self._wanted

    def get_quantize_ops(self) -> ConversionOps:
        return _Round(self.quantization_config.kind)

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
    def __init__(self, kind: QuantizedKind) -> None:
        self._kind = kind

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
        layer = QuantizedLinear(QuantizedWeight.of(weight_OI, self._kind), linear.bias)
        for module in (layer, layer.quantized):
            vars(module)["_is_hf_initialized"] = True  # otherwise transformers would give it random numbers
        model.set_submodule(path, layer)
        missing_keys.discard(full_layer_name)
        return {}
