"""Weights out of the file's pages into memory of their own, one after another, in the wanted precision.

safetensors hands out tensors that lie in the mapped file. Whoever holds one of them holds the whole file in memory, and
a model that is converted as a whole is there twice. Here each weight is copied and its pages are let go at once, so
that loading needs the model and one weight. Only Linux tells where a file is mapped; elsewhere weights are converted.

    take_over(model, torch.bfloat16, folder)
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import torch
from torch import Tensor, nn

_MAPS = Path("/proc/self/maps")
_DONT_NEED = 4  # MADV_DONTNEED of Linux


def take_over(model: nn.Module, dtype: torch.dtype, folder: Path) -> None:
    """Give each floating-point weight memory of its own in `dtype`; weights stay tied."""
    ranges = mapped_ranges(folder)
    for weight in model.parameters():
        data = weight.data
        wanted = dtype if data.is_floating_point() else data.dtype
        if _is_mapped(data, ranges) or data.dtype != wanted:
            weight.data = torch.empty(data.shape, dtype=wanted, device=data.device).copy_(data)
        let_go(data, ranges)
    for buffer in model.buffers():  # such as BART's bias of the logits; a single one would hold the file
        if _is_mapped(buffer, ranges):
            buffer.data = buffer.detach().clone()


def mapped_ranges(folder: Path) -> list[tuple[int, int]]:
    """Return where files of `folder` are mapped into this process."""
    if not _MAPS.is_file():
        return []
    homes = {
        folder.resolve(),
        *(file.resolve().parent for file in folder.glob("*.safetensors")),
    }  # links lead elsewhere
    found = []
    for line in _MAPS.read_text(errors="replace").splitlines():
        parts = line.split(maxsplit=5)
        if len(parts) == 6 and Path(parts[5]).parent in homes:
            start, _, end = parts[0].partition("-")
            found.append((int(start, 16), int(end, 16)))
    return found


def let_go(data: Tensor, ranges: list[tuple[int, int]]) -> None:
    """Drop the pages that lie wholly in a tensor, if it lies in a mapped file: they would be read from there again."""
    if not _is_mapped(data, ranges):
        return
    start = -(-data.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (data.data_ptr() + data.numel() * data.itemsize) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > start:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONT_NEED)


def _is_mapped(data: Tensor, ranges: list[tuple[int, int]]) -> bool:
    return data.numel() > 0 and any(start <= data.data_ptr() < end for start, end in ranges)
