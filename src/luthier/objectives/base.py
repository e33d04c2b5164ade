"""What an objective is: how a row becomes targets, and what the loss over them is. Knows no optimizer and no schedule.

An objective returns the float32 *sum* of its loss over target tokens, and their count, never a mean: so packs,
micro-batches and processes add up exactly. Every objective passes `luthier.objectives.conformance.check_objective`.

    >>> OBJECTIVES.names()
    ['sft']
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from luthier.ground.registry import Registry
from luthier.rows.types import Encoded, Pack, Row

if TYPE_CHECKING:
    from luthier.rows.template import Renderer


class Objective(Protocol):
    """How a row becomes targets, and the loss over them."""

    name: str

    def encode(self, row: Row) -> Encoded:
        """Return the row as token ids with its target mask."""
        ...

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        """Return (sum of the loss over the pack's targets, a float32 scalar with its graph; how many they are)."""
        ...


ObjectiveMaker = Callable[["Renderer"], Objective]

OBJECTIVES: Registry[ObjectiveMaker] = Registry(
    "luthier.objectives",
    "objective",
    modules=("luthier.objectives.sft",),
    missing=lambda entry: None if callable(entry) else "it must be a class or function that takes a Renderer",
)


def make_objective(name: str, renderer: Renderer) -> Objective:
    """Return the objective registered as `name`, with `renderer` to turn rows into tokens.

    Raises:
        BadInput: no objective has this name.
    """
    return OBJECTIVES.get(name)(renderer)
