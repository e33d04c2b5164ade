"""Native causal attention over segments, for bfloat16 on processors with AVX512-BF16: forward, backward, and autograd.

No score outlives its block of queries: the forward keeps one float per token and head (Dao 2022). The plain version is
`luthier.models.attention.plain_attention`; whether this one can serve is `serves`.

Shapes: T tokens, Q query rows (all tokens or some), H query heads, K key-value heads, D head size. Queries, keys,
values and outputs are rows [·, heads · D] and may lie in wider buffers.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from luthier.models.kernels.build import has_native_attention, library
from luthier.models.planned import device_type, note_work
from luthier.models.segments import Segments, UnitTable, unit_table

_BACKWARD = 2.5  # products of the backward over those of the forward: five against two (Dao 2023)


@dataclass(frozen=True)
class Heads:
    """How attention is laid out: heads, scale of the scores, window (0: none) and soft cap (0: none)."""

    heads: int
    kv_heads: int
    size: int
    scale: float
    window: int = 0
    cap: float = 0.0


def serves(dtype: torch.dtype, device: torch.device, size: int) -> bool:
    """Whether the native attention can be used."""
    return dtype == torch.bfloat16 and device_type(device) == "cpu" and size % 16 == 0 and has_native_attention()


def attend(q_QS: Tensor, k_TS: Tensor, v_TS: Tensor, heads: Heads, table: UnitTable, out_QS: Tensor) -> Tensor:
    """Write the attention output of each query row to `out_QS`; return the log of each softmax sum, [Q, H] float32."""
    lse_QH = torch.empty(len(q_QS), heads.heads, device=q_QS.device)
    if q_QS.is_meta:
        note_work(_forward_flops(heads, table))
        return lse_QH
    native = _library()
    native.luthier_attention(
        ctypes.byref(_call(q_QS, k_TS, v_TS, heads, table)), len(table.units), out_QS.data_ptr(), out_QS.stride(0),
        lse_QH.data_ptr(),
    )  # fmt: skip
    return lse_QH


def attend_back(
    grad_QS: Tensor,
    out_QS: Tensor,
    lse_QH: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor],
    heads: Heads,
    table: UnitTable,
    gradients: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Write the gradients of queries, keys and values (`inputs`) to `gradients`."""
    if out_QS.is_meta:
        note_work(_BACKWARD * _forward_flops(heads, table))
        return
    q, k, v = gradients
    back = _Back(
        out_QS.data_ptr(), grad_QS.data_ptr(), out_QS.stride(0), grad_QS.stride(0), lse_QH.data_ptr(),
        q.data_ptr(), k.data_ptr(), v.data_ptr(), q.stride(0), k.stride(0), v.stride(0),
    )  # fmt: skip
    call = _call(*inputs, heads, table)
    _library().luthier_attention_back(
        ctypes.byref(call), ctypes.byref(back), table.groups.data_ptr(), len(table.groups)
    )


def varlen_attention(query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, segments: Segments, heads: Heads) -> Tensor:
    """Return the attention output [T, H, D], with its gradient."""
    out: Tensor = _Varlen.apply(query_THD, key_TKD, value_TKD, segments, heads)  # type: ignore[no-untyped-call]
    return out


class _Varlen(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, segments: Segments, heads: Heads
    ) -> Tensor:
        flat = [x.reshape(len(x), -1) for x in (query_THD, key_TKD, value_TKD)]
        out_TS = torch.empty_like(flat[0])
        lse_TH = attend(flat[0], flat[1], flat[2], heads, unit_table(segments), out_TS)
        ctx.save_for_backward(*flat, out_TS, lse_TH)
        ctx.segments, ctx.heads = segments, heads
        return out_TS.view(query_THD.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THD: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out_TS, lse_TH = ctx.saved_tensors
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        grad_TS = grad_THD.reshape(len(q), -1).to(q.dtype)
        attend_back(grad_TS, out_TS, lse_TH, (q, k, v), ctx.heads, unit_table(ctx.segments), (dq, dk, dv))
        heads: Heads = ctx.heads
        kv = (len(k), heads.kv_heads, heads.size)
        return dq.view(grad_THD.shape), dk.view(kv), dv.view(kv), None, None


def _forward_flops(heads: Heads, table: UnitTable) -> float:
    """Return the operations of scores and their sum over values, for the keys that each query sees."""
    seen = table.places + 1
    if heads.window:
        seen = seen.clamp(max=heads.window)
    return 4.0 * float(seen.sum()) * heads.heads * heads.size


class _Call(ctypes.Structure):
    _fields_ = (
        ("q", ctypes.c_void_p), ("k", ctypes.c_void_p), ("v", ctypes.c_void_p),
        ("q_stride", ctypes.c_int64), ("k_stride", ctypes.c_int64), ("v_stride", ctypes.c_int64),
        ("heads", ctypes.c_int64), ("kv_heads", ctypes.c_int64), ("size", ctypes.c_int64),
        ("scale", ctypes.c_float), ("cap", ctypes.c_float), ("window", ctypes.c_int64),
        ("units", ctypes.c_void_p), ("ranges", ctypes.c_void_p), ("places", ctypes.c_void_p),
    )  # fmt: skip


class _Back(ctypes.Structure):
    _fields_ = (
        ("out", ctypes.c_void_p), ("grad", ctypes.c_void_p), ("out_stride", ctypes.c_int64),
        ("grad_stride", ctypes.c_int64), ("lse", ctypes.c_void_p), ("dq", ctypes.c_void_p), ("dk", ctypes.c_void_p),
        ("dv", ctypes.c_void_p), ("dq_stride", ctypes.c_int64), ("dk_stride", ctypes.c_int64),
        ("dv_stride", ctypes.c_int64),
    )  # fmt: skip


def _call(q: Tensor, k: Tensor, v: Tensor, heads: Heads, table: UnitTable) -> _Call:
    for x, count in ((q, heads.heads), (k, heads.kv_heads), (v, heads.kv_heads)):
        fits = x.ndim == 2 and x.stride(1) == 1 and x.stride(0) % 2 == 0 and x.shape[1] == count * heads.size
        if x.dtype != torch.bfloat16 or not fits:
            raise ValueError(
                f"the attention kernels take rows of bfloat16, not {x.dtype} {tuple(x.shape)} {x.stride()}"
            )
    return _Call(
        q.data_ptr(), k.data_ptr(), v.data_ptr(), q.stride(0), k.stride(0), v.stride(0),
        heads.heads, heads.kv_heads, heads.size, heads.scale, heads.cap, heads.window,
        table.units.data_ptr(), table.ranges.data_ptr(), table.places.data_ptr(),
    )  # fmt: skip


def _library() -> Any:
    native = library()
    if native is None:
        raise RuntimeError("the native kernels are not there; ask `serves` first")
    if native.luthier_attention.restype is not None:
        native.luthier_attention.argtypes = (
            ctypes.POINTER(_Call), ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p,
        )  # fmt: skip
        native.luthier_attention_back.argtypes = (
            ctypes.POINTER(_Call), ctypes.POINTER(_Back), ctypes.c_void_p, ctypes.c_int64,
        )  # fmt: skip
        native.luthier_attention.restype = native.luthier_attention_back.restype = None
    return native
