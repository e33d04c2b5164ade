"""What a tensor without memory stands for, and who hears of the work of kernels that torch does not see."""

from __future__ import annotations

import contextvars

import pytest
import torch

from luthier.models.planned import device_type, hearing, note_work, planned_for

META, CPU = torch.device("meta"), torch.device("cpu")


def test_a_tensor_without_memory_stands_for_the_planned_device() -> None:
    assert device_type(META) == "cpu"
    with planned_for("cuda"):
        assert (device_type(META), device_type(CPU), device_type(torch.device("mps"))) == ("cuda", "cpu", "mps")
        with planned_for("mps"):
            assert device_type(META) == "mps"
        assert device_type(META) == "cuda"
    assert device_type(META) == "cpu"


def test_an_error_ends_the_plan() -> None:
    heard: list[tuple[float, float]] = []
    with pytest.raises(KeyError), planned_for("cuda"), hearing(lambda *work: heard.append(work)):
        raise KeyError
    note_work(1.0, 2.0)
    assert device_type(META) == "cpu"
    assert heard == []


def test_work_is_told_to_the_innermost_who_hears() -> None:
    outer: list[tuple[float, float]] = []
    inner: list[tuple[float, float]] = []
    note_work(1.0)
    with hearing(lambda *work: outer.append(work)):
        note_work(attention_flops=2.0)
        with hearing(lambda *work: inner.append(work)):
            note_work(moved_bytes=3.0)
        note_work(4.0, 5.0)
    assert outer == [(2.0, 0.0), (4.0, 5.0)]
    assert inner == [(0.0, 3.0)]


def test_another_context_plans_nothing() -> None:
    empty = contextvars.Context()
    with planned_for("cuda"):
        assert empty.run(device_type, META) == "cpu"
