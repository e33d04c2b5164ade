"""Which rows each optimizer step sees: the whole plan of a run, a pure function of lengths, spec and seed.

The plan is kept as numbers, and is made no further than `max_steps` goes. Since nothing is drawn while training, "where
the data stands" is one number, the step, and a resumed run sees the very rows that an undisturbed one sees. How a step
is cut into packs (`step_packs`) decides memory and speed only.

    >>> [planned.rows for planned in plan_steps([3, 3, 3], TrainSpec(epochs=1, tokens_per_step=6))]
    [(2, 0), (1,)]
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from luthier.ground.seeds import derived_seed
from luthier.ground.spec import TrainSpec
from luthier.rows.mixture import MixedRows, lengths_of
from luthier.rows.packing import pack_rows
from luthier.rows.types import Encoded, IntArray, Pack

Order = Callable[[int, int], IntArray]
"""Takes seed and epoch; returns the numbers of the rows that the epoch takes, in its order."""


@dataclass(frozen=True)
class PlannedStep:
    """The rows of one optimizer step, in order; `epoch` counts from 0."""

    epoch: int
    rows: tuple[int, ...]


class StepPlan(Sequence[PlannedStep]):
    """All steps of a run, held as numbers: 8 bytes for each time that a row is taken."""

    def __init__(self, steps: Iterator[PlannedStep], most: int | None, rows_of: Callable[[int], int]) -> None:
        self._rows, self._ends, self._epochs = array("q"), array("q", [0]), array("q")
        self._rows_of = rows_of
        for step in steps:
            if len(self._epochs) == most:
                break
            self._rows.extend(step.rows)
            self._ends.append(len(self._rows))
            self._epochs.append(step.epoch)

    def __len__(self) -> int:
        return len(self._epochs)

    @overload
    def __getitem__(self, number: int) -> PlannedStep: ...

    @overload
    def __getitem__(self, number: slice) -> list[PlannedStep]: ...

    def __getitem__(self, number: int | slice) -> PlannedStep | list[PlannedStep]:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        return PlannedStep(self._epochs[number], tuple(self._rows[self._ends[number] : self._ends[number + 1]]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of any list

    def tokens(self, lengths: IntArray) -> IntArray:
        """Return the tokens of each step, [S]."""
        taken = np.asarray(lengths)[np.frombuffer(self._rows, dtype=np.int64)] if len(self._rows) else np.zeros(0, int)
        return np.add.reduceat(taken, np.frombuffer(self._ends, dtype=np.int64)[:-1]) if len(self) else taken

    def begins_epoch(self, step: int) -> int:
        """Return the number of the first step of the epoch that `step` belongs to."""
        return self._epochs.index(self._epochs[step])

    def epochs_after(self, steps: int) -> float:
        """Return how many times the rows have been gone through after so many steps."""
        taken: dict[int, int] = {}
        for number in range(steps):
            epoch = self._epochs[number]
            taken[epoch] = taken.get(epoch, 0) + self._ends[number + 1] - self._ends[number]
        return sum(rows / self._rows_of(epoch) for epoch, rows in taken.items())


def plan_of(rows: Sequence[Encoded], spec: TrainSpec) -> StepPlan:
    """Return all steps of a run over `rows`, in the order that they bring along if they are a mixture."""
    return plan_steps(lengths_of(rows), spec, rows.epoch if isinstance(rows, MixedRows) else None)


def plan_steps(lengths: Sequence[int] | IntArray, spec: TrainSpec, order: Order | None = None) -> StepPlan:
    """Return all steps of a run over rows of `lengths` tokens.

    A step takes `rows_per_step` rows of its epoch, or, if that is not set, rows until their tokens reach
    `tokens_per_step`; what is left at the end of an epoch is a smaller step. A last, fractional epoch takes the first
    rows of its order. With `curriculum: length` the first epoch goes from short rows to long ones. With `max_steps` no
    more steps are made than these.

    Args:
        order: which rows an epoch takes, and in which order (default: all, shuffled).
    """
    own = order or (lambda seed, epoch: epoch_order(len(lengths), seed, epoch))
    by_rows = spec.rows_per_step is not None
    weights = np.ones(len(lengths), dtype=np.int64) if by_rows else np.asarray(lengths, dtype=np.int64)
    enough = spec.rows_per_step or spec.tokens_per_step
    sizes: dict[int, int] = {}

    def steps() -> Iterator[PlannedStep]:
        for epoch in range(math.ceil(spec.epochs)):
            rows = own(spec.seed, epoch)
            sizes[epoch] = len(rows)
            share = min(1.0, spec.epochs - epoch)
            taken = rows[: math.ceil(share * len(rows))]
            if spec.curriculum == "length" and epoch == 0:
                taken = shortest_first(taken, lengths)
            for step in cut_steps(weights, taken.tolist(), enough):
                yield PlannedStep(epoch, step)

    return StepPlan(steps(), spec.max_steps, lambda epoch: sizes[epoch])


def epoch_order(rows: int, seed: int, epoch: int) -> IntArray:
    """Return the order of `rows` rows in an epoch, each epoch's own."""
    return np.random.default_rng(derived_seed(seed, "order", epoch)).permutation(rows)


def shortest_first(order: IntArray, lengths: Sequence[int] | IntArray) -> IntArray:
    """Return the rows of an order, short ones first; rows of one length stay as the order has them."""
    return order[np.argsort(np.asarray(lengths)[order], kind="stable")]


def cut_steps(
    lengths: Sequence[int] | IntArray, order: Sequence[int], tokens_per_step: int
) -> Iterator[tuple[int, ...]]:
    """Yield runs of `order`, each of the fewest rows whose tokens reach `tokens_per_step`; the last may fall short."""
    step: list[int] = []
    tokens = 0
    for row in order:
        step.append(row)
        tokens += lengths[row]
        if tokens >= tokens_per_step:
            yield tuple(step)
            step, tokens = [], 0
    if step:
        yield tuple(step)


def step_packs(rows: Sequence[Encoded], planned: PlannedStep, pack_tokens: int, share: bool = False) -> list[Pack]:
    """Return the step's rows in packs of at most `pack_tokens` tokens; the sum over the step is the same for any cut.

    Common beginnings are computed once if `share` and it saves enough. Otherwise rows are packed longest first, since
    attention by batched products takes documents of like length together.
    """
    chosen = sorted((rows[index] for index in planned.rows), key=len, reverse=True)
    return pack_rows(chosen, pack_tokens, share)


def shortest(rows: Sequence[Encoded]) -> Encoded:
    """Return the row with the fewest tokens."""
    return rows[int(np.argmin(lengths_of(rows)))]
