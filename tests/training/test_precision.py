"""float16: the scale's rule against torch's GradScaler, overflow without harm, training close to float32; words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_training import tiny_model, tiny_objective, tiny_rows, tiny_run, tiny_spec, trainable_of

from luthier.ground.errors import Refused
from luthier.ground.spec import TrainSpec
from luthier.rows.packing import one_pack
from luthier.training import loss_scale
from luthier.training.loss_scale import LossScale
from luthier.training.precision import autocast_of, base_precision, float32_products
from luthier.training.step import TorchStep


def test_the_scale_follows_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "GROWTH_STEPS", 3)
    peer = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    scale = LossScale()
    for overflow in (False, False, True, False, False, False, False, True, True, False, False, False, False):
        peer.scale(weight.sum()).backward()
        weight.grad = torch.full((1,), float("inf")) if overflow else weight.grad
        peer.step(optimizer)
        peer.update()
        optimizer.zero_grad()
        scale.note(overflow=overflow)
        assert scale.value == peer.get_scale()


def _step(**changes: Any) -> TorchStep:
    model = tiny_model()
    return TorchStep(
        model, tiny_objective(), trainable_of(model), tiny_spec(precision="fp16", **changes), torch.float16
    )


def test_a_step_is_close_to_float32_and_tells_true_numbers() -> None:
    model, packs = tiny_model(), [one_pack(tiny_rows(6))]
    exact = TorchStep(model, tiny_objective(), trainable_of(model), tiny_spec()).run(packs, 1e-2)
    outcome = _step().run(packs, 1e-2)
    assert outcome.loss_sum != exact.loss_sum, "the arithmetic was another"
    assert outcome.loss_sum == pytest.approx(exact.loss_sum, rel=1e-2)
    assert outcome.grad_norm == pytest.approx(exact.grad_norm, rel=2e-2)


def test_an_overflow_changes_no_weight_and_halves_the_scale() -> None:
    step, packs = _step(), [one_pack(tiny_rows(6))]
    step.restore({**step.tensors(), "loss_scale/value": torch.tensor(2.0**40)})
    before = {name: tensor.clone() for name, tensor in step.tensors().items() if name.startswith("weight/")}
    outcome = step.run(packs, 1e-2)
    after = step.tensors()
    assert outcome.skipped == "overflow" and outcome.grad_norm == 0.0
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert after["loss_scale/value"] == 2.0**39
    while step.run(packs, 1e-2).skipped:
        pass
    assert not torch.equal(step.tensors()["weight/lm_head.weight"], before["weight/lm_head.weight"])


def test_a_gradient_that_overflows_without_a_scale_is_refused() -> None:
    step = _step()
    step.restore({**step.tensors(), "loss_scale/value": torch.tensor(2.0**-10)})
    with torch.no_grad():
        for name, weight in step._trainable.items():
            if name.endswith(("down_proj.weight", "up_proj.weight")):
                weight.mul_(3e4)
    with pytest.raises(Refused, match="is not finite, and the step was not taken"):
        step.run([one_pack(tiny_rows(6))], 1e-2)


def test_a_resumed_run_is_bit_equal_scale_included(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "GROWTH_STEPS", 2)
    how: dict[str, Any] = {"dropout": 0.1, "dev": [], "autocast": torch.float16}
    spec = tiny_spec(precision="fp16")
    whole = tiny_run(tmp_path / "whole", spec, **how)
    tiny_run(tmp_path / "run", spec, deadline_s=0.0, **how)
    resumed = tiny_run(tmp_path / "run", spec, resume=True, **how)
    last = [(run.adapter.parent / "training.safetensors").read_bytes() for run in (whole, resumed)]
    assert last[0] == last[1] and [r.skipped for r in whole.history] == [r.skipped for r in resumed.history]


@pytest.mark.parametrize(
    ("base", "precision", "loaded", "autocast"),
    [
        (None, "bf16", "bf16", None),
        (None, "fp32", "fp32", None),
        (None, "fp16", "fp32", torch.float16),
        ("fp32", "bf16", "fp32", torch.bfloat16),
        ("fp32", "fp16", "fp32", torch.float16),
        ("bf16", "fp32", "bf16", None),
    ],
)
def test_words_for_precision(base: Any, precision: Any, loaded: str, autocast: torch.dtype | None) -> None:
    spec = TrainSpec(base=base, precision=precision)
    assert (base_precision(spec), autocast_of(spec)) == (loaded, autocast)


@pytest.mark.parametrize("wrong", [{"precision": "fp8"}, {"precision": "fp16", "base": "bf16"}])
def test_a_wrong_precision_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"precision|fp16"):
        TrainSpec(**wrong)


def test_settings_without_effect_are_told() -> None:
    told: list[Any] = []
    before = torch.backends.cuda.matmul.fp32_precision
    with float32_products(TrainSpec(tf32=True, precision="fp16"), "cpu", told.append):
        assert torch.backends.cuda.matmul.fp32_precision == before
    assert ["float16 is slow" in told[0]["text"], "no effect here" in told[1]["text"]] == [True, True]
