"""One step: packs add up, a hand loop gives the same weights, and nothing steps on a number that is not finite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tiny_training import tiny_model, tiny_objective, tiny_rows, tiny_run, tiny_spec, trainable_of
from torch import Tensor, nn

from luthier.adapters.base import get_kind
from luthier.ground.errors import Refused
from luthier.ground.spec import AdapterSpec
from luthier.objectives.base import ObjectiveContext
from luthier.objectives.sft import SupervisedFinetuning
from luthier.rows.packing import one_pack, pack_rows, single_rows
from luthier.rows.types import Encoded, Pack
from luthier.training.batches import plan_steps, step_packs
from luthier.training.optimizers.schedule import rate_at
from luthier.training.step import TorchStep


def _step(model: nn.Module, objective: SupervisedFinetuning | None = None, **changes: float | None) -> TorchStep:
    return TorchStep(model, objective or tiny_objective(), trainable_of(model), tiny_spec(**changes))


def _after(packs: Sequence[Pack], **changes: float | None) -> tuple[dict[str, Tensor], float, float]:
    model = tiny_model()
    outcome = _step(model, **changes).run(packs, learning_rate=1e-2)
    return {n: p.detach() for n, p in model.named_parameters()}, outcome.loss_sum / outcome.count, outcome.grad_norm


@pytest.mark.parametrize("rows", [8, 5])  # five: the last pack of two is a partial one
def test_accumulation_does_not_depend_on_the_cut(rows: int) -> None:
    encoded = tiny_rows(rows)
    whole = _after([one_pack(encoded)])
    for size in (1, 2, 4):
        cut = _after([one_pack(encoded[start : start + size]) for start in range(0, rows, size)])
        assert cut[1:] == pytest.approx(whole[1:], rel=1e-5)
        for name, weight in whole[0].items():
            torch.testing.assert_close(cut[0][name], weight, rtol=0, atol=2e-5, msg=name)


def test_gradients_are_of_the_mean_over_all_targets() -> None:
    """Rows with one target and with six count by target, not by row."""
    encoded = tiny_rows(6)
    model = tiny_model()
    losses = [tiny_objective().loss(model, one_pack([row])) for row in encoded]
    mean = torch.stack([loss for loss, _ in losses]).sum() / sum(count for _, count in losses)
    gradients = torch.autograd.grad(mean, list(model.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    _, loss, grad_norm = _after(pack_rows(encoded, 20))
    assert loss == pytest.approx(mean.item(), rel=1e-5)
    assert grad_norm == pytest.approx(norm, rel=1e-5)


def test_clipping_scales_the_gradient_to_the_norm() -> None:
    packs = [one_pack(tiny_rows(4))]
    seen: dict[float | None, Tensor] = {}
    for most in (None, 0.01):
        model = tiny_model()
        step = _step(model, max_grad_norm=most)
        step._updates.step = lambda _, factor, most=most, model=model: seen.__setitem__(  # type: ignore[method-assign,misc]
            most, factor * torch.cat([p.grad.flatten() for p in model.parameters()])
        )
        outcome = step.run(packs, 1e-2)
        assert outcome.grad_norm > 0.02, "the norm before clipping is what is told"
    assert seen[0.01].norm().item() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(seen[0.01] / seen[0.01].norm(), seen[None] / seen[None].norm())


def test_the_trainer_adds_nothing_to_a_hand_loop(tmp_path: object) -> None:
    spec, rows, model = tiny_spec(weight_decay=0.0), tiny_rows(16), tiny_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0, fused=True)
    plan = plan_steps([len(row) for row in rows], spec)
    torch.manual_seed(0)
    for number, planned in enumerate(plan):
        optimizer.zero_grad()
        count = sum(rows[index].target_tokens for index in planned.rows)
        for pack in step_packs(rows, planned, 24):
            loss, _ = tiny_objective().loss(model, pack)
            loss.backward()
        for parameter in model.parameters():
            parameter.grad.div_(count)  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = rate_at(number, len(plan), spec)
        optimizer.step()
    trained = tiny_model()
    tiny_run(tmp_path / "run", spec, model=trained, dev=[])  # type: ignore[operator]
    for (name, expected), weight in zip(model.named_parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-6, msg=name)


class _BrokenRows(SupervisedFinetuning):
    """The loss, or only its gradient, is not a number for rows that hold the token 29."""

    def __init__(self, gradient_only: bool) -> None:
        super().__init__(ObjectiveContext(None))
        self._gradient_only = gradient_only

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        loss, count = super().loss(model, pack)
        if 29 not in pack.ids_T:
            return loss, count
        weight = next(model.parameters())
        bad = torch.sqrt((weight[0, 0] - weight[0, 0].detach()).clamp(min=0)) if self._gradient_only else float("nan")
        return loss + bad * 1.0, count


@pytest.mark.parametrize("gradient_only", [False, True])
def test_not_finite_is_refused_with_the_row_named_and_nothing_changed(gradient_only: bool) -> None:
    rows = [Encoded(row.ids_T % 29, row.target_T, row.place) for row in tiny_rows(6)]
    rows[3].ids_T[-1] = 29
    model = tiny_model(dropout=0.1)
    step = _step(model, _BrokenRows(gradient_only))
    step.run([one_pack(rows[:3])], 1e-2)
    before = {name: tensor.clone() for name, tensor in step.tensors().items()}
    random = torch.get_rng_state()
    what = "gradient" if gradient_only else "loss"
    with pytest.raises(Refused, match=rf"the {what} of train.jsonl:4 is not finite.*learning_rate"):
        step.run(pack_rows(rows, 24), 1e-2)
    after = step.tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_evaluation_changes_nothing_and_sums() -> None:
    model, rows = tiny_model(dropout=0.5), tiny_rows(5)
    step = _step(model)
    first, again = step.evaluate(pack_rows(rows, 10)), step.evaluate([one_pack(rows)])
    assert first[1] == again[1] == sum(row.target_tokens for row in rows)
    assert first[0] == pytest.approx(again[0], rel=1e-6), "no dropout while evaluating"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_autocast_trains_float32_masters() -> None:
    model, rows = tiny_model(), tiny_rows(6)
    exact = _step(tiny_model()).run([one_pack(rows)], 1e-2)
    outcome = TorchStep(model, tiny_objective(), trainable_of(model), tiny_spec(), torch.bfloat16).run(
        [one_pack(rows)], 1e-2
    )
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert outcome.loss_sum != exact.loss_sum, "the arithmetic was another"
    assert outcome.loss_sum == pytest.approx(exact.loss_sum, rel=2e-2)
    assert outcome.grad_norm == pytest.approx(exact.grad_norm, rel=1e-1)


def test_full_training_in_bfloat16_moves_the_very_weights_that_answer() -> None:
    model, rows, spec = tiny_model().bfloat16(), tiny_rows(6), AdapterSpec(kind="full")
    kind = get_kind("full")
    kind.inject(model, spec, seed=0)
    try:
        step = TorchStep(model, tiny_objective(), kind.trainable(model), tiny_spec(), torch.bfloat16)
        losses = [step.run([one_pack(rows)], 1e-2).loss_sum for _ in range(4)]
        step.evaluate([one_pack(rows)])
        for name, master in kind.trainable(model).items():
            assert torch.equal(model.get_parameter(name), master.bfloat16()), name
    finally:
        kind.remove(model)
    assert losses[3] < losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
def test_lora_trains_in_bfloat16_on_any_base(base: torch.dtype) -> None:
    model, rows = tiny_model().to(base).requires_grad_(False), tiny_rows(6)
    kind = get_kind("lora")
    kind.inject(model, AdapterSpec(rank=2), seed=0)
    try:
        step = TorchStep(model, tiny_objective(), kind.trainable(model), tiny_spec(), torch.bfloat16)
        losses = [step.run([one_pack(rows)], 1e-2).loss_sum for _ in range(4)]
    finally:
        kind.remove(model)
    assert losses[3] < losses[2] < losses[1] < losses[0]


def test_single_rows_undo_a_pack() -> None:
    rows = tiny_rows(4)
    for row, pack in zip(rows, single_rows(one_pack(rows)), strict=True):
        assert np.array_equal(pack.ids_T, row.ids_T) and pack.places == (row.place,)
        assert np.array_equal(pack.target_T, row.target_T) and pack.positions_T[0] == 0


def test_a_shared_beginning_is_nobodys_row() -> None:
    ids = np.arange(2, 26)
    rows = [Encoded(np.append(ids, n), np.arange(25) >= 24, f"train.jsonl:{n}") for n in (3, 4)]
    (pack,) = pack_rows(rows, 999, share=True)
    assert "" in pack.places
    assert _step(tiny_model())._places([pack]) == ["train.jsonl:3", "train.jsonl:4"]
