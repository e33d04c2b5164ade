"""Quantised weights back to numbers: 8-bit integers with a scale for each row, and NF4 with quantised scales.

Every number is one float32 product, level times scale, rounded once, natively as in plain PyTorch: the two give the
same bits. How codes and scales are made from weights is `luthier.models.quantized`.

Shapes: O rows of I weights; P = I / 2 bytes of a row, B = I / 64 blocks of a row, G = O B / 256 groups of blocks, each
rounded up. The output may lie in a wider buffer (a view of columns).

    int8(codes_OI, scales_O, out_OI); nf4(codes_OP, scale_codes_OB, outer_G, mean, out_OI)
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_float, c_int, c_int64, c_void_p
from functools import lru_cache

import torch
from torch import Tensor

from luthier.models.kernels.build import functions
from luthier.models.planned import device_type, note_work

NF4_BLOCK, SCALE_GROUP = 64, 256
# The quantiles of a normal distribution, made to hold 0 and to end at -1 and 1 (Dettmers et al. 2023, appendix E).
NF4_LEVELS = torch.tensor(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
)  # fmt: skip
FLOAT8 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
_PLAIN_TILE = 1 << 22  # weights that the plain way takes at once: it needs memory beside the output

_P, _N, _I = c_void_p, c_int64, c_int
_SIGNATURES = {
    "luthier_int8": (_I, _P, _P, _P, _N, _N, _N),
    "luthier_nf4": (_I, _P, _P, _P, c_float, _P, _P, _P, _N, _N, _N),
}


def int8(codes_OI: Tensor, scales_O: Tensor, out_OI: Tensor) -> Tensor:
    """Write code times scale to `out_OI` (float32 or bfloat16) and return it."""
    if out_OI.is_meta:
        return _noted(out_OI)
    if (call := _native("luthier_int8", out_OI)) is None:
        for rows in _tiles(out_OI):
            out_OI[rows].copy_(codes_OI[rows].float().mul_(scales_O[rows, None]))
    else:
        call(_is_bf16(out_OI), codes_OI.data_ptr(), scales_O.data_ptr(), *_place(out_OI))
    return out_OI


def nf4(codes_OP: Tensor, scale_codes_OB: Tensor, outer_G: Tensor, mean: Tensor, out_OI: Tensor) -> Tensor:
    """Write level times the scale of its block to `out_OI` (float32 or bfloat16) and return it."""
    if out_OI.is_meta:
        return _noted(out_OI)
    if (call := _native("luthier_nf4", out_OI)) is None:
        scales_OB = nf4_scales(scale_codes_OB, outer_G, mean)
        for rows in _tiles(out_OI):
            out_OI[rows].copy_(_scaled_levels(codes_OP[rows], scales_OB[rows], out_OI.shape[1]))
    else:
        call(
            _is_bf16(out_OI), codes_OP.data_ptr(), scale_codes_OB.data_ptr(), outer_G.data_ptr(), float(mean),
            NF4_LEVELS.data_ptr(), FLOAT8.data_ptr(), *_place(out_OI),
        )  # fmt: skip
    return out_OI


def _noted(out_OI: Tensor) -> Tensor:
    """A weight without memory: what would have been moved, whichever way the numbers are made."""
    note_work(moved_bytes=out_OI.numel() * (out_OI.itemsize + 1))
    return out_OI


def nf4_scales(scale_codes_OB: Tensor, outer_G: Tensor, mean: Tensor) -> Tensor:
    """Return the scale of each block, [O, B] float32: mean + float8(code) · outer."""
    inner_N = _looked_up(FLOAT8, scale_codes_OB)
    outer_N = outer_G.repeat_interleave(SCALE_GROUP)[: len(inner_N)]
    return (mean + inner_N * outer_N).view(scale_codes_OB.shape)


def _scaled_levels(codes_OP: Tensor, scales_OB: Tensor, width: int) -> Tensor:
    levels_OI = _looked_up(_pairs(), codes_OP).view(len(codes_OP), -1)[:, :width]
    return levels_OI * scales_OB.repeat_interleave(NF4_BLOCK, 1)[:, :width]


def _looked_up(table: Tensor, codes: Tensor) -> Tensor:
    return table.to(codes.device).index_select(0, codes.flatten().int())


@lru_cache(maxsize=1)
def _pairs() -> Tensor:
    """The two levels of each byte, [256, 2]; the first lies in the byte's lower half."""
    byte = torch.arange(256)
    return torch.stack([NF4_LEVELS[byte & 15], NF4_LEVELS[byte >> 4]], 1)


def _tiles(out_OI: Tensor) -> list[slice]:
    rows, step = len(out_OI), max(1, _PLAIN_TILE // max(1, out_OI.shape[1]))
    return [slice(first, first + step) for first in range(0, rows, step)]


def _native(name: str, out_OI: Tensor) -> Callable[..., None] | None:
    """Return the native function if it can write this tensor: on the CPU, rows in order."""
    found = _functions()
    serves = out_OI.dtype in (torch.float32, torch.bfloat16) and out_OI.stride(1) == 1
    return found[name] if found and serves and device_type(out_OI.device) == "cpu" else None


@lru_cache(maxsize=1)
def _functions() -> dict[str, Callable[..., None]] | None:
    return functions(_SIGNATURES)


def _place(out_OI: Tensor) -> tuple[int, int, int, int]:
    return out_OI.data_ptr(), out_OI.stride(0), out_OI.shape[0], out_OI.shape[1]


def _is_bf16(tensor: Tensor) -> int:
    return int(tensor.dtype == torch.bfloat16)
