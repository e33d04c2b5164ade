"""All weights as an adapter: float32 masters, the base back bit for bit, saved as a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from luthier.adapters.base import ADAPTERS, adapter_off, get_kind, load_adapter, remove_adapter
from luthier.adapters.base_weights import BaseWeights
from luthier.adapters.full import FULL
from luthier.ground.errors import BadInput
from luthier.ground.spec import AdapterSpec
from luthier.models.find import find_model
from luthier.models.load import load_model

MakeModel = Callable[..., PreTrainedModel]
SPEC = AdapterSpec(kind="full")
DTYPES = [torch.float32, torch.bfloat16]


def logits(model: PreTrainedModel, ids_BT: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(ids_BT).logits
    return out


def train(model: PreTrainedModel, ids_BT: Tensor, steps: int = 3, lr: float = 1e-2, **how: bool) -> None:
    optimizer = torch.optim.AdamW(FULL.trainable(model).values(), lr=lr, weight_decay=0.0, **how)
    for _ in range(steps):
        for row in ids_BT:  # two packs for each step: gradients add up
            model(row[None]).logits.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_trains_switches_off_and_leaves_the_base_bit_for_bit(
    make_model: MakeModel, ids_BT: Tensor, dtype: torch.dtype
) -> None:
    model = make_model(dtype=dtype)
    before = logits(model, ids_BT)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    FULL.inject(model, SPEC, seed=0)
    assert torch.equal(logits(model, ids_BT), before)
    assert {weight.dtype for weight in FULL.trainable(model).values()} == {torch.float32}
    train(model, ids_BT)
    after = logits(model, ids_BT)
    assert not torch.equal(after, before) and model.dtype == dtype
    with adapter_off(model):
        assert torch.equal(logits(model, ids_BT), before)
    assert torch.equal(logits(model, ids_BT), after)
    remove_adapter(model)
    assert torch.equal(logits(model, ids_BT), before)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert not any(weight.requires_grad or weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("how", [{}, {"foreach": True}, {"fused": True}])
def test_updates_too_small_for_bfloat16_add_up_in_the_masters(
    make_model: MakeModel, ids_BT: Tensor, how: dict[str, bool]
) -> None:
    model = make_model(dtype=torch.bfloat16)
    FULL.inject(model, SPEC, seed=0)
    start = {name: weight.clone() for name, weight in FULL.trainable(model).items()}
    first = logits(model, ids_BT)
    train(model, ids_BT, steps=1, lr=1e-6, **how)
    moved = sum((weight != start[name]).float().mean().item() for name, weight in FULL.trainable(model).items())
    assert moved > 0.5 * len(start)  # most weights that have a gradient
    train(model, ids_BT, steps=30, lr=1e-3, **how)
    assert not torch.equal(logits(model, ids_BT), first)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, FULL.trainable(model)[name].to(torch.bfloat16)), name


def test_gradients_of_bfloat16_weights_reach_the_masters_in_full(make_model: MakeModel, ids_BT: Tensor) -> None:
    exact, rounded = make_model(), make_model(dtype=torch.bfloat16)
    for model in (exact, rounded):
        FULL.inject(model, SPEC, seed=0)
        for _ in range(2):
            model(ids_BT).logits.float().square().mean().backward()
    for name, master in FULL.trainable(rounded).items():
        wanted = FULL.trainable(exact)[name].grad
        assert master.grad is not None and wanted is not None and master.grad.dtype == torch.float32
        assert (master.grad - wanted).norm() < 0.05 * wanted.norm() + 1e-6, name
    assert all(weight.grad is None for weight in rounded.parameters())


def test_tied_embeddings_are_one_parameter(make_model: MakeModel, ids_BT: Tensor) -> None:
    model = make_model()
    FULL.inject(model, SPEC, seed=0)
    assert "lm_head.weight" not in FULL.trainable(model)
    train(model, ids_BT)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_saved_as_a_model_that_is_found_and_as_an_adapter_that_loads(
    model_folder: Path, tmp_path: Path, ids_BT: Tensor, precision: str
) -> None:
    base = load_model(find_model(str(model_folder)), precision)  # type: ignore[arg-type]
    before = logits(base.model, ids_BT)
    FULL.inject(base.model, SPEC, seed=0)
    train(base.model, ids_BT)
    after = logits(base.model, ids_BT)
    FULL.save(base.model, tmp_path / "tuned", SPEC, base.provenance)
    remove_adapter(base.model)
    assert torch.equal(logits(base.model, ids_BT), before)
    tuned = load_model(find_model(str(tmp_path / "tuned")), precision)  # type: ignore[arg-type]
    assert torch.equal(logits(tuned.model, ids_BT), after)
    assert tuned.tokenizer.chat_template == base.tokenizer.chat_template
    assert load_adapter(base.model, tmp_path / "tuned") == "full"
    assert torch.equal(logits(base.model, ids_BT), after)
    remove_adapter(base.model)
    assert torch.equal(logits(base.model, ids_BT), before)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda weights: weights.pop("model.norm.weight"), r"missing, such as model\.norm\.weight"),
        (
            lambda weights: weights.update({"model.norm.weight": torch.ones(17)}),
            r"model\.norm\.weight \[17\] does not fit",
        ),
        (lambda weights: weights.update({"model.norm.weight": torch.full((16,), float("inf"))}), "NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    model_folder: Path, ids_BT: Tensor, change: Callable[[dict[str, Tensor]], object], wanted: str
) -> None:
    loaded = load_model(find_model(str(model_folder)), "fp32")
    before = logits(loaded.model, ids_BT)
    weights = load_file(model_folder / "model.safetensors")
    change(weights)
    save_file(weights, model_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=wanted):
        FULL.load(loaded.model, model_folder)
    assert torch.equal(logits(loaded.model, ids_BT), before)


def test_what_is_switched_off_is_not_saved(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    FULL.inject(model, SPEC, seed=0)
    with adapter_off(model), pytest.raises(BadInput, match="switched off"):
        FULL.save(model, tmp_path / "x", SPEC, None)
    assert not (tmp_path / "x").exists()


def test_kinds_are_registered_by_name() -> None:
    assert {"full", "lora"} <= set(ADAPTERS.names())
    assert get_kind("full") is FULL
    with pytest.raises(BadInput, match=r'no adapter kind called "lorra".*lora'):
        get_kind("lorra")


def test_a_model_that_is_not_trained_as_a_whole_has_nothing_to_train(make_model: MakeModel) -> None:
    with pytest.raises(BadInput, match="not being trained as a whole"):
        FULL.trainable(make_model())


def test_without_masters_the_bfloat16_weights_themselves_are_trained(make_model: MakeModel, ids_BT: Tensor) -> None:
    model = make_model(dtype=torch.bfloat16)
    before = logits(model, ids_BT)
    FULL.inject(model, AdapterSpec(kind="full", masters="none"), seed=0)
    assert all(weight is model.get_parameter(name) for name, weight in FULL.trainable(model).items())
    train(model, ids_BT)
    after = logits(model, ids_BT)
    assert not torch.equal(after, before)
    with adapter_off(model):
        assert torch.equal(logits(model, ids_BT), before)
    assert torch.equal(logits(model, ids_BT), after)
    remove_adapter(model)
    assert torch.equal(logits(model, ids_BT), before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_base_is_read_again_instead_of_kept(model_folder: Path, ids_BT: Tensor, precision: str) -> None:
    model = load_model(find_model(str(model_folder)), precision).model  # type: ignore[arg-type]
    before = logits(model, ids_BT)
    base = BaseWeights.of(model, model_folder)
    assert base.files and not base.copies
    FULL.inject(model, SPEC, seed=0)
    train(model, ids_BT)
    remove_adapter(model)
    assert torch.equal(logits(model, ids_BT), before)


def test_a_base_that_is_not_in_its_folder_is_kept(model_folder: Path, ids_BT: Tensor) -> None:
    model = load_model(find_model(str(model_folder)), "fp32").model
    with torch.no_grad():
        model.get_parameter("model.norm.weight")[0] += 1
    before = logits(model, ids_BT)
    assert BaseWeights.of(model, model_folder).copies and BaseWeights.of(model, None).copies
    FULL.inject(model, SPEC, seed=0)
    train(model, ids_BT)
    remove_adapter(model)
    assert torch.equal(logits(model, ids_BT), before)


def test_a_base_that_was_changed_meanwhile_is_not_taken(model_folder: Path) -> None:
    model = load_model(find_model(str(model_folder)), "fp32").model
    base = BaseWeights.of(model, model_folder)
    (model_folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match="changed while it was in use"):
        base.put_into(model)


def test_masters_begin_with_the_digits_that_the_file_holds(model_folder: Path, ids_BT: Tensor) -> None:
    """The model was loaded in bfloat16 from float32; small updates then show in as many weights as they should."""
    model = load_model(find_model(str(model_folder)), "bf16").model
    before = logits(model, ids_BT)
    FULL.inject(model, SPEC, seed=0)
    masters = FULL.trainable(model)
    stored = load_file(next(iter(model_folder.glob("*.safetensors"))))
    assert all(torch.equal(masters[name], value) for name, value in stored.items() if name in masters)
    assert any(not torch.equal(value.bfloat16().float(), value) for value in stored.values()), "it has such digits"
    assert torch.equal(logits(model, ids_BT), before), "rounded, they are the weights that were loaded"
