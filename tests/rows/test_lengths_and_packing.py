"""The length policies cut only prompts, and packs keep every token in its order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.ground.errors import BadInput
from luthier.rows.lengths import fit_length
from luthier.rows.packing import one_pack, pack_rows, single_rows
from luthier.rows.types import Encoded


def encoded(prompt: int, answer: int, place: str = "t:1") -> Encoded:
    target_T = np.r_[np.zeros(prompt, bool), np.ones(answer, bool)]
    return Encoded(np.arange(100, 100 + prompt + answer), target_T, place)


def test_exactly_at_the_limit_nothing_happens() -> None:
    row = encoded(5, 3)
    for policy in ("drop", "cut_prompt", "fail"):
        assert fit_length(row, 8, policy) is row  # type: ignore[arg-type]


def test_each_policy_one_token_beyond() -> None:
    row = encoded(5, 4, "train.jsonl:7")
    assert fit_length(row, 8, "drop") is None
    cut = fit_length(row, 8, "cut_prompt")
    assert cut is not None and cut.cut == 1
    assert cut.ids_T.tolist() == [100, 102, 103, 104, 105, 106, 107, 108]
    assert cut.target_T.tolist() == [False] * 4 + [True] * 4
    with pytest.raises(BadInput, match=r"train\.jsonl:7: the row has 9 tokens where 8 are allowed"):
        fit_length(row, 8, "fail")


@given(prompt=st.integers(1, 20), answer=st.integers(0, 20), limit=st.integers(2, 30))
def test_targets_are_never_cut(prompt: int, answer: int, limit: int) -> None:
    row = encoded(prompt, answer)
    fitted = fit_length(row, limit, "cut_prompt")
    if fitted is None:
        assert len(row) > limit and (answer == 0 or answer + 1 > limit)
        return
    assert len(fitted) == min(len(row), limit) and fitted.ids_T[0] == 100
    assert fitted.ids_T[fitted.target_T].tolist() == row.ids_T[row.target_T].tolist()
    assert fitted.cut == len(row) - len(fitted)
    assert np.all(np.diff(fitted.ids_T) > 0)


rows_strategy = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), max_size=20)


@given(shape=rows_strategy, limit=st.integers(1, 30))
def test_packs_keep_all_tokens_in_order(shape: list[tuple[int, int]], limit: int) -> None:
    rows = [encoded(prompt, answer, f"t:{i}") for i, (prompt, answer) in enumerate(shape)]
    packs = pack_rows(rows, limit)
    flat = [row for pack in packs for row in zip(pack.places, pack.lengths, strict=True)]
    assert flat == [(row.place, len(row)) for row in rows]
    assert [i for pack in packs for i in pack.ids_T] == [i for row in rows for i in row.ids_T]
    assert [t for pack in packs for t in pack.target_T] == [t for row in rows for t in row.target_T]
    for pack in packs:
        assert len(pack) == sum(pack.lengths)
        assert len(pack) <= limit or len(pack.lengths) == 1
        assert pack.positions_T.tolist() == [p for length in pack.lengths for p in range(length)]
        assert not pack.target_T[np.cumsum((0, *pack.lengths[:-1]))].any()
    assert len(packs) == _fewest([len(row) for row in rows], limit)


def _fewest(lengths: list[int], limit: int) -> int:
    """Packs that are filled one after another, each as far as it goes: no cut that keeps the order has fewer."""
    packs, tokens = 0, limit
    for length in lengths:
        if tokens + length > limit or not packs:
            packs, tokens = packs + 1, 0
        tokens += length
    return packs


def test_packs_are_of_about_the_same_size() -> None:
    rows = [encoded(5, 5, f"t:{i}") for i in range(12)]  # 120 tokens
    assert [len(pack) for pack in pack_rows(rows, 100)] == [60, 60]


def _with_beginning(*beginnings: list[int], tail: list[int], number: int) -> Encoded:
    ids = np.array([token for part in beginnings for token in part] + tail)
    return Encoded(ids, np.arange(len(ids)) >= len(ids) - 2, f"t:{number}")


SYSTEM, SHOTS = list(range(100, 120)), list(range(200, 230))


def test_common_beginnings_become_a_tree() -> None:
    rows = [_with_beginning(SYSTEM, *([SHOTS] if n % 2 else []), tail=[n, 1, 2, 3, n], number=n) for n in range(6)]
    (pack,) = pack_rows(rows, 1000, share=True)
    assert pack.lengths == (20, 5, 5, 5, 30, 5, 5, 5)
    assert pack.parents == (-1, 0, 0, 0, 0, 4, 4, 4)
    assert pack.row_tokens == sum(map(len, rows)) and pack.target_tokens == 12
    assert sorted(pack.places) == ["", "", *(f"t:{n}" for n in range(6))]


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.lists(st.integers(0, 3), min_size=3, max_size=6)),
        min_size=1,
        max_size=8,
    ),
    limit=st.integers(40, 300),
)
def test_a_tree_holds_the_very_rows(rows: list[tuple[int, int, list[int]]], limit: int) -> None:
    starts = [[], list(range(10, 30)), [*range(10, 28), 9, 9]]
    encoded_rows = [_with_beginning(starts[a], starts[b], tail=tail, number=n) for n, (a, b, tail) in enumerate(rows)]
    packs = pack_rows(encoded_rows, limit, share=True)
    found = {row.places[0]: row for pack in packs for row in single_rows(pack)}
    assert len(found) == len(rows)
    for row in encoded_rows:
        again = found[row.place]
        assert again.ids_T.tolist() == row.ids_T.tolist()
        assert again.target_T.tolist() == row.target_T.tolist()
        assert again.positions_T.tolist() == list(range(len(row)))
    wanted = sorted(
        (int(row.ids_T[t - 1]), int(row.ids_T[t])) for row in encoded_rows for t in np.flatnonzero(row.target_T)
    )
    pairs = [(pack.ids_T[pack.predictors_N], pack.ids_T[pack.target_T]) for pack in packs]
    assert sorted((int(a), int(b)) for before, target in pairs for a, b in zip(before, target, strict=True)) == wanted


def test_targets_are_never_shared() -> None:
    """Two rows that are alike to the end share only what stands before the first target."""
    row = _with_beginning(SYSTEM, tail=[1, 2], number=0)
    (pack,) = pack_rows([row, row], 100, share=True)
    assert pack.lengths == (20, 2, 2) and pack.target_tokens == 4


def test_little_in_common_is_not_shared() -> None:
    rows = [_with_beginning(SYSTEM[:15], tail=[n] * 300, number=n) for n in range(4)]
    assert all(not pack.parents for pack in pack_rows(rows, 5000, share=True))


def test_a_first_token_is_never_a_target() -> None:
    row = Encoded(np.array([1, 2]), np.array([True, True]), "t:1")
    assert one_pack([row, row]).target_T.tolist() == [False, True, False, True]
    assert row.target_T.all()  # the row itself is left as it was


def test_an_empty_pack_is_refused() -> None:
    assert pack_rows([], 8) == []
    with pytest.raises(BadInput, match="at least one row"):
        one_pack([])
