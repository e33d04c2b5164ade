"""Stochastic rounding from float32 to bfloat16: up or down by chance, so that the expected value is the exact one.

Sixteen random bits are added to the float32 pattern and the lower sixteen are cut off. Rounding to nearest would lose
every update below 1/256 of its weight; this one keeps them on average. The bits are drawn from a generator that the
caller seeds, so that the same seed gives the same weights.

    round_stochastically(bfloat16_N, float32_N, torch.Generator().manual_seed(0))
"""

from __future__ import annotations

import torch
from torch import Tensor

from luthier.models.planned import note_work

PIECE = 1 << 18


def round_stochastically(into: Tensor, exact: Tensor, generator: torch.Generator) -> None:
    """Write `exact` (float32, contiguous, finite; it is spoiled) into `into` (bfloat16, same shape), rounded."""
    pattern_N = exact.view(-1).view(torch.int32)
    for start in piece_starts(pattern_N, PIECE):
        piece = pattern_N[start : start + PIECE]
        piece.add_(_sixteen_bits(piece.numel(), generator)).bitwise_and_(-65536)
    into.copy_(exact)


def piece_starts(values: Tensor, piece: int) -> range:
    """Return where the pieces begin in which a tensor is worked through; one without memory needs only the first."""
    size = values.numel()
    if values.is_meta and size > piece:
        note_work(moved_bytes=2.0 * (size - piece) * values.itemsize)
        size = piece
    return range(0, size, piece)


def _sixteen_bits(size: int, generator: torch.Generator) -> Tensor:
    """Return `size` numbers from 0 to 65535, int32: four of them are cut from each number that is drawn."""
    drawn = torch.empty(-(-size // 4), dtype=torch.int64, device=generator.device)
    drawn.random_(-(2**63), None, generator=generator)
    return drawn.view(torch.int16)[:size].to(torch.int32).bitwise_and_(0xFFFF)
