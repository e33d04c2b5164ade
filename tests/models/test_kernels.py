"""Row-wise kernels: the native ones give what plain PyTorch gives, in every layout, whatever the number of threads.

`JOBS` is one table of calls; each test runs it over both kinds of kernels and compares. Memory beside the views is
filled with a mark, so that a kernel that writes too far is found out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from luthier.models.kernels import build, rowwise

needs_native = pytest.mark.skipif(build.library() is None, reason="no compiler here: only the plain kernels exist")
MARK = 7.0
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
ROOT = Path(__file__).parents[2]


@dataclass
class Place:
    """Makes random tensors of one layout, each in memory that is `extra` columns wider."""

    dtype: torch.dtype
    tokens: int = 5
    heads: int = 3
    width: int = 17
    extra: int = 0
    seed: int = 0
    made: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    def rows(self, width: int | None = None) -> Tensor:
        """[T, W]."""
        width = width or self.width
        whole = torch.full((self.tokens, width + self.extra), MARK, dtype=self.dtype)
        whole[:, :width] = torch.randn(self.tokens, width, generator=self._generator) * 3
        self.made.append(whole[:, width:])
        return whole[:, :width]

    def vectors(self, width: int | None = None) -> Tensor:
        """[T, H, W]."""
        width = width or self.width
        return self.rows(self.heads * width).unflatten(1, (self.heads, width))

    def numbers(self, *shape: int) -> Tensor:
        """Float32, contiguous."""
        return torch.randn(*shape, generator=self._generator)

    def roots(self, x: Tensor) -> Tensor:
        """Reciprocal roots, as the forward gives them."""
        return torch.rsqrt(x.float().square().mean(-1) + 1e-5)


def _norm(at: Place) -> list[Tensor]:
    out = at.rows()
    return [rowwise.rms_norm(at.rows(), at.numbers(at.width), 1e-5, out), out]


def _norm_of_heads_in_place(at: Place) -> list[Tensor]:
    x = at.vectors()
    return [rowwise.rms_norm(x, at.numbers(at.width), 1e-5, x), x]


def _norm_back(at: Place) -> list[Tensor]:
    x, dx = at.rows(), at.rows()
    rowwise.rms_norm_back(at.rows(), x, at.numbers(at.width), at.roots(x), dx)
    return [dx]


def _norm_back_with_all(at: Place) -> list[Tensor]:
    x, dx, add, again = at.rows(), at.rows(), at.rows(), at.rows()
    rowwise.rms_norm_back(at.rows(), x, at.numbers(at.width), at.roots(x), dx, add, again)
    return [dx, again]


def _norm_back_of_heads_in_place(at: Place) -> list[Tensor]:
    x, d = at.vectors(), at.vectors()
    rowwise.rms_norm_back(d, x, at.numbers(at.width), at.roots(x), d)
    return [d]


def _norm_weight_back(at: Place) -> list[Tensor]:
    x = at.rows()
    return [rowwise.rms_norm_weight_back(at.rows(), x, at.roots(x))]


def _norm_weight_back_of_heads(at: Place) -> list[Tensor]:
    x = at.vectors()
    return [rowwise.rms_norm_weight_back(at.vectors(), x, at.roots(x))]


def _rotate(at: Place, sign: float = 1.0, rest: int = 0) -> list[Tensor]:
    half = (at.width + 1) // 2
    x, angle = at.vectors(2 * half + rest), at.numbers(at.tokens, half)
    rowwise.rotate(x, angle.cos(), angle.sin(), sign)
    return [x]


def _gate(at: Place, activation: str) -> list[Tensor]:
    out = at.rows()
    rowwise.gate(at.rows(2 * at.width), out, activation)
    return [out]


def _gate_back(at: Place, activation: str) -> list[Tensor]:
    gu, dm = at.rows(2 * at.width), at.rows()
    rowwise.gate_back(gu, dm, activation)
    return [gu, dm]


def _loss(at: Place, cap: float = 0.0, wants_gradient: bool = True) -> list[Tensor]:
    logits = at.rows().clone(memory_format=torch.contiguous_format)
    targets = torch.randint(at.width, (at.tokens,), generator=torch.Generator().manual_seed(at.seed))
    return [rowwise.softmax_loss(logits, targets, cap, wants_gradient), logits]


JOBS: dict[str, Callable[[Place], list[Tensor]]] = {
    "norm": _norm,
    "norm of heads in place": _norm_of_heads_in_place,
    "norm back": _norm_back,
    "norm back, added to and once more": _norm_back_with_all,
    "norm back of heads in place": _norm_back_of_heads_in_place,
    "norm weight back": _norm_weight_back,
    "norm weight back of heads": _norm_weight_back_of_heads,
    "rotate": _rotate,
    "rotate back": lambda at: _rotate(at, -1.0),
    "rotate a part": lambda at: _rotate(at, rest=3),
    "gate silu": lambda at: _gate(at, "silu"),
    "gate gelu": lambda at: _gate(at, "gelu_tanh"),
    "gate back silu": lambda at: _gate_back(at, "silu"),
    "gate back gelu": lambda at: _gate_back(at, "gelu_tanh"),
    "loss": _loss,
    "capped loss": lambda at: _loss(at, cap=5.0),
    "loss without gradient": lambda at: _loss(at, wants_gradient=False),
    "capped loss without gradient": lambda at: _loss(at, cap=5.0, wants_gradient=False),
}
EVERY_JOB = pytest.mark.parametrize("job", JOBS)


def natively(job: str, at: Place) -> list[Tensor]:
    """Run a job on the native kernels; falling back to the plain ones is an error here."""
    with mock.patch.object(rowwise, "plain", None):
        return JOBS[job](at)


def plainly(job: str, at: Place) -> list[Tensor]:
    with mock.patch.object(rowwise, "_functions", lambda: None):
        return JOBS[job](at)


def assert_agrees(found: list[Tensor], wanted: list[Tensor], dtype: torch.dtype) -> None:
    """Float32: 1e-6 of the norm. Bfloat16: one unit in the last place, which is 2^-7 of a number at most.

    Results of cancellation count as numbers of about 10, of which they are sums.
    """
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        if one.dtype == torch.bfloat16:
            torch.testing.assert_close(one, other, rtol=2**-7, atol=1e-5 * max(10.0, float(other.abs().max())))
        else:
            assert float((one - other).norm()) <= 1e-6 * max(10 * one.numel() ** 0.5, float(other.norm()))


@needs_native
@EVERY_JOB
@DTYPES
@settings(max_examples=8, deadline=None)
@given(
    tokens=st.integers(1, 40),
    heads=st.integers(1, 4),
    width=st.integers(1, 70),
    extra=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_native_and_plain_agree(
    job: str, dtype: torch.dtype, tokens: int, heads: int, width: int, extra: int, seed: int
) -> None:
    native, plain = (Place(dtype, tokens, heads, width, extra, seed) for _ in range(2))
    assert_agrees(natively(job, native), plainly(job, plain), dtype)
    for beside in (*native.made, *plain.made):
        assert bool((beside == MARK).all()), "memory beside the rows was written to"


@needs_native
@EVERY_JOB
def test_threads_change_no_bit(job: str) -> None:
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(natively(job, Place(torch.bfloat16, tokens=67, width=61)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@needs_native
@EVERY_JOB
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so_and_in_its_row(job: str, bad: float) -> None:
    """One spoilt number in row 1 of the first input: the row's results are not finite, all others are as before."""

    def spoilt(run: Callable[[str, Place], list[Tensor]], value: float | None) -> list[Tensor]:
        at = Place(torch.float32, tokens=3, heads=1, width=70)
        original = at.rows

        def rows(width: int | None = None) -> Tensor:
            made = original(width)
            if value is not None:
                made[1, 2] = value
            return made

        at.rows = rows  # type: ignore[method-assign]
        return run(job, at)

    if "capped" in job and bad == float("inf"):  # the cap makes it finite again
        assert all(bool(spoilt(run, bad)[0].isfinite().all()) for run in (natively, plainly))
        return
    if "weight" in job:
        assert not spoilt(natively, bad)[0].isfinite().all()
        return
    clean = spoilt(natively, None)
    for run in (natively, plainly):
        found = spoilt(run, bad)
        assert not all(bool(x[1].isfinite().all()) for x in found), run.__name__
        for one, other in zip(found, clean, strict=True):
            torch.testing.assert_close(one[::2], other[::2], rtol=1e-5, atol=1e-4)
    if "loss" in job:
        assert not spoilt(natively, bad)[0][1].isfinite()


@needs_native
@pytest.mark.parametrize("target", [-1, -100, 17])
def test_a_target_outside_of_the_logits_is_an_error(target: int) -> None:
    with pytest.raises(IndexError, match="17 logits"):
        rowwise.softmax_loss(torch.zeros(2, 17), torch.tensor([3, target]))


@needs_native
@pytest.mark.parametrize("cap", [0.0, 5.0])
def test_logits_stay_if_no_gradient_is_wanted(cap: float) -> None:
    for run in ("native", "plain"):
        logits = torch.randn(3, 17)
        before = logits.clone()
        with mock.patch.object(rowwise, "_functions", rowwise._functions if run == "native" else lambda: None):
            rowwise.softmax_loss(logits, torch.tensor([1, 2, 3]), cap, wants_gradient=False)
        assert torch.equal(logits, before), run


@pytest.mark.parametrize("width", [3, 17, 70])
def test_a_masked_logit_counts_for_nothing(width: int) -> None:
    """Minus infinity is a probability of 0; as the target, or everywhere, it is none."""
    for run in ("native", "plain"):
        logits = torch.randn(3, width, generator=torch.Generator().manual_seed(0))
        wanted = torch.logsumexp(logits[0, 1:], 0) - logits[0, 1]
        logits[:2, 0] = logits[2] = -torch.inf
        with mock.patch.object(rowwise, "_functions", rowwise._functions if run == "native" else lambda: None):
            losses = rowwise.softmax_loss(logits, torch.tensor([1, 0, 1]))
        torch.testing.assert_close(losses[0], wanted)
        assert not losses[1:].isfinite().any() and abs(float(logits[0, 0])) < 1e-30, run


def test_large_logits_and_certain_answers_are_exact() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]])
    losses = rowwise.softmax_loss(logits, torch.tensor([0, 1]))
    torch.testing.assert_close(losses, torch.tensor([0.0, 3.0]).log1p().where(torch.tensor([True, False]), losses))
    assert losses[1].item() == pytest.approx(1.0986123, rel=1e-6)
    torch.testing.assert_close(logits[1], torch.tensor([1 / 3, 1 / 3 - 1, 1 / 3]))


def test_other_dtypes_and_layouts_take_the_plain_way() -> None:
    for x in (torch.randn(4, 6, dtype=torch.float64), torch.randn(6, 4).t(), torch.randn(4, 6).half()):
        out = torch.empty_like(x)
        rowwise.rms_norm(x, torch.ones(6), 1e-5, out)
        wanted = torch.nn.functional.rms_norm(x.float(), (6,), eps=1e-5)
        torch.testing.assert_close(out.float(), wanted, rtol=1e-3, atol=1e-3)


def test_no_rows_at_all() -> None:
    assert rowwise.softmax_loss(torch.empty(0, 5), torch.empty(0, dtype=torch.long)).shape == (0,)
    assert rowwise.rms_norm(torch.empty(0, 5), torch.ones(5), 1e-5, torch.empty(0, 5)).shape == (0,)


# -- compiling -------------------------------------------------------------------------------------------------------

STEP = """
import sys
sys.path[:0] = ["tests/training"]
from tiny_training import tiny_model, tiny_objective, tiny_rows, tiny_spec, trainable_of
from luthier.models.kernels.build import has_native_attention, library
from luthier.rows.packing import one_pack
from luthier.training.engine.body import engine_for
from luthier.training.step import TorchStep
model = tiny_model()
step = TorchStep(model, tiny_objective(), trainable_of(model), tiny_spec())
with engine_for(model, tiny_spec()) as engine:
    losses = [step.run([one_pack(tiny_rows(4))], 1e-2).loss_sum for _ in range(3)]
assert losses[2] < losses[1] < losses[0], losses
print(library() is not None, has_native_attention(), engine.sentence, sep="; ")
"""
LOAD = "from luthier.models.kernels.build import library; print(library() is not None)"


def _begin(code: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _ended(processes: list[subprocess.Popen[str]]) -> Iterator[str]:
    for process in processes:
        told, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        yield told.strip()


def test_without_kernels_or_compiler_all_runs_on_plain_pytorch(tmp_path: Path) -> None:
    ways = [{"LUTHIER_KERNELS": "plain"}, {"CXX": "/nonexistent/c++"}]
    for told in _ended([_begin(STEP, LUTHIER_CACHE=str(tmp_path), **way) for way in ways]):
        assert told == "False; False; fast engine, plain kernels"
    assert not list(tmp_path.rglob("*.so"))


@needs_native
def test_two_processes_that_compile_at_once_leave_one_whole_library(tmp_path: Path) -> None:
    assert list(_ended([_begin(LOAD, LUTHIER_CACHE=str(tmp_path)) for _ in range(2)])) == ["True", "True"]
    [library] = (tmp_path / "kernels").iterdir()
    assert library.suffix == ".so" and library.stat().st_size > 10_000


@needs_native
def test_a_damaged_library_is_compiled_again(tmp_path: Path) -> None:
    assert list(_ended([_begin(LOAD, LUTHIER_CACHE=str(tmp_path))])) == ["True"]
    [library] = (tmp_path / "kernels").iterdir()
    library.write_bytes(b"not a library")
    assert list(_ended([_begin(LOAD, LUTHIER_CACHE=str(tmp_path))])) == ["True"]
    assert library.stat().st_size > 10_000
