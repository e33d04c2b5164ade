"""Training one layer at a time, in turns (BAdam, Luo et al. 2024): gradients and optimizer state of one layer only.

A layer is all weights whose names share the part up to the first number (`model.layers.3`). Each round goes through all
layers in an order drawn from the seed; a turn lasts `every` steps, and the optimizer's state of a layer is dropped when
its turn ends. Weights outside layers (embeddings, last norm, head) stay as they are. It is another algorithm than
training all weights at once.

    turns = LayerTurns(trainable, every=50, seed=0); ended = turns.begin()
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from luthier.ground.errors import Refused
from luthier.ground.seeds import derived_seed

_LAYER = re.compile(r"(.*?\.\d+)\.")


class LayerTurns:
    """Whose turn it is; a pure function of the steps so far.

    Raises:
        Refused: what is trained are not the model's own weights, or they have no layers.
    """

    def __init__(self, model: nn.Module, trainable: Mapping[str, nn.Parameter], every: int, seed: int) -> None:
        own = {id(weight) for weight in model.parameters()}
        if not all(id(weight) in own for weight in trainable.values()):
            raise Refused(
                "layers cannot take turns while float32 masters of all weights are held",
                fix="set train.adapter.masters: none, or train.precision: fp32",
            )
        self._trainable = dict(trainable)
        self._every, self._seed, self._taken = every, seed, 0
        self._layers: dict[str, list[str]] = {}
        for name in trainable:
            if found := _LAYER.match(name):
                self._layers.setdefault(found.group(1), []).append(name)
        if not self._layers:
            raise Refused("this model has no numbered layers to take turns", fix="leave out train.layers_in_turn")

    def begin(self) -> list[str]:
        """Let the weights of the next step's layer have gradients; return the names of all others."""
        active = set(self.active())
        for name, weight in self._trainable.items():
            weight.requires_grad_(name in active)
        self._taken += 1
        return [name for name in self._trainable if name not in active]

    def active(self) -> list[str]:
        """Return the names of the weights that the next step trains."""
        turn = self._taken // self._every
        count = len(self._layers)
        order = np.random.default_rng(derived_seed(self._seed, "turns", turn // count)).permutation(count)
        return self._layers[list(self._layers)[order[turn % count]]]

    def take_back(self) -> None:
        """Uncount a step that was refused."""
        self._taken -= 1

    def tensors(self) -> dict[str, Tensor]:
        """Return the count of steps by name."""
        return {"turns/taken": torch.tensor(self._taken)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` returned."""
        self._taken = int(tensors["turns/taken"].item())
