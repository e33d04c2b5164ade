"""Block-wise 8-bit numbers (Dettmers et al. 2022): a block of 256 values shares one scale, and a value is one code.

The codes stand for a dynamic map: seven decades below the block's largest magnitude, with ever more codes towards the
top. A code is looked up by the upper 18 bits of the value's float32 pattern, without a search: it is the nearest one
but for values within 0.1 % of the middle between two codes.

    codes, scales = quantize(values, signed=True); dequantize(codes, scales, signed=True)
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 256
_DECADES = 7
_BITS = 18  # of the float32 pattern, that choose the code


def quantize(values_N: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Return (codes [N] uint8, scales [ceil(N / 256)] float32) of flat float32 values."""
    size = values_N.numel()
    blocks_MB = _blocks(values_N)
    scales_M = blocks_MB.abs().amax(dim=1)
    unit_MB = blocks_MB / scales_M.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    pattern_N = unit_MB.view(-1)[:size].view(torch.int32).bitwise_right_shift_(32 - _BITS)
    pattern_N.bitwise_and_((1 << _BITS) - 1)  # the shift fills up with the sign
    return _codes_of_patterns(signed, values_N.device).index_select(0, pattern_N), scales_M


def dequantize(codes_N: Tensor, scales_M: Tensor, *, signed: bool) -> Tensor:
    """Return the float32 values that `codes_N` stand for."""
    size = codes_N.numel()
    unit_N = _map(signed, codes_N.device).index_select(0, codes_N.to(torch.int32))
    return _blocks(unit_N).mul_(scales_M[:, None]).view(-1)[:size]


def dynamic_map(signed: bool) -> np.ndarray:
    """Return the 256 values of the codes, ascending, float32.

    In decade d (0.1 to 1 times 10^-d) stand 2^(6-d) midpoints of equal parts for each sign, or 2^(7-d) without a sign;
    0 and 1 complete them.
    """
    sizes = [2 ** (_DECADES - 1 - decade + (0 if signed else 1)) for decade in range(_DECADES)]
    edges = [np.linspace(0.1, 1.0, size + 1) * 10.0**-decade for decade, size in enumerate(sizes)]
    positive = np.concatenate([(edge[1:] + edge[:-1]) / 2 for edge in edges])
    values = np.concatenate([positive, -positive if signed else [], [0.0, 1.0]])
    return np.sort(values).astype(np.float32)


def _blocks(values_N: Tensor) -> Tensor:
    size = values_N.numel()
    return (pad(values_N, (0, -size % BLOCK)) if size % BLOCK else values_N).view(-1, BLOCK)


@cache
def _map(signed: bool, device: torch.device) -> Tensor:
    return torch.from_numpy(dynamic_map(signed)).to(device)


@cache
def _codes_of_patterns(signed: bool, device: torch.device) -> Tensor:
    """Return the nearest code to the middle of each range of values that share the upper bits."""
    values = dynamic_map(signed)
    patterns = (np.arange(1 << _BITS, dtype=np.uint32) << (32 - _BITS)) | (1 << (31 - _BITS))
    middle = np.nan_to_num(patterns.view(np.float32), nan=0.0, posinf=1.0, neginf=-1.0).clip(-1.0, 1.0)
    codes = np.searchsorted((values[1:] + values[:-1]) / 2, middle)
    return torch.from_numpy(codes.astype(np.uint8)).to(device)
