"""Sources in a mixture: how much of each an epoch takes, in cycles of their own, in an order that lengths decide."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.ground.errors import BadInput
from luthier.rows.mixture import MixedRows, Source, lengths_of, rows_key, window_order
from luthier.rows.types import Encoded


def some_rows(name: str, count: int, seed: int = 0, longest: int = 20) -> list[Encoded]:
    random = np.random.default_rng(seed)
    lengths = random.integers(2, longest, count)
    return [
        Encoded(random.integers(0, 50, n), np.arange(n) > 0, f"{name}:{i}", origin=name) for i, n in enumerate(lengths)
    ]


@given(
    rows=st.integers(1, 60), weight=st.sampled_from([0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.3]), seed=st.integers(0, 3),
    window=st.sampled_from([None, 1, 7, 100]),
)  # fmt: skip
def test_a_weight_takes_rows_in_turn(rows: int, weight: float, seed: int, window: int | None) -> None:
    """Over any ten epochs each row comes equally often, give or take once, and an epoch has its share of them."""
    mixed = MixedRows([Source("a", some_rows("a", rows), weight=weight)], window)
    seen: Counter[int] = Counter()
    for epoch in range(10):
        taken = mixed.epoch(seed, epoch)
        assert abs(len(taken) - weight * rows) < 1 + 1e-9
        assert taken.tolist() == mixed.epoch(seed, epoch).tolist(), "a pure function"
        seen.update(taken.tolist())
    counts = [seen[row] for row in range(rows)]
    assert max(counts) - min(counts) <= 1
    assert abs(sum(counts) - 10 * weight * rows) < 1 + 1e-9


def test_half_of_a_source_now_and_the_other_half_in_the_next_epoch() -> None:
    mixed = MixedRows([Source("a", some_rows("a", 11)), Source("b", some_rows("b", 8, 1), weight=0.5)])
    halves = [[row for row in mixed.epoch(0, epoch).tolist() if row >= 11] for epoch in (0, 1)]
    assert [len(half) for half in halves] == [4, 4]
    assert sorted(halves[0] + halves[1]) == list(range(11, 19))
    assert sorted(row for row in mixed.epoch(0, 0).tolist() if row < 11) == list(range(11))


@given(share=st.floats(0.02, 0.9), replay=st.integers(1, 40), seed=st.integers(0, 2), window=st.sampled_from([None, 5]))
def test_a_share_is_one_of_the_epochs_tokens(share: float, replay: int, seed: int, window: int | None) -> None:
    domain, general = some_rows("domain", 50), some_rows("general", replay, 1)
    mixed = MixedRows([Source("domain", domain), Source("general", general, share=share)], window)
    tokens = {"domain": 0, "general": 0}
    epochs = 4
    seen: Counter[int] = Counter()
    for epoch in range(epochs):
        for row in mixed.epoch(seed, epoch).tolist():
            tokens[mixed[row].origin] += len(mixed[row])
            seen[row] += 1
    wanted = share / (1 - share) * tokens["domain"]
    assert abs(tokens["general"] - wanted) <= 20, "off by at most one row"
    counts = [seen[row] for row in range(50, len(mixed))]
    assert max(counts) - min(counts) <= 1


@given(rows=st.integers(1, 200), window=st.integers(1, 50), seed=st.integers(0, 5))
def test_a_window_moves_no_row_far(rows: int, window: int, seed: int) -> None:
    order = window_order(rows, window, seed)
    assert sorted(order.tolist()) == list(range(rows))
    if window < rows:
        assert np.abs(order - np.arange(rows)).max() < window
    assert window_order(rows, window, seed).tolist() == order.tolist()


def test_sources_with_a_window_come_in_step() -> None:
    """In each tenth of the epoch both sources have about a tenth of their rows."""
    mixed = MixedRows([Source("a", some_rows("a", 300)), Source("b", some_rows("b", 100, 1))], window=10)
    order = mixed.epoch(0, 0)
    for part in np.split(order, 10):
        assert abs(int((part >= 300).sum()) - 10) <= 1


def test_only_chosen_rows_are_used() -> None:
    rows = some_rows("a", 10)
    mixed = MixedRows([Source("a", rows, chosen=np.array([2, 5, 7]))])
    assert [row.place for row in mixed] == ["a:2", "a:5", "a:7"]
    assert sorted(mixed.epoch(0, 3).tolist()) == [0, 1, 2]
    assert mixed.lengths.tolist() == [len(rows[n]) for n in (2, 5, 7)]


def test_keys_tell_what_is_different() -> None:
    a, b = some_rows("a", 5), some_rows("b", 5, 1)
    keys = {
        MixedRows([Source("a", a)]).key,
        MixedRows([Source("a", a, weight=2.0)]).key,
        MixedRows([Source("a", a)], window=3).key,
        MixedRows([Source("a", b)]).key,
        MixedRows([Source("a", a), Source("b", b, share=0.1)]).key,
        MixedRows([Source("a", a, chosen=np.array([1]))]).key,
    }
    assert len(keys) == 6
    assert rows_key(a) == rows_key(list(a)) != rows_key(a[::-1])


def test_a_sequence_as_any_other_and_empty_sources_are_refused() -> None:
    mixed = MixedRows([Source("a", some_rows("a", 3)), Source("b", some_rows("b", 2, 1))])
    assert [row.place for row in mixed[1:4]] == ["a:1", "a:2", "b:0"]
    assert mixed[-1].place == "b:1"
    with pytest.raises(IndexError):
        _ = mixed[5]
    assert lengths_of(mixed) is mixed.lengths
    with pytest.raises(BadInput, match="no rows to train on"):
        MixedRows([Source("a", [])])
