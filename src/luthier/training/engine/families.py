"""Which models have the fast body, and how their decoder blocks are taken apart.

Families differ in where norms stand (Llama before each half; Gemma 2 and 3 also after; OLMo 2 only after), in norms of
queries and keys (Qwen 3, Gemma 3, OLMo 2), in fused projections (Phi-3), in factors (Granite) and in windows and soft
caps. A model that has anything else keeps transformers' own forward: `why_not` says what it was.

    if (reason := why_not(model)) is None: blocks = blocks_of(model)
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from luthier.adapters.lora import LoraLinear
from luthier.models.kernels.varlen import Heads
from luthier.models.planned import device_type
from luthier.models.quantized import QuantizedLinear
from luthier.models.shifted import least_group
from luthier.training.engine.block import Attention, Block, Mlp
from luthier.training.engine.norm import Norm
from luthier.training.engine.projection import Projection, Scratch

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text", "olmo2", "granite")
_ACTIVATIONS = {
    "SiLUActivation": "silu", "SiLU": "silu", "GELUTanh": "gelu_tanh", "PytorchGELUTanh": "gelu_tanh",
    "NewGELUActivation": "gelu_tanh",
}  # fmt: skip
_RANDOM = (
    "attention_dropout", "attn_pdrop", "attention_probs_dropout_prob", "dropout", "activation_dropout",
    "encoder_layerdrop", "decoder_layerdrop",
)  # fmt: skip


def why_not(model: PreTrainedModel) -> str | None:
    """Return why the model cannot have the fast body, or None if it can."""
    if device_type(model.device) != "cpu":
        return "the fast body is for CPUs"
    family = model.config.model_type
    if family not in FAMILIES:
        return f"the family {family} has none"
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            if module.dropout:
                return "LoRA dropout is set"
            if not module.active:
                return "the adapter is switched off"
        elif isinstance(module, nn.Linear) and type(module) not in (nn.Linear, QuantizedLinear):
            return f"{name} is a {type(module).__name__}"
    if draws_random_numbers(model):
        return "the model has dropout"
    if least_group(model) is not None:
        return "its attention is shifted"
    if (activation := _activation_of(_layers(model)[0])) not in _ACTIVATIONS:
        return f"its activation is {activation}"
    return None


def draws_random_numbers(model: nn.Module) -> bool:
    """Whether a forward of the model draws random numbers while it trains, as dropout does."""
    shares = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    shares += [module.dropout for module in model.modules() if isinstance(module, LoraLinear)]
    config = getattr(model, "config", None)
    shares += [getattr(config, key, 0) for key in _RANDOM]
    return any(share and float(share) > 0 for share in shares)


def blocks_of(model: PreTrainedModel) -> list[Block]:
    """Return the model's decoder blocks; their weights are shared with the model, in joined memory."""
    scratch = Scratch()
    return [_block(model.config, layer, scratch) for layer in _layers(model)]


def _layers(model: PreTrainedModel) -> list[Any]:
    return list(model.base_model.layers)


def _block(config: Any, layer: Any, scratch: Scratch) -> Block:
    first, second, third, fourth = _norms_of(layer)
    factor = float(getattr(layer, "residual_multiplier", 1.0))
    attention = layer.self_attn
    q_norm, k_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    return Block(
        Attention(
            _projection(attention, ("q_proj", "k_proj", "v_proj"), "qkv_proj", scratch),
            Projection([attention.o_proj], scratch),
            first,
            second,
            factor,
            heads=_heads(config, attention),
            rope=str(getattr(attention, "layer_type", None)),
            q_norm=Norm(q_norm) if q_norm is not None else None,
            k_norm=Norm(k_norm) if k_norm is not None else None,
            norms_heads=q_norm is not None and q_norm.weight.shape[0] == attention.head_dim,
        ),
        Mlp(
            _projection(layer.mlp, ("gate_proj", "up_proj"), "gate_up_proj", scratch),
            Projection([layer.mlp.down_proj], scratch),
            third,
            fourth,
            factor,
            activation=_ACTIVATIONS[_activation_of(layer)],
        ),
    )


def _norms_of(layer: Any) -> tuple[Norm | None, Norm | None, Norm | None, Norm | None]:
    """Return the norms before and after attention, before and after the MLP."""
    if hasattr(layer, "pre_feedforward_layernorm"):
        names: tuple[str | None, ...] = (
            "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
        )  # fmt: skip
    elif hasattr(layer, "post_feedforward_layernorm"):
        names = (None, "post_attention_layernorm", None, "post_feedforward_layernorm")
    else:
        names = ("input_layernorm", None, "post_attention_layernorm", None)
    first, second, third, fourth = (None if name is None else Norm(getattr(layer, name)) for name in names)
    return first, second, third, fourth


def _projection(owner: Any, names: tuple[str, ...], fused: str, scratch: Scratch) -> Projection:
    if hasattr(owner, fused):
        return Projection([getattr(owner, fused)], scratch)
    return Projection([getattr(owner, name) for name in names], scratch)


def _activation_of(layer: Any) -> str:
    """Return the name of the class of the MLP's activation."""
    return type(getattr(layer.mlp, "act_fn", None) or getattr(layer.mlp, "activation_fn", None)).__name__


def _heads(config: Any, attention: Any) -> Heads:
    window = attention.sliding_window if hasattr(attention, "sliding_window") else _window_of(config)
    return Heads(
        config.num_attention_heads,
        config.num_key_value_heads,
        attention.head_dim,
        float(attention.scaling),
        window=window or 0,
        cap=float(getattr(attention, "attn_logit_softcapping", None) or 0.0),
    )


def _window_of(config: Any) -> int | None:
    """Return the window of families that have one for all layers."""
    return getattr(config, "sliding_window", None) if config.model_type in ("mistral", "phi3") else None
