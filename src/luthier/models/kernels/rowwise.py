"""Row-wise kernels of a transformer block: normalisation, rotary positions, gated activations, softmax loss.

Every function takes float32 or bfloat16 rows that may lie in wider buffers (views of columns), computes in float32 and
rounds once; where the native kernels cannot serve, `luthier.models.kernels.plain` does. None of them is seen by
autograd: they are the parts from which forwards and backwards are written out.

Shapes: R rows (of tokens, or [T, H] of heads), W columns of a row, T tokens, F = 2 M columns of gate and up.

    scale_R = rms_norm(x_RW, weight_W, 1e-5, out_RW)
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_float, c_int, c_int64, c_void_p
from functools import lru_cache

import torch
from torch import Tensor

from luthier.models.kernels import plain
from luthier.models.kernels.build import functions
from luthier.models.planned import device_type, note_work

ACTIVATIONS = ("silu", "gelu_tanh")
_WEIGHT_BLOCKS = 16  # partial sums of a norm's weight gradient: fixed, so that threads do not change the result

_P, _N, _I, _F = c_void_p, c_int64, c_int, c_float
_SIGNATURES = {
    "luthier_rms_norm": (_I, _P, _N, _P, _P, _N, _P, _N, _N, _N, _F),
    "luthier_rms_norm_back": (_I, _P, _N, _P, _N, _P, _P, _P, _N, _P, _N, _P, _N, _N, _N, _N),
    "luthier_rms_norm_weight_back": (_I, _P, _N, _P, _N, _P, _P, _P, _N, _N, _N, _N),
    "luthier_rotate": (_I, _P, _N, _P, _P, _N, _N, _N, _N, _F),
    "luthier_gate": (_I, _I, _P, _N, _P, _N, _N, _N),
    "luthier_gate_back": (_I, _I, _P, _N, _P, _N, _N, _N),
    "luthier_softmax_loss": (_I, _P, _P, _P, _N, _N, _F, _I),
}


def rms_norm(x_RW: Tensor, weight_W: Tensor, eps: float, out_RW: Tensor) -> Tensor:
    """Write x / sqrt(mean(x²) + eps) · weight to `out_RW` (Zhang & Sennrich 2019); return the reciprocal roots.

    Args:
        x_RW: [T, W], or [T, H, W] for heads that are normalised on their own; `out_RW` may be the same memory.
        weight_W: float32.
    """
    scale_R = torch.empty(x_RW.shape[:-1], dtype=torch.float32, device=x_RW.device)
    if (call := _native("luthier_rms_norm", x_RW, out_RW)) is None:
        plain.rms_norm(x_RW, weight_W, eps, out_RW, scale_R)
        return scale_R
    rows, heads, width = _rows(x_RW)
    call(
        _is_bf16(x_RW), x_RW.data_ptr(), x_RW.stride(0), weight_W.data_ptr(), out_RW.data_ptr(), out_RW.stride(0),
        scale_R.data_ptr(), rows, heads, width, eps,
    )  # fmt: skip
    return scale_R


def rms_norm_back(
    dy_RW: Tensor,
    x_RW: Tensor,
    weight_W: Tensor,
    scale_R: Tensor,
    dx_RW: Tensor,
    add_RW: Tensor | None = None,
    again_RW: Tensor | None = None,
) -> None:
    """Write the gradient of the norm's input, plus `add_RW`, to `dx_RW`; and the norm's output to `again_RW`.

    `dx_RW` may be the same memory as `dy_RW` if nothing is written to `again_RW`.
    """
    call = _native("luthier_rms_norm_back", dy_RW, x_RW, dx_RW, add_RW, again_RW)
    if call is None:
        plain.rms_norm_back(dy_RW, x_RW, weight_W, scale_R, dx_RW, add_RW, again_RW)
        return
    rows, heads, width = _rows(x_RW)
    call(
        _is_bf16(x_RW), dy_RW.data_ptr(), dy_RW.stride(0), x_RW.data_ptr(), x_RW.stride(0), weight_W.data_ptr(),
        scale_R.data_ptr(), *_place(add_RW), dx_RW.data_ptr(), dx_RW.stride(0), *_place(again_RW), rows, heads, width,
    )  # fmt: skip


def rms_norm_weight_back(dy_RW: Tensor, x_RW: Tensor, scale_R: Tensor) -> Tensor:
    """Return the gradient [W] of the norm's weight, float32."""
    if (call := _native("luthier_rms_norm_weight_back", dy_RW, x_RW)) is None:
        return plain.rms_norm_weight_back(dy_RW, x_RW, scale_R)
    rows, heads, width = _rows(x_RW)
    gradient_W = torch.zeros(width, device=x_RW.device)
    scratch = torch.empty(_WEIGHT_BLOCKS, width, device=x_RW.device)
    call(
        _is_bf16(x_RW), dy_RW.data_ptr(), dy_RW.stride(0), x_RW.data_ptr(), x_RW.stride(0), scale_R.data_ptr(),
        gradient_W.data_ptr(), scratch.data_ptr(), _WEIGHT_BLOCKS, rows, heads, width,
    )  # fmt: skip
    return gradient_W


def rotate(x_THD: Tensor, cos_TC: Tensor, sin_TC: Tensor, sign: float = 1.0) -> None:
    """Rotate pairs (i, i + C) of each head in place (Su et al. 2021); `sign` −1 turns back: the gradient.

    Args:
        x_THD: heads, which lie next to each other in a row.
        cos_TC, sin_TC: float32, for the first C of the 2 C rotated columns.
    """
    if (call := _native("luthier_rotate", x_THD)) is None:
        plain.rotate(x_THD, cos_TC, sin_TC, sign)
        return
    tokens, heads, size = x_THD.shape
    call(
        _is_bf16(x_THD), x_THD.data_ptr(), x_THD.stride(0), cos_TC.data_ptr(), sin_TC.data_ptr(), tokens, heads, size,
        cos_TC.shape[1], sign,
    )  # fmt: skip


def gate(gu_TF: Tensor, out_TM: Tensor, activation: str) -> None:
    """Write act(gate) · up to `out_TM`; a row of `gu_TF` holds the gate and then up (Shazeer 2020)."""
    if (call := _native("luthier_gate", gu_TF, out_TM)) is None:
        plain.gate(gu_TF, out_TM, activation)
        return
    call(
        _is_bf16(gu_TF), int(activation != "silu"), gu_TF.data_ptr(), gu_TF.stride(0), out_TM.data_ptr(),
        out_TM.stride(0), len(gu_TF), out_TM.shape[1],
    )  # fmt: skip


def gate_back(gu_TF: Tensor, dm_TM: Tensor, activation: str) -> None:
    """Turn `gu_TF` into its gradient, and `dm_TM` (the gradient of the gate's output) into that output, in place."""
    if (call := _native("luthier_gate_back", gu_TF, dm_TM)) is None:
        plain.gate_back(gu_TF, dm_TM, activation)
        return
    call(
        _is_bf16(gu_TF), int(activation != "silu"), gu_TF.data_ptr(), gu_TF.stride(0), dm_TM.data_ptr(),
        dm_TM.stride(0), len(gu_TF), dm_TM.shape[1],
    )  # fmt: skip


def softmax_loss(logits_CV: Tensor, targets_C: Tensor, cap: float = 0.0, wants_gradient: bool = True) -> Tensor:
    """Return −log softmax(logits)[target] of each row, float32; the logits become their gradient if it is wanted.

    Args:
        cap: if not 0, the logits are first cap · tanh(logits / cap).
    """
    call = _native("luthier_softmax_loss", logits_CV) if logits_CV.is_contiguous() else None
    if call is None:
        return plain.softmax_loss(logits_CV, targets_C, cap, wants_gradient)
    rows, width = logits_CV.shape
    if rows and not logits_CV.is_meta and (int(targets_C.min()) < 0 or int(targets_C.max()) >= width):
        raise IndexError(f"a target lies outside of {width} logits")
    losses_C = torch.empty(rows, device=logits_CV.device)
    targets_C = targets_C.contiguous()
    call(
        _is_bf16(logits_CV), logits_CV.data_ptr(), targets_C.data_ptr(), losses_C.data_ptr(), rows, width, cap,
        int(wants_gradient),
    )  # fmt: skip
    return losses_C


def _native(name: str, *tensors: Tensor | None) -> Callable[..., None] | None:
    """Return the native function, if these tensors are what it takes: on the CPU, of one dtype, rows in order."""
    found = _functions()
    if found is None:
        return None
    dtype = tensors[0].dtype if tensors[0] is not None else None
    if dtype not in (torch.float32, torch.bfloat16):
        return None
    for tensor in tensors:
        serves = tensor is None or (tensor.dtype == dtype and device_type(tensor.device) == "cpu" and _has_rows(tensor))
        if not serves:
            return None
    if tensors[0] is None or not tensors[0].is_meta:
        return found[name]
    moved = sum(tensor.numel() * tensor.itemsize for tensor in tensors if tensor is not None)
    return lambda *_: note_work(moved_bytes=moved)


def _has_rows(tensor: Tensor) -> bool:
    inner = tensor.stride()[1:]
    return inner == ((1,) if tensor.ndim == 2 else (tensor.shape[-1], 1))


@lru_cache(maxsize=1)
def _functions() -> dict[str, Callable[..., None]] | None:
    return functions(_SIGNATURES)


def _rows(x_RW: Tensor) -> tuple[int, int, int]:
    return len(x_RW), (x_RW.shape[1] if x_RW.ndim == 3 else 1), x_RW.shape[-1]


def _is_bf16(tensor: Tensor) -> int:
    return int(tensor.dtype == torch.bfloat16)


def _place(tensor: Tensor | None) -> tuple[int | None, int]:
    return (None, 0) if tensor is None else (tensor.data_ptr(), tensor.stride(0))
