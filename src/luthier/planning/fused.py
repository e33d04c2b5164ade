"""Let tensors without memory take the fused attention that the planned device has.

torch chooses the kernel of `scaled_dot_product_attention` by the device, and for the meta device takes the plain one,
which keeps all scores. Within the block the choice is made as on a CPU (flash attention without dropout and without a
mask that learns) or on a GPU (flash attention in 16 bits without a mask, otherwise the memory-efficient one). Luthier's
own kernels are not concerned.

    with planned_for("cpu"), fused_attention(): model(ids)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from luthier.models.planned import device_type

_aten = torch.ops.aten
_HALVES = (torch.bfloat16, torch.float16)


@contextlib.contextmanager
def fused_attention() -> Iterator[None]:
    """Choose the kernel within the block as the planned device would.

    The function is exchanged for the length of the block: a mode of torch's would be off within a backward, where
    activations are computed again.
    """
    plain = functional.scaled_dot_product_attention

    def chosen(*args: Any, **kwargs: Any) -> Tensor:
        out = _fused(*args, **kwargs)
        return plain(*args, **kwargs) if out is None else out

    functional.scaled_dot_product_attention = chosen
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = plain


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,  # noqa: ARG001  # both kinds of kernels read each key head where it lies
) -> Tensor | None:
    """Return the output of the fused kernel, or None where torch would not take one."""
    device = device_type(query.device)
    learns = attn_mask is not None and attn_mask.requires_grad
    if not query.is_meta or learns or not query.shape[-1] == key.shape[-1] == value.shape[-1]:
        return None
    if device == "cpu" and not dropout_p:
        bias = _as_bias(attn_mask, query.dtype)
        out = _aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, is_causal, attn_mask=bias, scale=scale
        )
    elif device == "cuda" and attn_mask is None and query.dtype in _HALVES:
        out = _aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=scale)
    elif device == "cuda":
        bias = _as_bias(attn_mask, query.dtype)
        if bias is not None:
            bias = bias.expand(*query.shape[:3], key.shape[2])
        keeps = query.requires_grad or key.requires_grad or value.requires_grad
        out = _aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, keeps, dropout_p, is_causal, scale=scale
        )
    else:
        return None
    first: Tensor = out[0]
    return first


def _as_bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return a mask as numbers that are added, as torch makes them from one of yes and no."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.empty(mask.shape, dtype=dtype, device="meta")
