"""The kit that every training step passes, whatever computes it: one call, on a tiny model and a few rows.

It checks that a step's loss, count and gradient are sums that do not depend on how its rows are cut into packs; that a
step which is refused leaves nothing behind, and which row it names; that what `tensors` returns is all that a resumed
run needs, to the bit; and that evaluating changes nothing. It does not check what the loss means (that is
`luthier.objectives.conformance`), nor how fast anything is.

    check_step(make_step, objective, rows, reference=(mean_loss, norm_of_its_gradient))
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from luthier.ground.errors import Refused
from luthier.objectives.base import Objective
from luthier.rows.packing import one_pack, tree_pack
from luthier.rows.types import Encoded, Pack, Row
from luthier.training.step import Step, StepOutcome, TornStepError

MakeStep = Callable[[Objective], AbstractContextManager[Step]]
"""Returns, within a block, a step of this objective over a freshly made model: the very same one at each call."""

RATE = 1e-2


def check_step(
    make_step: MakeStep,
    objective: Objective,
    rows: Sequence[Encoded],
    *,
    reference: tuple[float, float] | None = None,
    tolerance: float = 1e-5,
    is_torn_by_gradients: bool = False,
) -> None:
    """Check one kind of step on at least four rows of unequal length, all of them with targets.

    Args:
        reference: mean loss over all targets of `rows` at the first step, and the norm of its gradient.
        tolerance: relative, of sums in another order in the precision of the arithmetic.
        is_torn_by_gradients: the step updates during backward, so a gradient that is not finite may leave it torn.

    Raises:
        AssertionError: the first promise that is broken, in a sentence.
    """
    assert len(rows) >= 4 and all(row.target_tokens for row in rows), "the kit needs four rows with targets"
    _check_sums(make_step, objective, rows, reference, tolerance)
    _check_evaluation(make_step, objective, rows, tolerance)
    _check_resuming(make_step, objective, rows)
    _check_learning(make_step, objective, rows)
    for what in ("loss", "gradient"):
        _check_refusal(make_step, objective, rows, what, is_torn_by_gradients and what == "gradient")


def _check_sums(
    make_step: MakeStep,
    objective: Objective,
    rows: Sequence[Encoded],
    reference: tuple[float, float] | None,
    tolerance: float,
) -> None:
    """Any cut gives the same loss, count, norm and update; rows that come twice double the sums, not the gradient."""
    whole, after = _one_step(make_step, objective, [one_pack(rows)])
    assert whole.count == sum(row.target_tokens for row in rows), f"counts {whole.count:g} targets"
    if reference is not None:
        _assert_close(whole.loss_sum / whole.count, reference[0], tolerance, "the mean loss, against the reference,")
        _assert_close(whole.grad_norm, reference[1], tolerance, "the norm of its gradient, against the reference,")
    for name, packs in _cuts(rows).items():
        cut, after_cut = _one_step(make_step, objective, packs)
        assert cut.count == whole.count, f"{name}: counts {cut.count:g} targets instead of {whole.count}"
        _assert_close(cut.loss_sum, whole.loss_sum, tolerance, f"{name}: the loss")
        _assert_close(cut.grad_norm, whole.grad_norm, tolerance, f"{name}: the gradient's norm")
        _assert_close(after_cut, after, 10 * tolerance, f"{name}: the loss after the step")
    twice, after_twice = _one_step(make_step, objective, [one_pack(rows)] * 2)
    assert twice.count == 2 * whole.count, f"rows twice: counts {twice.count:g} targets"
    _assert_close(twice.loss_sum, 2 * whole.loss_sum, tolerance, "rows twice: the loss")
    _assert_close(twice.grad_norm, whole.grad_norm, tolerance, "rows twice: the norm of the mean gradient")
    _assert_close(after_twice, after, 10 * tolerance, "rows twice: the loss after the step")


def _cuts(rows: Sequence[Encoded]) -> dict[str, list[Pack]]:
    half = len(rows) // 2
    ordered = sorted(rows, key=lambda row: tuple(row.ids_T.tolist()))
    return {
        "one row at a time": [one_pack([row]) for row in rows],
        "a long pack and a short one": [one_pack(rows[:-1]), one_pack(rows[-1:])],
        "halves in another order": [one_pack(rows[half:][::-1]), one_pack(rows[:half])],
        "common beginnings once": [tree_pack(ordered)],
    }


def _check_evaluation(make_step: MakeStep, objective: Objective, rows: Sequence[Encoded], tolerance: float) -> None:
    """Evaluating gives sums, twice the same, and neither weights nor random numbers nor the next step know of it."""
    packs = [one_pack(rows[:2]), one_pack(rows[2:])]
    with _fresh(make_step, objective) as step:
        step.run(packs, RATE)
        undisturbed = step.run(packs, RATE)
    with _fresh(make_step, objective) as step:
        step.run(packs, RATE)
        before = _state(step)
        loss, count = step.evaluate(packs)
        assert (loss, count) == step.evaluate(packs), "evaluating twice gives two results"
        _assert_close(step.evaluate([one_pack(rows)])[0], loss, tolerance, "evaluating in one pack: the loss")
        assert count == sum(row.target_tokens for row in rows), f"evaluating counts {count:g} targets"
        _assert_equal(_state(step), before, "evaluating changes")
        assert step.run(packs, RATE) == undisturbed, "evaluating changes the next step"


def _check_resuming(make_step: MakeStep, objective: Objective, rows: Sequence[Encoded]) -> None:
    """A fresh step, or one that went elsewhere, goes on from another's tensors exactly as that one does."""
    packs, others = [one_pack(rows[:2]), one_pack(rows[2:])], [one_pack(rows[1:])]
    with _fresh(make_step, objective) as step:
        for _ in range(3):
            step.run(packs, RATE)
        saved = _state(step)
        going_on = [step.run(packs, RATE / (n + 1)) for n in range(3)], step.evaluate(packs), _state(step)
    for name, astray in (("a fresh step", 0), ("a step that went elsewhere", 2)):
        with _fresh(make_step, objective) as step:
            for _ in range(astray):
                step.run(others, RATE)
            step.restore(saved[0])
            torch.set_rng_state(saved[1])
            _assert_equal(_state(step), saved, f"{name}: restoring changes")
            resumed = [step.run(packs, RATE / (n + 1)) for n in range(3)], step.evaluate(packs)
            assert resumed == going_on[:2], f"{name} goes on otherwise: {resumed} instead of {going_on[:2]}"
            _assert_equal(_state(step), going_on[2], f"{name} ends with another")
            step.restore_weights(saved[0])
            for key, value in saved[0].items():
                if key.startswith("weight/"):
                    assert torch.equal(step.tensors()[key], value), f"restoring weights leaves {key} as it was"


def _check_learning(make_step: MakeStep, objective: Objective, rows: Sequence[Encoded]) -> None:
    """Two fresh steps are the same to the bit; a rate of 0 moves nothing; steps on the same rows lower their loss."""
    packs = [one_pack(rows)]
    assert _one_step(make_step, objective, packs) == _one_step(make_step, objective, packs), "two fresh steps differ"
    with _fresh(make_step, objective) as step:
        before = _weights(step)
        step.run(packs, 0.0)
        assert all(torch.equal(value, before[key]) for key, value in _weights(step).items()), (
            "a rate of 0 moves weights"
        )
        start = step.evaluate(packs)[0]
        for _ in range(8):
            step.run(packs, RATE)
        assert step.evaluate(packs)[0] < start, "eight steps do not lower the loss"


def _check_refusal(
    make_step: MakeStep, objective: Objective, rows: Sequence[Encoded], what: str, is_torn: bool
) -> None:
    """What is not finite is refused (or skipped), its row named, and all is as if it had not been tried."""
    bad, good = rows[-2], [one_pack(rows[:-2])]
    packs = [*good, one_pack(rows[-2:])]
    broken = _Broken(objective, what, bad)
    with _fresh(make_step, broken) as step:
        step.run(good, RATE)
        undisturbed = step.run(good, RATE)
    with _fresh(make_step, broken) as step:
        step.run(good, RATE)
        before = _state(step)
        try:
            outcome = step.run(packs, RATE)
        except TornStepError:
            assert is_torn, f"a {what} that is not finite leaves the step torn"
            return
        except Refused as refused:
            assert bad.place in str(refused), f"the row {bad.place} is not named: {refused}"
            _assert_equal(_state(step), before, f"a step that was refused for its {what} changes")
            assert step.run(good, RATE) == undisturbed, f"a step that was refused for its {what} changes the next one"
            return
        assert outcome.skipped, f"a step is taken on a {what} that is not finite"
        now = _weights(step)
        assert all(torch.equal(now[key], value) for key, value in before[0].items() if key in now), "skipped, but taken"


class _Broken(Objective):
    """An objective whose loss, or only its gradient, is not a number for packs that hold the row `bad`."""

    name = "broken"

    def __init__(self, objective: Objective, what: str, bad: Encoded) -> None:
        super().__init__(objective.context)
        self._objective, self._what, self._bad = objective, what, bad

    def encode(self, row: Row) -> Encoded:
        return self._objective.encode(row)

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, float]:
        loss, count = self._objective.loss(model, pack)
        if self._bad.place not in pack.places:
            return loss, count
        return (loss * math.nan if self._what == "loss" else _WithoutGradient.apply(loss)), count  # type: ignore[no-untyped-call]


class _WithoutGradient(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: object, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> Tensor:
        return gradient * math.nan


@contextlib.contextmanager
def _fresh(make_step: MakeStep, objective: Objective) -> Iterator[Step]:
    with make_step(objective) as step:
        torch.manual_seed(0)
        yield step


def _one_step(make_step: MakeStep, objective: Objective, packs: Sequence[Pack]) -> tuple[StepOutcome, float]:
    """Return what one step was, and the loss after it."""
    with _fresh(make_step, objective) as step:
        outcome = step.run(packs, RATE)
        loss, count = step.evaluate(packs)
    return outcome, loss / count


def _weights(step: Step) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in step.tensors().items() if key.startswith("weight/")}


def _state(step: Step) -> tuple[dict[str, Tensor], Tensor]:
    return {key: value.detach().clone() for key, value in step.tensors().items()}, torch.get_rng_state()


def _assert_equal(found: tuple[dict[str, Tensor], Tensor], wanted: tuple[dict[str, Tensor], Tensor], what: str) -> None:
    assert found[0].keys() == wanted[0].keys(), f"{what} what there is: {sorted(found[0].keys() ^ wanted[0].keys())}"
    for key, value in wanted[0].items():
        assert torch.equal(found[0][key], value), f"{what} {key}"
    assert torch.equal(found[1], wanted[1]), f"{what} state of the random numbers"


def _assert_close(found: float, wanted: float, tolerance: float, what: str) -> None:
    assert abs(found - wanted) <= tolerance * abs(wanted), f"{what} is {found} instead of {wanted}"
