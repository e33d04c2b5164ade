"""Labels become numbers and back; what is no label is told; weights are what they are called."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.ground.errors import BadInput
from luthier.rows.labels import LabelFault, LabelSet, count_labels, find_labels
from luthier.rows.types import Message, Row

ABC = LabelSet("single", ("a", "b", "c"), {"a": 6, "b": 3, "c": 1}, 10)


def rows(*answers: str) -> list[Row]:
    return [Row(str(n), f"t:{n}", (Message("user", "x"), Message("assistant", a))) for n, a in enumerate(answers)]


def test_labels_are_those_of_the_rows_sorted() -> None:
    found = find_labels("single", (), rows("b", "a", " b ", "c"))
    assert (found.labels, found.counts, found.rows, found.listed) == (
        ("a", "b", "c"), {"a": 1, "b": 2, "c": 1}, 4, False,
    )  # fmt: skip
    assert find_labels("multi", (), rows('["b", "a"]', "[]")).labels == ("a", "b")
    assert find_labels("single", ("b", "z", "a"), rows("a")).counts == {"b": 0, "z": 0, "a": 1}
    assert list(count_labels("single", rows("b", "a", "b"))) == ["b", "a"]


def test_values_are_standardised_by_the_training_rows() -> None:
    values = [3.0, 5.0, 10.0]
    found = find_labels("regression", (), rows(*map(str, values)))
    numbers = [float(found.numbers_of(str(value))[0]) for value in values]
    assert np.mean(numbers) == pytest.approx(0, abs=1e-6)
    assert np.std(numbers) == pytest.approx(1, abs=1e-6)
    assert [float(found.answer_of([number])) for number in numbers] == pytest.approx(values, rel=1e-5)
    assert float(found.commonest) == pytest.approx(6.0)


@given(st.sets(st.sampled_from("abc")))
def test_several_labels_come_back(chosen: set[str]) -> None:
    labels = LabelSet("multi", ("a", "b", "c"))
    numbers = labels.numbers_of(json.dumps(sorted(chosen)))
    assert json.loads(labels.answer_of(numbers.tolist())) == sorted(chosen)


def test_the_majority() -> None:
    assert ABC.commonest == "a"
    assert LabelSet("multi", ("a", "b"), {"a": 7, "b": 2}, 10).commonest == '["a"]'
    assert LabelSet("multi", ("a", "b"), {"a": 3, "b": 2}, 10).commonest == "[]"


def test_balanced_weights_give_each_label_the_same_sum() -> None:
    weights = ABC.weights("balanced")
    assert weights is not None
    sums = [weights[label] * ABC.counts[label] for label in ABC.labels]
    assert sums == pytest.approx([10 / 3] * 3)
    assert ABC.weights("none") is None
    assert ABC.weights({"b": 2.0}) == {"a": 1.0, "b": 2.0, "c": 1.0}


@pytest.mark.parametrize(
    ("kind", "listed", "answers", "sentence"),
    [
        ("single", (), ["a", "a"], 'there is only one label, "a"'),
        ("single", (), [], "there are no labels"),
        ("single", ("a", "a"), ["a"], "a label is listed twice"),
        ("regression", ("a",), ["1"], "has numbers, not labels"),
        ("regression", (), ["2", "2.0"], "every value is 2"),
    ],
)
def test_nothing_to_tell_apart(kind: str, listed: tuple[str, ...], answers: list[str], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        find_labels(kind, listed, rows(*answers))  # type: ignore[arg-type]


def test_faults_name_the_nearest_label() -> None:
    labels = LabelSet("single", ("card", "loan"))
    with pytest.raises(LabelFault, match=r'"crad" is not among the task\'s labels \(did you mean "card"\?\)'):
        labels.numbers_of("crad")
    with pytest.raises(BadInput, match='"crad" is not among'):
        labels.weights({"crad": 2.0})
    with pytest.raises(BadInput, match="regression has no labels"):
        LabelSet("regression").weights("balanced")


@pytest.mark.parametrize("answer", ["nan", "inf", "", "3 or 4"])
def test_what_is_no_number(answer: str) -> None:
    with pytest.raises(LabelFault, match="is not a number"):
        LabelSet("regression").numbers_of(answer)
