"""The plan of a run: every row once an epoch, steps cut by tokens, nothing drawn while training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import tiny_rows

from luthier.ground.spec import TrainSpec
from luthier.training.batches import PlannedStep, cut_steps, epoch_order, plan_steps, step_packs

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@given(lengths=LENGTHS, tokens=st.integers(1, 100), epochs=st.floats(0.01, 3.5), seed=st.integers(0, 5))
def test_a_plan_keeps_its_promises(lengths: list[int], tokens: int, epochs: float, seed: int) -> None:
    spec = TrainSpec(epochs=epochs, tokens_per_step=tokens, seed=seed)
    plan = plan_steps(lengths, spec)
    assert plan == plan_steps(lengths, spec), "a pure function"
    for epoch in range(int(np.ceil(epochs))):
        steps = [planned.rows for planned in plan if planned.epoch == epoch]
        rows = [row for step in steps for row in step]
        share = min(1.0, epochs - epoch)
        assert rows == epoch_order(len(lengths), seed, epoch)[: int(np.ceil(share * len(lengths)))].tolist()
        assert len(set(rows)) == len(rows)
        for step in steps[:-1]:
            assert sum(lengths[row] for row in step) >= tokens
        for step in steps:
            assert sum(lengths[row] for row in step[:-1]) < tokens, "one row fewer would not have reached it"


def test_epochs_differ_in_order_and_seeds_differ() -> None:
    orders = [epoch_order(50, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_steps_are_cut_where_the_sum_reaches_the_budget() -> None:
    assert list(cut_steps([5, 5, 5, 20, 1], [0, 1, 2, 3, 4], 10)) == [(0, 1), (2, 3), (4,)]


def test_max_steps_cuts_the_plan_short_and_never_lengthens_it() -> None:
    spec = TrainSpec(epochs=2, tokens_per_step=1)
    whole = plan_steps([1] * 4, spec)
    assert len(whole) == 8
    assert plan_steps([1] * 4, spec.model_copy(update={"max_steps": 5})) == whole[:5]
    assert plan_steps([1] * 4, spec.model_copy(update={"max_steps": 50})) == whole


def test_half_an_epoch_takes_half_the_rows() -> None:
    plan = plan_steps([1] * 10, TrainSpec(epochs=1.5, tokens_per_step=100))
    assert [(planned.epoch, len(planned.rows)) for planned in plan] == [(0, 10), (1, 5)]


@pytest.mark.parametrize("pack_tokens", [1, 13, 30, 1000])
def test_packs_hold_the_step_and_nothing_else(pack_tokens: int) -> None:
    rows = tiny_rows(12)
    planned = PlannedStep(0, (3, 1, 7, 10, 2))
    packs = step_packs(rows, planned, pack_tokens)
    assert sorted(place for pack in packs for place in pack.places) == sorted(rows[i].place for i in planned.rows)
    assert all(len(pack) <= pack_tokens or len(pack.lengths) == 1 for pack in packs)
    assert sum(pack.target_tokens for pack in packs) == sum(rows[i].target_tokens for i in planned.rows)


def test_rows_per_step_counts_rows_whatever_their_length() -> None:
    planned = plan_steps([5, 900, 1, 1, 7], TrainSpec(epochs=1, rows_per_step=2, tokens_per_step=3))
    assert [len(step.rows) for step in planned] == [2, 2, 1]


@given(lengths=LENGTHS, epochs=st.sampled_from([0.5, 1.0, 2.0]), seed=st.integers(0, 5))
def test_a_curriculum_takes_the_same_rows_of_the_first_epoch_short_ones_first(
    lengths: list[int], epochs: float, seed: int
) -> None:
    spec = TrainSpec(epochs=epochs, rows_per_step=3, seed=seed)
    plain, ordered = (plan_steps(lengths, s) for s in (spec, spec.model_copy(update={"curriculum": "length"})))
    for epoch in (0, 1):
        before, after = ([n for step in plan if step.epoch == epoch for n in step.rows] for plan in (plain, ordered))
        wanted = sorted(before, key=lambda n: lengths[n]) if epoch == 0 else before  # ties stay as they were drawn
        assert after == wanted
