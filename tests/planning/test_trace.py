"""Traces say what was allocated and freed, where and when: beside sums by hand, and beside a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from luthier.models.kernels.build import library
from luthier.models.kernels.rowwise import rms_norm
from luthier.models.kernels.varlen import Heads, attend
from luthier.models.planned import hearing, planned_for
from luthier.models.segments import Segments, unit_table
from luthier.planning.hidden import hidden_bytes
from luthier.planning.trace import MemoryTrace

META = torch.device("meta")


def _empty(*shape: int, dtype: torch.dtype = torch.float32, wants_gradient: bool = False) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META, requires_grad=wants_gradient)


def _live(trace: MemoryTrace) -> int:
    live = sum(block.bytes for block in trace.blocks if block.freed is None)
    signed = (trace.blocks[abs(event) - 1].bytes * (1 if event > 0 else -1) for event in trace.events)
    assert live == sum(signed), "blocks and events tell the same"
    return live


# -- what is there -------------------------------------------------------------------------------------------------


def test_live_bytes_of_a_small_program_are_those_counted_by_hand() -> None:
    with MemoryTrace() as trace:
        weight = _empty(8, 4, wants_gradient=True)
        x = _empty(16, 4)
        y = x @ weight.t()
        assert _live(trace) == 4 * (8 * 4 + 16 * 4 + 16 * 8)
        z = y.relu()
        loss = z.sum()
        assert _live(trace) == 4 * (8 * 4 + 16 * 4 + 16 * 8 + 16 * 8 + 1)
        del y  # relu keeps its result, not what went in
        assert _live(trace) == 4 * (8 * 4 + 16 * 4 + 16 * 8 + 1)
        before = len(trace.events)
        loss.backward()
        assert _live(trace) == 4 * (8 * 4 + 16 * 4 + 16 * 8 + 1 + 8 * 4)
        # While the weight's gradient is made: that of y, the one that backward begins with, and all that was there.
        assert trace.live_peak_bytes(before) == 4 * (8 * 4 + 16 * 4 + 16 * 8 + 1 + 1 + 16 * 8 + 8 * 4)
        assert trace.live_peak_bytes(0, before) == 4 * (8 * 4 + 16 * 4 + 2 * 16 * 8 + 1)
        del x, z, loss
        weight.grad = None
        assert _live(trace) == 4 * 8 * 4
    assert weight.grad is None


def test_what_autograd_keeps_is_there_until_the_backward() -> None:
    with MemoryTrace() as trace:
        x = _empty(1000, wants_gradient=True)
        y = x.exp().sin()  # sin keeps what went in, exp keeps it too: one block
        assert _live(trace) == 3 * 4000
        total = y.sum()
        del y
        assert _live(trace) == 2 * 4000 + 4
        total.backward()
        assert _live(trace) == 2 * 4000 + 4, "x, its gradient, and the total"


def test_a_block_ends_with_its_last_reference() -> None:
    with MemoryTrace() as trace:
        first = _empty(100)
        second = first
        del first
        assert _live(trace) == 400
        part = second[10:20]
        del second
        assert _live(trace) == 400, "a view holds all of its memory"
        del part
        assert _live(trace) == 0
    assert [block.freed for block in trace.blocks] == [1]


def test_views_and_changes_in_place_take_nothing() -> None:
    with MemoryTrace() as trace:
        x = _empty(6, 10)
        before = trace.total_work()
        views = [x.t(), x[1:3], x.view(3, 20), x.reshape(60), x.unsqueeze(0).expand(7, 6, 10), x.detach(), *x.chunk(2)]
        assert trace.total_work() == before, "a view is no work"
        x.add_(1).mul_(x)
        assert trace.total_work().calls == before.calls + 2
        assert _live(trace) == 240
        copied = x.t().reshape(60)  # not in the order of the memory: a copy
        assert _live(trace) == 480
    assert (len(views), copied.shape) == (8, (60,))


def test_tensors_from_before_are_counted_once_they_are_adopted_and_labels_stay() -> None:
    weight, buffer = _empty(10, 10, dtype=torch.bfloat16), _empty(0)
    with MemoryTrace() as trace:
        trace.adopt([weight, weight.t(), buffer], "weights")
        assert [(block.bytes, block.label) for block in trace.blocks] == [(200, "weights")]
        made = weight * 2
        assert trace.blocks[1].label == ""
        trace.adopt([made], "gradients")
        assert [block.label for block in trace.blocks] == ["weights", "gradients"]
        assert _live(trace) == 400


def test_stages_are_as_set_and_backward_by_itself() -> None:
    with MemoryTrace() as trace:
        x = _empty(50, wants_gradient=True)
        trace.stage = "forward"
        loss = x.exp().sum()
        trace.mark("forward_end")
        trace.stage = "update"
        loss.backward()
        after = _empty(7)
    stages = [(block.stage, block.bytes) for block in trace.blocks]
    assert stages[0] == ("preparing", 200)
    assert stages[1:3] == [("forward", 200), ("forward", 4)]
    assert stages[3] == ("update", 4), "the gradient that backward begins with is made outside of it"
    assert set(stages[4:-1]) == {("backward", 200)}
    assert stages[-1] == ("update", 28)
    assert trace.marks == {"forward_end": [3]}
    assert after.numel() == 7


def test_places_are_of_luthiers_own_code() -> None:
    from luthier.models.packed import Head
    from luthier.objectives.cross_entropy import plain_cross_entropy

    with MemoryTrace() as trace:
        head = nn.Linear(4, 9, device=META)
        made = len(trace.blocks)
        plain_cross_entropy(Head(head), _empty(5, 4), torch.zeros(5, dtype=torch.int64))
    places = {block.place for block in trace.blocks[made:]}
    assert any(place == "objectives.cross_entropy.plain_cross_entropy" for place in places)
    assert trace.blocks[0].place == "", "no code of Luthier's"


# -- numbers that are read -----------------------------------------------------------------------------------------


def test_a_number_without_memory_is_zero_and_comparisons_agree() -> None:
    with MemoryTrace():
        assert _empty().item() == 0
        assert float(_empty(3).sum()) == 0.0
        assert torch.equal(_empty(3), _empty(3))


def test_tensors_of_whole_numbers_are_real() -> None:
    ids = torch.tensor([4, 2, 7])
    with MemoryTrace() as trace:
        places = torch.arange(5, device=META)
        moved = ids.to(META)
        table = _empty(10, 6)
        rows = table[moved]
        masked = _empty(5)[(places > 2).nonzero().squeeze(1)]
        assert not moved.is_meta and moved.tolist() == [4, 2, 7]
        assert not places.is_meta and places.tolist() == [0, 1, 2, 3, 4]
        assert rows.is_meta and rows.shape == (3, 6)
        assert masked.shape == (2,), "a shape that follows from values"
        assert torch.arange(5, device=META, dtype=torch.float32).is_meta
        assert torch.tensor([1.0, 2.0]).to(META).is_meta
    assert {block.bytes for block in trace.blocks} >= {240, 72, 8}


def test_random_numbers_need_no_generator_of_the_device() -> None:
    generator = torch.Generator().manual_seed(0)
    with MemoryTrace():
        assert _empty(4).normal_(generator=generator).is_meta


# -- work ----------------------------------------------------------------------------------------------------------


def test_products_count_two_operations_for_each_multiplication() -> None:
    m, k, n = 5, 7, 11
    with MemoryTrace() as trace:
        trace.stage = "forward"
        a, b = _empty(m, k, wants_gradient=True), _empty(k, n, wants_gradient=True)
        c = a @ b
        assert trace.work["forward"].flops == 2 * m * n * k
        assert trace.work["forward"].product_bytes == 4 * (m * k + k * n + m * n)
        c.sum().backward()
    assert trace.work["backward"].flops == 2 * (2 * m * n * k), "one product for each gradient"
    assert trace.total_work().flops == 3 * 2 * m * n * k


@pytest.mark.skipif(library() is None, reason="the kernels cannot be compiled here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_native_kernels_are_heard_as_what_they_read_and_write(dtype: torch.dtype) -> None:
    with planned_for("cpu"), MemoryTrace() as trace, hearing(trace.hear):
        trace.stage = "forward"
        x, out, weight = _empty(32, 64, dtype=dtype), _empty(32, 64, dtype=dtype), _empty(64)
        before = trace.total_work()
        scale = rms_norm(x, weight, 1e-5, out)
        heard = trace.total_work() - before
    assert heard.other_bytes == 2 * 32 * 64 * dtype.itemsize
    assert heard.flops == 0
    assert scale.shape == (32,)
    assert [block.bytes for block in trace.blocks[3:]] == [32 * 4], "nothing else is made"


def test_native_attention_is_heard_as_the_products_that_it_makes() -> None:
    with MemoryTrace() as trace, hearing(trace.hear):
        q, k, v = (_empty(12, heads * 16, dtype=torch.bfloat16) for heads in (4, 2, 2))
        lse = attend(q, k, v, Heads(4, 2, 16, 0.25), unit_table(Segments((7, 5))), torch.empty_like(q))
    pairs = 7 * 8 // 2 + 5 * 6 // 2  # each token sees itself and what came before it in its row
    assert trace.total_work().other_flops == 4 * pairs * 4 * 16
    assert lse.shape == (12, 4)


def test_nobody_is_told_of_work_outside_of_a_hearing() -> None:
    with MemoryTrace() as trace:
        q = _empty(12, 64, dtype=torch.bfloat16)
        attend(q, q, q, Heads(4, 4, 16, 0.25), unit_table(Segments((7, 5))), torch.empty_like(q))
    assert trace.total_work().other_flops == 0


# -- copies inside of operators ------------------------------------------------------------------------------------


def test_copies_inside_come_and_go() -> None:
    wide, narrow = _empty(1000), _empty(1000, dtype=torch.bfloat16)
    with MemoryTrace() as trace:
        trace.adopt([wide, narrow], "")
        wide.add_(narrow)
        assert _live(trace) == 6000
        assert trace.live_peak_bytes() == 6000 + 4000
        with planned_for("cuda"):
            begin = len(trace.events)
            wide.add_(narrow)
        assert len(trace.events) == begin, "a GPU converts number by number"


@pytest.mark.parametrize(
    ("name", "dtypes", "made", "copied"),
    [
        ("add_", ["float32", "float32"], "float32", 0),
        ("mul", ["float32", "bfloat16"], "float32", 400),
        ("mul", ["bfloat16", "bfloat16"], "bfloat16", 0),
        ("sum", ["bfloat16"], "float32", 400),
        ("sum", ["float32"], "float32", 0),
        ("linalg_vector_norm", ["bfloat16"], "float32", 400),
        ("mm", ["bfloat16", "bfloat16"], "float32", 0),
    ],
)
def test_which_operators_copy(name: str, dtypes: list[str], made: str, copied: int) -> None:
    tensors = [torch.zeros(100, dtype=getattr(torch, dtype)) for dtype in dtypes]
    assert hidden_bytes(name, tensors, getattr(torch, made)) == copied


def test_a_number_beside_a_tensor_is_not_copied() -> None:
    assert hidden_bytes("mul", [torch.zeros(100, dtype=torch.bfloat16), torch.tensor(2.0)], torch.bfloat16) == 0


_OPERATORS = {
    "add_": "wide.add_(narrow)",
    "add_ of one precision": "wide.add_(wide)",
    "sum": "narrow.sum(dtype=torch.float32)",
}
_MEASURE = """
import json, sys, torch
from luthier.machine.memory import PeakMemory, resident_bytes

found = {}
for name, code in json.load(sys.stdin).items():
    exec(code.replace("wide", "torch.ones(9)").replace("narrow", "torch.ones(9, dtype=torch.bfloat16)"))
    wide, narrow = torch.ones(25_000_000), torch.ones(25_000_000, dtype=torch.bfloat16)
    before = resident_bytes()
    with PeakMemory() as peak:
        exec(code)
    found[name] = peak.bytes - before
print(json.dumps(found))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system tells no exact peak")
def test_copies_inside_are_what_a_process_really_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE], input=json.dumps(_OPERATORS), text=True, capture_output=True, check=True
    )
    real = json.loads(done.stdout)
    wide, narrow = torch.empty(25_000_000, device=META), torch.empty(25_000_000, dtype=torch.bfloat16, device=META)
    assert real["add_"] == pytest.approx(hidden_bytes("add_", [wide, narrow], wide.dtype), rel=0.1)
    assert real["sum"] == pytest.approx(hidden_bytes("sum", [narrow], torch.float32), rel=0.1)
    assert real["add_ of one precision"] < 5e6
