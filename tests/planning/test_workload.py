"""The heaviest step is one that training takes, and no other is heavier."""

from __future__ import annotations

import numpy as np
import pytest

from luthier.ground.spec import TrainSpec
from luthier.planning.workload import TRACED_PACKS, heaviest_rows, made_up, workload_of
from luthier.rows.types import Encoded
from luthier.training.batches import plan_steps, step_packs
from luthier.training.loop import PACK_TOKENS


def some_rows(seed: int, count: int = 40, longest: int = 120) -> list[Encoded]:
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        length = int(random.integers(4, longest))
        rows.append(Encoded(random.integers(3, 500, length), np.arange(length) >= length // 2, f"row {number}"))
    return rows


def brute_force(rows: list[Encoded], spec: TrainSpec) -> tuple[int, int, int]:
    """Return the largest pack of all steps, the tokens of the run, and the steps."""
    plan = plan_steps([len(row) for row in rows], spec)
    packs = [step_packs(rows, planned, spec.pack_tokens or PACK_TOKENS) for planned in plan]
    largest = max(len(pack.ids_T) for of_step in packs for pack in of_step)
    return largest, sum(len(rows[row]) for planned in plan for row in planned.rows), len(plan)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "spec",
    [
        TrainSpec(epochs=3, tokens_per_step=300),
        TrainSpec(epochs=1, rows_per_step=3),
        TrainSpec(epochs=1.5, tokens_per_step=2048),
        TrainSpec(epochs=2, rows_per_step=5, max_steps=4),
    ],
)
def test_no_step_of_the_run_has_a_larger_pack(seed: int, spec: TrainSpec) -> None:
    rows = some_rows(seed)
    load = workload_of(rows, spec)
    largest, all_tokens, steps = brute_force(rows, spec)
    assert max(len(pack.ids_T) for pack in load.heaviest) == largest
    assert (load.all_tokens, load.steps) == (all_tokens, steps)


@pytest.mark.parametrize("pack_tokens", [64, 150])
def test_small_packs_of_the_heaviest_step_are_those_that_training_cuts(pack_tokens: int) -> None:
    rows, spec = some_rows(1, longest=60), TrainSpec(epochs=2, tokens_per_step=400, pack_tokens=pack_tokens)
    load = workload_of(rows, spec)
    taken = [
        [pack.ids_T.tolist() for pack in step_packs(rows, planned, pack_tokens)]
        for planned in plan_steps([len(row) for row in rows], spec)
    ]
    assert [pack.ids_T.tolist() for pack in load.heaviest] in taken
    assert all(len(pack.ids_T) <= pack_tokens for pack in load.heaviest)
    assert load.tokens == sum(len(pack.ids_T) for pack in load.heaviest)
    most = max(sum(len(ids) for ids in packs) for packs in taken)
    assert load.tokens >= 0.8 * most


def test_the_step_is_told_by_its_rows() -> None:
    rows = [Encoded(np.arange(3, 3 + n), np.ones(n, dtype=bool), f"row {n}") for n in (10, 20, 30, 40)]
    load = workload_of(rows, TrainSpec(epochs=1, rows_per_step=4))
    assert (load.tokens, load.rows, load.longest, load.steps, load.all_tokens) == (100, 4, 40, 1, 100)


def test_common_beginnings_count_in_full_and_are_packed_once() -> None:
    same = np.arange(3, 83)
    rows = [Encoded(np.append(same, [100 + n] * 8), np.arange(88) >= 80, f"row {n}") for n in range(6)]
    spec = TrainSpec(epochs=1, rows_per_step=6)
    apart, shared = workload_of(rows, spec), workload_of(rows, spec, shares=True)
    assert apart.tokens == shared.tokens == 6 * 88
    assert sum(len(pack.ids_T) for pack in apart.heaviest) == 6 * 88
    assert sum(len(pack.ids_T) for pack in shared.heaviest) == 80 + 6 * 8


def test_the_largest_packs_are_traced_and_the_rest_is_a_factor() -> None:
    load = workload_of(some_rows(2), TrainSpec(epochs=1, tokens_per_step=1500, pack_tokens=200))
    lengths = sorted((len(pack.ids_T) for pack in load.heaviest), reverse=True)
    assert len(lengths) > TRACED_PACKS
    assert [len(pack.ids_T) for pack in load.traced] == lengths[:TRACED_PACKS]
    assert load.untraced == pytest.approx(sum(lengths) / sum(lengths[:TRACED_PACKS]))
    assert load.untraced > 1
    single = workload_of(some_rows(2), TrainSpec(epochs=1, rows_per_step=1))
    assert single.traced == single.heaviest and single.untraced == 1


def test_measured_are_the_two_steps_with_the_most_tokens() -> None:
    rows, spec = some_rows(3), TrainSpec(epochs=2, rows_per_step=3)
    steps = [sum(len(rows[row]) for row in planned.rows) for planned in plan_steps([len(row) for row in rows], spec)]
    found = [sum(len(row) for row in of_step) for of_step in heaviest_rows(rows, spec)]
    assert found == sorted(steps, reverse=True)[:2]
    assert len(heaviest_rows(rows[:1], TrainSpec(epochs=1))) == 1


@pytest.mark.parametrize(("targets", "least", "most"), [(1.0, 99, 100), (0.5, 50, 50), (0.25, 25, 25), (0.0, 1, 1)])
def test_made_up_rows_have_the_share_of_targets_that_was_asked_for(targets: float, least: int, most: int) -> None:
    load = made_up(100, 3, TrainSpec(), targets=targets)
    assert (load.tokens, load.rows, load.longest, load.steps, load.all_tokens) == (300, 3, 100, None, None)
    counted = sum(pack.target_tokens for pack in load.heaviest)
    assert 3 * least <= counted <= 3 * most
