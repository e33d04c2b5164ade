"""The learning rate by step: up from zero, to the peak, and down to a share of it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from luthier.ground.spec import TrainSpec
from luthier.training.optimizers.schedule import rate_at


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_model_is_warmed_up_again_and_ends_at_a_share_of_the_peak(schedule: str) -> None:
    spec = TrainSpec(learning_rate=2.0, schedule=schedule, warmup=0.1, final_rate=0.25)  # type: ignore[arg-type]
    rates = [rate_at(step, 100, spec) for step in range(100)]
    assert rates[0] == pytest.approx(2.0 / 11)
    assert all(a < b for a, b in pairwise(rates[:11])) and rates[10] == 2.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0.5 < rates[99] < 0.53
    assert rate_at(100, 100, spec) == pytest.approx(0.5)


def test_without_a_final_rate_nothing_changes() -> None:
    spec = TrainSpec(learning_rate=1.0, schedule="linear", warmup=0)
    assert [rate_at(step, 4, spec) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
