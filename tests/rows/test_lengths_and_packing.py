"""The length policies cut only prompts, and packs keep every token in its order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.ground.errors import BadInput
from luthier.rows.lengths import fit_length
from luthier.rows.packing import one_pack, pack_rows
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
    for pack, following in itertools.pairwise(packs):
        assert len(pack) + following.lengths[0] > limit  # no pack is closed early


def test_a_first_token_is_never_a_target() -> None:
    row = Encoded(np.array([1, 2]), np.array([True, True]), "t:1")
    assert one_pack([row, row]).target_T.tolist() == [False, True, False, True]
    assert row.target_T.all()  # the row itself is left as it was


def test_an_empty_pack_is_refused() -> None:
    assert pack_rows([], 8) == []
    with pytest.raises(BadInput, match="at least one row"):
        one_pack([])
