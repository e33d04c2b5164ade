"""Which rows each optimizer step sees: the whole plan of a run, a pure function of lengths, spec and seed.

Since nothing is drawn while training, "where the data stands" is one number, the step, and a resumed run sees the
very rows that an undisturbed one sees. How a step is cut into packs (`step_packs`) decides memory and speed only.

    >>> [planned.rows for planned in plan_steps([3, 3, 3], TrainSpec(epochs=1, tokens_per_step=6))]
    [(2, 0), (1,)]
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from luthier.ground.seeds import derived_seed
from luthier.ground.spec import TrainSpec
from luthier.rows.packing import pack_rows
from luthier.rows.types import Encoded, IntArray, Pack


@dataclass(frozen=True)
class PlannedStep:
    """The rows of one optimizer step, in order; `epoch` counts from 0."""

    epoch: int
    rows: tuple[int, ...]


def plan_steps(lengths: Sequence[int], spec: TrainSpec) -> list[PlannedStep]:
    """Return all steps of a run over rows of `lengths` tokens.

    A step takes `rows_per_step` rows of its epoch, or, if that is not set, rows until their tokens reach
    `tokens_per_step`; what is left at the end of an epoch is a smaller step. A last, fractional epoch takes the first
    rows of its order. `max_steps` cuts the plan short.
    """
    planned: list[PlannedStep] = []
    for epoch, rows in _epochs(len(lengths), spec):
        weights, enough = (
            (lengths, spec.tokens_per_step) if spec.rows_per_step is None else ([1] * len(lengths), spec.rows_per_step)
        )
        planned.extend(PlannedStep(epoch, step) for step in cut_steps(weights, rows, enough))
    return planned[: spec.max_steps]


def epoch_order(rows: int, seed: int, epoch: int) -> IntArray:
    """Return the order of `rows` rows in an epoch, each epoch's own."""
    return np.random.default_rng(derived_seed(seed, "order", epoch)).permutation(rows)


def cut_steps(lengths: Sequence[int], order: Sequence[int], tokens_per_step: int) -> Iterator[tuple[int, ...]]:
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


def _epochs(rows: int, spec: TrainSpec) -> Iterator[tuple[int, list[int]]]:
    for epoch in range(math.ceil(spec.epochs)):
        share = min(1.0, spec.epochs - epoch)
        yield epoch, epoch_order(rows, spec.seed, epoch)[: math.ceil(share * rows)].tolist()
