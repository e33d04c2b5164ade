"""Weights that lie in a checkpoint's adapter bit for bit are not written a second time beside it.

When every weight is trained, the saved model and the trained weights are often the same tensors (always in float32, and
in bfloat16 without masters). They are then left out of `training.safetensors` and read from the adapter instead.

    save_file(without_twins(tensors, draft / "adapter"), ...); tensors = with_twins(read, folder / "adapter")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

_WEIGHT = "weight/"
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def without_twins(tensors: Mapping[str, Tensor], adapter: Path) -> dict[str, Tensor]:
    """Return `tensors` without those `weight/NAME` that lie in `adapter` as NAME, equal in type, shape and bits."""
    left = dict(tensors)
    for name, saved in _saved(adapter):
        trained = left.get(_WEIGHT + name)
        if trained is not None and trained.dtype == saved.dtype and torch.equal(_bits(trained.cpu()), _bits(saved)):
            del left[_WEIGHT + name]
    return left


def with_twins(tensors: Mapping[str, Tensor], adapter: Path) -> dict[str, Tensor]:
    """Return `tensors` and, of the weights in `adapter`, those that `tensors` lacks."""
    whole = dict(tensors)
    for name, saved in _saved(adapter):
        whole.setdefault(_WEIGHT + name, saved)
    return whole


def _saved(adapter: Path) -> Iterator[tuple[str, Tensor]]:
    for file in sorted(adapter.glob("*.safetensors")):
        with safe_open(file, framework="pt") as content:
            for name in content.keys():  # noqa: SIM118
                yield name, content.get_tensor(name)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(_WORDS[tensor.element_size()])  # -0.0 equals 0.0, and its bits do not
