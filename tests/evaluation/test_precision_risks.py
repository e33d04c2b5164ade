"""Ranges and lost updates against brute-force rounding, gradients against float16 itself, real optimizers' steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from evaluation.precision_rows import make_rows
from luthier.adapters.base import get_kind
from luthier.evaluation import precision_risks
from luthier.evaluation.precision_risks import (
    GradientRange,
    born_in,
    first_update,
    lost_updates,
    state_precision,
    stored_adapter,
    training_risks,
    weights_range,
)
from luthier.evaluation.precisions import narrowed
from luthier.ground.spec import AdapterSpec, TrainSpec
from luthier.models.find import find_model
from luthier.objectives.base import ObjectiveContext
from luthier.objectives.sft import SupervisedFinetuning
from luthier.rows.packing import one_pack
from luthier.training.optimizers.base import OptimizerKind, make_optimizer
from luthier.training.optimizers.updates import Updates
from models.tiny_models import tiny_folder, tiny_model

SFT = SupervisedFinetuning(ObjectiveContext(None))  # the rows are encoded already
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def stays(weight: Tensor, update: float, dtype: torch.dtype) -> int:
    """Numbers that brute-force rounding to nearest leaves where they were."""
    kept = weight.to(dtype)
    moved = (kept.double() + kept.double().sign() * update).float().to(dtype)
    return int(((moved == kept) & (kept != 0)).sum())


def scattered(size: int, low: float, high: float) -> Tensor:
    random = np.random.default_rng(0)
    values = 10 ** random.uniform(low, high, size) * random.choice([-1, 1], size)
    values[:10] = 0.0
    return torch.from_numpy(values).float()


@pytest.mark.parametrize("update", [3.3e-6, 1.7e-4, 0.0123])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lost_updates_are_those_of_brute_force_rounding(update: float, precision: str) -> None:
    weight = scattered(20_000, -4, 2).view(100, 200)
    lost = lost_updates(weight, update, precision)
    assert lost == stays(weight, update, DTYPES[precision])
    assert 0 < lost < weight.numel()


def test_lost_updates_of_many_pieces_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = scattered(1000, -3, 0)
    whole = lost_updates(weight, 1e-4, "bf16")
    monkeypatch.setattr(precision_risks, "PIECE", 7)
    assert lost_updates(weight, 1e-4, "bf16") == whole


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "adafactor"])
def test_a_first_update_is_that_of_the_real_optimizer(optimizer: str) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(64, 128) * 0.05)
    before, spec = weight.detach().clone(), TrainSpec(optimizer=optimizer, learning_rate=2e-3)
    wanted = first_update(weight, spec)
    weight.grad = torch.randn(64, 128).sign() * 0.3
    make_optimizer({"w": weight}, spec).step()
    moved = (weight.detach() - before).abs()
    assert moved.median().item() == pytest.approx(wanted, rel=0.02)


def test_full_finetuning_without_masters_loses_what_rounding_would_lose() -> None:
    model = narrowed(tiny_model(), torch.bfloat16)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    spec = TrainSpec(adapter=AdapterSpec(kind="full", masters="none"), learning_rate=2e-4, precision="bf16")
    risks = training_risks(model, SFT, (), spec)
    total = sum(weight.numel() for weight in before.values())
    wanted = sum(stays(weight, 2e-4, torch.bfloat16) for weight in before.values())
    assert (risks.trained, risks.trained_as, risks.state_as) == (total, "bf16", "fp32")
    assert risks.lost_in_bf16 == pytest.approx(wanted / total) and 0.3 < risks.lost_in_bf16 < 1
    assert risks.update == pytest.approx(2e-4) and risks.gradients is None
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_an_update_that_is_called_lost_is_lost_by_nearest_and_kept_by_stochastic_rounding() -> None:
    weight = nn.Parameter(torch.full((64, 64), 0.5, dtype=torch.bfloat16))
    spec = TrainSpec(learning_rate=1e-4, max_grad_norm=None)
    assert lost_updates(weight, 1e-4, "bf16") == weight.numel()
    updates = Updates({"w": weight}, spec)
    for _ in range(20):
        weight.grad = torch.full_like(weight, -1.0)
        updates.step(1e-4, 1.0)
    assert weight.float().mean().item() == pytest.approx(0.5 + 20 * 1e-4, abs=3e-4)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_masters_are_float32_and_the_model_is_left_as_it_was(kind: str) -> None:
    model = narrowed(tiny_model(), torch.bfloat16).requires_grad_(False)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    risks = training_risks(model, SFT, make_rows(), TrainSpec(adapter=AdapterSpec(kind=kind)))
    assert risks.trained_as == "fp32" and risks.gradients is not None and risks.gradients.count > 0
    after = dict(model.named_parameters())
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert not model.training and not any(w.requires_grad or w.grad is not None for w in after.values())
    assert not any(module._forward_hooks for module in model.modules())
    get_kind(kind).inject(model, AdapterSpec(kind=kind), seed=0)  # nothing is in the way


def test_gradients_are_counted_as_float16_would_keep_them() -> None:
    gradient = scattered(50_000, -12, 5)
    ranges = GradientRange(scale=64.0)
    ranges.add(gradient[:20_000])
    ranges.add(gradient[20_000:])
    scaled = gradient[gradient != 0] * 64
    half = scaled.half().numpy()
    assert ranges.count == len(half) and ranges.largest == pytest.approx(scaled.abs().max().item())
    assert ranges.zero == pytest.approx((half == 0).mean())
    assert ranges.too_large == pytest.approx(np.isinf(half).mean(), abs=1e-4)
    assert ranges.subnormal == pytest.approx((np.abs(half) < 2.0**-14).mean(), abs=1e-4)
    assert 0.05 < ranges.zero < ranges.subnormal < 1 and ranges.too_large > 0.01


def test_the_real_gradient_of_a_weight_is_among_them() -> None:
    model, rows = tiny_model(), make_rows(2)
    ranges = training_risks(model, SFT, rows, TrainSpec(adapter=AdapterSpec(kind="full"), precision="fp16")).gradients
    for weight in model.parameters():
        weight.requires_grad_(True)
    SFT.loss(model, one_pack(rows))[0].backward()
    gradients = [weight.grad for weight in model.parameters()]
    assert ranges is not None and ranges.scale == 64
    assert ranges.largest >= 64 * max(gradient.abs().max().item() for gradient in gradients) * (1 - 1e-4)
    assert ranges.count > sum(int((gradient != 0).sum()) for gradient in gradients), "activations count too"


def test_the_states_of_built_in_optimizers_are_fine_enough_and_a_coarse_one_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [state_precision(name) for name in ("adamw", "adamw8bit", "adafactor")] == ["fp32"] * 3
    coarse = OptimizerKind(
        lambda groups, spec: torch.optim.AdamW(groups),
        lambda shape, device: {"step": torch.zeros(()), "exp_avg": torch.zeros(tuple(shape), dtype=torch.bfloat16)},
    )
    monkeypatch.setattr(precision_risks, "OPTIMIZERS", {"coarse": coarse})
    assert state_precision("coarse") == "bf16"


def test_a_second_moment_in_bfloat16_never_shrinks() -> None:
    """Why such a state is too coarse."""
    moment, fine = torch.tensor(1.0, dtype=torch.bfloat16), torch.tensor(1.0)
    for _ in range(1000):
        moment, fine = moment * 0.999, fine * 0.999
    assert moment.item() == 1.0 and fine.item() < 0.4


def test_a_stored_adapter_says_how_coarse_it_is(tmp_path: Path) -> None:
    a, b = scattered(1000, -3, 0), scattered(500, -3, 0)
    save_file({"a": a.to(torch.bfloat16), "b": b.to(torch.bfloat16)}, tmp_path / "adapter_model.safetensors")
    stored = stored_adapter(tmp_path, 1e-4)
    wanted = stays(a, 1e-4, torch.bfloat16) + stays(b, 1e-4, torch.bfloat16)
    assert (stored.stored_as, stored.numbers, stored.shares) == ("bf16", 1500, {"bf16": 1.0})
    assert stored.lost == pytest.approx(wanted / 1500) and 0.1 < stored.lost < 0.9
    save_file({"a": a, "b": b}, tmp_path / "adapter_model.safetensors")
    assert stored_adapter(tmp_path, 1e-4).stored_as == "fp32" and stored_adapter(tmp_path, 1e-4).lost == 0


def test_the_range_of_weights() -> None:
    model = tiny_model()
    with torch.no_grad():
        for weight in model.parameters():
            weight.clamp_(min=0.01)
        flat = model.get_submodule("model.layers.0.mlp.up_proj").weight.view(-1)
        flat[:6] = torch.tensor([70_000.0, -80_000.0, 1e-5, -1e-5, 1e-8, 0.0])
    seen = weights_range(model)
    total = sum(weight.numel() for weight in model.parameters())
    assert (seen.weights, seen.largest, seen.largest_at) == (total, 80_000.0, "model.layers.0.mlp.up_proj.weight")
    assert seen.too_large == pytest.approx(2 / total) and seen.subnormal == pytest.approx(3 / total)
    assert seen.zero == pytest.approx(1 / total) and seen.born == ""


def test_weights_that_all_lie_on_the_grid_of_bf16_were_born_there() -> None:
    model = narrowed(narrowed(tiny_model(), torch.bfloat16), torch.float32)
    assert weights_range(model).born == "bf16"
    halves = narrowed(narrowed(tiny_model(), torch.float16), torch.float32)
    assert weights_range(halves).born == ""


@pytest.mark.parametrize(
    ("stored", "config", "born"),
    [
        (torch.float32, {}, "fp32"),
        (torch.float32, {"dtype": "bfloat16"}, "bf16"),
        (torch.float32, {"torch_dtype": "bfloat16"}, "bf16"),
        (torch.float32, {"text_config": {"dtype": "bfloat16"}}, "bf16"),
        (torch.float16, {"dtype": "bfloat16"}, "fp16"),  # the file itself has less than bf16's range
        (torch.bfloat16, {"dtype": "float32"}, "bf16"),
    ],
)
def test_files_say_what_a_checkpoint_was_born_in(
    stored: torch.dtype, config: dict[str, object], born: str, tmp_path: Path
) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    narrowed(tiny_model(), stored).save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    written.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps({**written, **config}))
    assert born_in(find_model(str(folder))) == born
