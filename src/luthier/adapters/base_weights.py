"""The way back to a base model's weights: its folder, if they lie there bit for bit, otherwise a copy in memory.

A model that was loaded from safetensors need not be held twice while its weights are trained. Whether the folder gives
the very same values is looked at once, weight by weight; and when they are read again, the files must be those of then.

    base = BaseWeights.of(model, folder); ...; base.put_into(model)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from luthier.ground.errors import BadInput
from luthier.models.own_memory import let_go, mapped_ranges

Stamp = tuple[int, int]  # size in bytes, time of the last change in ns


@dataclass
class BaseWeights:
    """Either files with the stamps that they had, or copies by name.

    An embedding may have other last rows than its file (new tokens): these rows alone are then copies.
    """

    files: dict[Path, Stamp] = field(default_factory=dict)
    copies: dict[str, Tensor] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)  # rows of weights that have other rows than their files
    grown: dict[str, Tensor] = field(default_factory=dict)  # name -> rows that the files do not hold

    @classmethod
    def of(cls, model: nn.Module, folder: Path | None) -> BaseWeights:
        """Return the way back to the weights that `model` has now."""
        weights = dict(model.named_parameters())
        if any(weight.is_meta for weight in weights.values()):  # a plan: nothing has to be given back
            return cls()
        files = sorted(folder.glob("*.safetensors")) if folder else []
        if files and (rows := _hold(files, weights)) is not None:
            grown = {name: weights[name][count:].detach().clone() for name, count in rows.items()}
            sizes = {name: len(weights[name]) for name in rows}
            return cls(files={file: _stamp(file) for file in files}, sizes=sizes, grown=grown)
        return cls(copies={name: weight.detach().clone() for name, weight in weights.items()})

    def as_stored(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights in the precision in which the files hold them; nothing if they lie in no file."""
        for name, value in _read(list(self.files)):
            yield name, self._fitted(name, value)

    def put_into(self, model: nn.Module) -> None:
        """Give the weights back to `model`, bit for bit.

        Raises:
            BadInput: the base's files were changed or removed meanwhile.
        """
        weights = dict(model.named_parameters())
        for file, stamp in self.files.items():
            if not file.is_file() or _stamp(file) != stamp:
                raise BadInput(
                    "the base model's file was changed while it was in use", where=str(file), fix="run again"
                )
        with torch.no_grad():
            for name, value in self.copies.items() if self.copies else self.as_stored():
                if name in weights:
                    weights[name].copy_(value)

    def _fitted(self, name: str, value: Tensor) -> Tensor:
        """Return what a file holds with the rows that it lacks."""
        if name not in self.sizes:
            return value
        return torch.cat([value[: self.sizes[name]], self.grown[name].to(value.device, value.dtype)])


def _hold(files: list[Path], weights: dict[str, nn.Parameter]) -> dict[str, int] | None:
    """Return None unless each weight lies in exactly one of `files` with the very values that it has in the model.

    Otherwise: the weights that have other rows than their file, and how many rows they share with it.
    """
    found: set[str] = set()
    shared: dict[str, int] = {}
    try:
        for name, value in _read(files):
            weight = weights.get(name)
            if weight is None:
                continue
            if name in found or value.shape[1:] != weight.shape[1:]:
                return None
            rows = min(len(value), len(weight)) if value.ndim else 0
            if value.shape != weight.shape:
                shared[name] = rows
            same, own = (value, weight) if value.shape == weight.shape else (value[:rows], weight[:rows])
            if not torch.equal(same.to(weight.device, weight.dtype), own.detach()):
                return None
            found.add(name)
    except (SafetensorError, OSError):
        return None
    return shared if found == weights.keys() else None


def _read(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    for file in files:
        ranges: list[tuple[int, int]] = []
        with safe_open(file, framework="pt") as content:
            for name in content.keys():  # noqa: SIM118
                value = content.get_tensor(name)
                ranges = ranges or mapped_ranges(file.parent)
                yield name, value
                let_go(value, ranges)


def _stamp(file: Path) -> Stamp:
    facts = file.stat()
    return facts.st_size, facts.st_mtime_ns
