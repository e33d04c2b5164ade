"""Splits lose nothing and leak nothing; samples of one seed lie inside each other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.ground.errors import BadInput
from luthier.rows.split import sample_rows, split_rows
from luthier.rows.types import Message, Row

SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}
TOPICS = ["saddle", "wheel", "chain", "brake", "pedal", "light", "bell", "frame", "tyre", "pump"]


def row(number: int, group: str | None = None) -> Row:
    text = f"{TOPICS[number % 10]} {number * 7919} {TOPICS[number // 10 % 10]} {number**3} {TOPICS[number * 7 % 10]}"
    return Row(str(number), f"t:{number}", (Message("user", text), Message("assistant", "a")), group=group)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.none() | st.sampled_from([f"g{i}" for i in range(12)]), max_size=60),
    seed=st.integers(0, 5),
    shares=st.sampled_from([SHARES, {"train": 1, "test": 1}, {"train": 0.5, "dev": 0.0, "test": 0.5}]),
)
def test_nothing_is_lost_and_groups_stay_whole(groups: list[str | None], seed: int, shares: dict[str, float]) -> None:
    rows = [row(i, group) for i, group in enumerate(groups)]
    parts = split_rows(rows, shares, seed)
    assert sorted(int(r.id) for part in parts.values() for r in part) == list(range(len(rows)))
    owners: dict[str, set[str]] = {}
    for name, part in parts.items():
        assert [int(r.id) for r in part] == sorted(int(r.id) for r in part)
        for r in part:
            if r.group is not None:
                owners.setdefault(r.group, set()).add(name)
    assert all(len(names) == 1 for names in owners.values())
    assert parts == split_rows(rows, shares, seed)
    clusters = len({r.group or r.id for r in rows})
    wanted = [name for name, share in shares.items() if share > 0]
    assert sum(bool(parts[name]) for name in wanted) == min(len(wanted), clusters)
    assert not parts.get("dev") or shares["dev"] > 0


def test_sizes_are_exact_without_groups() -> None:
    parts = split_rows([row(i) for i in range(200)], SHARES, seed=1)
    assert {name: len(part) for name, part in parts.items()} == {"train": 160, "dev": 20, "test": 20}
    other = split_rows([row(i) for i in range(200)], SHARES, seed=2)
    assert parts != other


def test_sizes_are_near_with_groups() -> None:
    parts = split_rows([row(i, str(i // 4)) for i in range(400)], SHARES, seed=1)
    assert {name: len(part) for name, part in parts.items()} == {"train": 320, "dev": 40, "test": 40}


def test_near_copies_stay_on_one_side() -> None:
    rows = [row(i) for i in range(60)]
    for i in range(0, 60, 3):
        rows.append(Row(f"{i}c", "t", (Message("user", row(i).input + "!"), Message("assistant", "b"))))
        rows.append(Row(f"{i}d", "t", (Message("user", row(i).input.upper()), Message("assistant", "c"))))
    parts = split_rows(rows, SHARES, seed=3)
    side = {r.id: name for name, part in parts.items() for r in part}
    assert all(side[str(i)] == side[f"{i}c"] == side[f"{i}d"] for i in range(0, 60, 3))


def test_a_split_needs_a_share() -> None:
    with pytest.raises(BadInput, match="must be positive"):
        split_rows([row(1)], {"train": 0.0}, seed=0)


@given(count=st.integers(0, 40), seed=st.integers(0, 5), small=st.integers(0, 45), large=st.integers(0, 45))
def test_samples_are_nested(count: int, seed: int, small: int, large: int) -> None:
    rows = [row(i) for i in range(count)]
    small, large = sorted((small, large))
    assert sample_rows(rows, large, seed)[:small] == sample_rows(rows, small, seed)
    assert len(sample_rows(rows, large, seed)) == min(large, count)
    assert sample_rows(rows, None, seed) == rows
