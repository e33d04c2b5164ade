"""Tensors on disk as slices along their first axis, so that any number of processes can read what others wrote.

A file is safetensors; its header's metadata names, for each slice, the whole shape and the first row. A tensor without
an entry is whole. Which processes there are, and when they write, is not known here.

    write_slices(folder / "training-000.safetensors", tensors); whole = read_whole(folder)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from luthier.ground.errors import BadInput

PATTERN = "training*.safetensors"
_SLICES = "slices"


@dataclass(frozen=True)
class _Slice:
    """Rows `start` to `stop` of a tensor of shape `shape`, as `name` in `file`; a tensor of no axis has none."""

    file: Path
    name: str
    shape: tuple[int, ...]
    start: int
    stop: int


def write_slices(path: Path, tensors: Mapping[str, Tensor], *, with_whole: bool = True) -> None:
    """Write this process's slices of distributed tensors and, if so wanted, all whole tensors."""
    table: dict[str, dict[str, object]] = {}
    content: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            local, start = local_part(tensor)
            if local.numel():
                content[name] = local.detach().contiguous()
                table[name] = {"shape": list(tensor.shape), "start": start}
        elif with_whole:
            content[name] = tensor.detach().contiguous()
    save_file(content, path, metadata={_SLICES: json.dumps(table)})


def read_whole(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of a checkpoint's folder, whole."""
    index = _index(folder)
    return {name: _rows(slices, 0, None) for name, slices in index.items()}


def read_like(folder: Path, trainable: Mapping[str, nn.Parameter], twins: Path) -> dict[str, Tensor]:
    """Return every tensor; those of a sharded weight's shape as this process's shard of it, nothing more being read.

    Args:
        twins: the folder that holds, by their plain names, those weights that are not written a second time.
    """
    index = _index(folder)
    index |= {
        f"weight/{name}": [piece]
        for name, piece in _pieces(twins)
        if name in trainable and f"weight/{name}" not in index
    }
    tensors: dict[str, Tensor] = {}
    for name, slices in index.items():
        weight = trainable.get(name.partition("/")[2])
        if isinstance(weight, DTensor) and slices[0].shape == tuple(weight.shape):
            tensors[name] = _shard_like(slices, weight)
        else:
            tensors[name] = _rows(slices, 0, None)
    return tensors


def local_part(tensor: DTensor) -> tuple[Tensor, int]:
    """Return this process's rows of a tensor that is sharded along its first axis, and which row is the first."""
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tensor.to_local(), offset[0]


def _shard_like(slices: list[_Slice], weight: DTensor) -> Tensor:
    local, start = local_part(weight)
    stop = start + len(local)
    part = _rows(slices, start, stop) if len(local) else torch.empty_like(local)
    sharded: Tensor = DTensor.from_local(
        part.to(weight.device), weight.device_mesh, weight.placements, shape=weight.shape, stride=weight.stride()
    )
    return sharded


def _rows(slices: list[_Slice], start: int, stop: int | None) -> Tensor:
    """Return rows `start` to `stop` (None: all there are), put together from whatever slices hold them."""
    shape = slices[0].shape
    if not shape:
        with safe_open(slices[0].file, framework="pt") as content:
            return content.get_tensor(slices[0].name)  # type: ignore[no-any-return]  # safetensors is untyped
    end = shape[0] if stop is None else stop
    parts: list[Tensor] = []
    at = start
    for piece in slices:
        if piece.start <= at < piece.stop or (not end and not parts):
            with safe_open(piece.file, framework="pt") as content:
                parts.append(content.get_slice(piece.name)[at - piece.start : min(end, piece.stop) - piece.start])
            at = min(end, piece.stop)
    if at < end:
        raise BadInput(f'rows {at} to {end} of "{slices[0].name}" are missing', where=str(slices[0].file.parent))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _index(folder: Path) -> dict[str, list[_Slice]]:
    """Return where the slices of each tensor lie, in the order of their rows."""
    index: dict[str, list[_Slice]] = {}
    for name, piece in _pieces(folder, PATTERN):
        index.setdefault(name, []).append(piece)
    return {name: sorted(pieces, key=lambda piece: piece.start) for name, pieces in index.items()}


def _pieces(folder: Path, pattern: str = "*.safetensors") -> Iterator[tuple[str, _Slice]]:
    files = sorted(folder.glob(pattern))
    if not files:
        raise BadInput(
            "this process does not see the checkpoint's tensors",
            where=str(folder),
            fix="put the run directory on a file system that all nodes share",
        )
    for file in files:
        with safe_open(file, framework="pt") as content:
            table = json.loads((content.metadata() or {}).get(_SLICES, "{}"))
            for name in content.keys():  # noqa: SIM118  # not a dict
                own = tuple(content.get_slice(name).get_shape())
                entry = table.get(name, {"shape": own, "start": 0})
                start = int(entry["start"])
                yield name, _Slice(file, name, tuple(entry["shape"]), start, start + (own[0] if own else 0))
