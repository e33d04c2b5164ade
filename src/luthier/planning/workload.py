"""What a plan plans for: the heaviest step of a run, and how many tokens there are in all.

The steps are those that training would take (`luthier.training.batches`), so that the heaviest is a real one. Without
rows, made-up ones of one length stand in. Nothing is predicted here.

    load = workload_of(rows, TrainSpec()); load.heaviest[0].ids_T
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luthier.ground.spec import TrainSpec
from luthier.rows.mixture import lengths_of
from luthier.rows.types import Encoded, Pack
from luthier.training.batches import PlannedStep, plan_of, step_packs
from luthier.training.loop import PACK_TOKENS

TRACED_PACKS = 2
_LOOKED_AT = 8  # steps with the most tokens, of which the one with the largest pack is taken


@dataclass(frozen=True)
class Workload:
    """The heaviest step and the whole run.

    Attributes:
        heaviest: the packs of the step that needs the most memory.
        tokens: of that step, each row counted in full.
        rows: of that step.
        longest: tokens of its longest row.
        steps: of the run; None if it is not known.
        all_tokens: of the run.
    """

    heaviest: tuple[Pack, ...]
    tokens: int
    rows: int
    longest: int
    steps: int | None = None
    all_tokens: int | None = None

    @property
    def traced(self) -> tuple[Pack, ...]:
        """The packs that are traced: more of them in a step need time, and no more memory."""
        return tuple(sorted(self.heaviest, key=len, reverse=True)[:TRACED_PACKS])

    @property
    def untraced(self) -> float:
        """How many times the work of the traced packs the whole step is."""
        return sum(map(len, self.heaviest)) / sum(map(len, self.traced))


def workload_of(rows: Sequence[Encoded], spec: TrainSpec, *, shares: bool = False) -> Workload:
    """Return the heaviest step of a run over `rows`.

    Args:
        shares: whether common beginnings are computed once (the native kernels of the fast engine).
    """
    lengths = lengths_of(rows)
    plan = plan_of(rows, spec)
    tokens_S = plan.tokens(lengths)
    candidates = [plan[int(number)] for number in np.argsort(-tokens_S, kind="stable")[:_LOOKED_AT]]
    weigh = {step: int(lengths[list(step.rows)].sum()) for step in candidates}
    packs = {step: _packs(rows, step, spec, shares) for step in candidates}
    heaviest = max(candidates, key=lambda step: (max(map(len, packs[step])), weigh[step]))
    return Workload(
        heaviest=packs[heaviest],
        tokens=weigh[heaviest],
        rows=len(heaviest.rows),
        longest=int(max(lengths[row] for row in heaviest.rows)),
        steps=len(plan),
        all_tokens=int(tokens_S.sum()),
    )


def heaviest_rows(rows: Sequence[Encoded], spec: TrainSpec) -> list[list[Encoded]]:
    """Return the rows of the two steps with the most tokens, the heavier first."""
    plan = plan_of(rows, spec)
    heaviest = np.argsort(-plan.tokens(lengths_of(rows)), kind="stable")[:2]
    return [[rows[row] for row in plan[int(number)].rows] for number in heaviest]


def made_up(seq: int, batch: int, spec: TrainSpec, *, targets: float = 1.0, has_encoder: bool = False) -> Workload:
    """Return a step of `batch` rows of `seq` tokens, of which the last share `targets` are predicted.

    Args:
        has_encoder: the encoder reads `seq` tokens, and the decoder writes the share `targets` of as many.
    """
    random = np.random.default_rng(0)
    is_target = np.arange(seq) >= min(seq - 1, round(seq * (1 - targets)))
    if has_encoder:
        is_target = np.arange(1 + max(1, round(seq * targets))) > 0  # after the decoder's start token
    rows = [
        Encoded(
            random.integers(0, 1000, len(is_target)),
            is_target,
            f"row {number + 1}",
            encoder_S=random.integers(0, 1000, seq) if has_encoder else None,
        )
        for number in range(batch)
    ]
    packs = _packs(rows, PlannedStep(0, tuple(range(batch))), spec, share=False)
    return Workload(heaviest=packs, tokens=sum(map(len, rows)), rows=batch, longest=len(rows[0]))


def _packs(rows: Sequence[Encoded], step: PlannedStep, spec: TrainSpec, share: bool) -> tuple[Pack, ...]:
    return tuple(step_packs(rows, step, spec.pack_tokens or PACK_TOKENS, share))
