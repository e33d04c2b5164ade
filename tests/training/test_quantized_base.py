"""Training LoRA on a quantised base: the step passes the kit, the fast body agrees, a resumed run is bit-equal.

The reference is the same model with the rounded weights as plain numbers: quantising changes the base, nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_training import tiny_model, tiny_objective, tiny_rows, tiny_run, tiny_spec
from torch import nn
from transformers import PreTrainedModel

from luthier.adapters.base import adapter_off, get_kind, remove_adapter
from luthier.adapters.lora import LoraLinear, lora_layers
from luthier.ground.errors import Interrupted
from luthier.ground.spec import AdapterSpec, TrainSpec
from luthier.models.quantized import QuantizedLinear, QuantizedWeight, linear_paths, quantize_model
from luthier.objectives.base import Objective
from luthier.rows.packing import one_pack, tree_pack
from luthier.rows.types import Pack
from luthier.training.checkpoint import folder_of
from luthier.training.conformance import check_step
from luthier.training.engine.body import engine_for, fast_body
from luthier.training.engine.families import FAMILIES
from luthier.training.engine.projection import Projection
from luthier.training.precision import autocast_of, base_precision, base_quantized
from luthier.training.step import Step, TorchStep
from models.tiny_models import tiny_model as tiny_family

KINDS = pytest.mark.parametrize("kind", ["int8", "nf4"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
LORA = AdapterSpec(kind="lora", rank=3, alpha=6.0)
Result = tuple[float, dict[str, torch.Tensor]]


@contextlib.contextmanager
def lora_on(model: PreTrainedModel, spec: AdapterSpec = LORA) -> Iterator[dict[str, nn.Parameter]]:
    """Yield what is trained; B is not zero, which would hide the gradient of A."""
    get_kind("lora").inject(model.requires_grad_(False), spec, seed=0)
    generator = torch.Generator().manual_seed(1)
    for layer in lora_layers(model).values():
        layer.lora_B.data.normal_(0, 0.1, generator=generator)
    try:
        yield get_kind("lora").trainable(model)
    finally:
        remove_adapter(model)


def quantized_model(kind: str, family: str = "llama", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    model = tiny_family(family).to(dtype)
    quantize_model(model, kind)  # type: ignore[arg-type]
    return model


def plain_twin(model: PreTrainedModel, family: str) -> PreTrainedModel:
    """The model with the rounded weights as plain numbers."""
    twin = tiny_family(family).to(model.dtype)
    for path in linear_paths(twin):
        layer = model.get_submodule(path)
        assert isinstance(layer, QuantizedLinear)
        twin.get_submodule(path).weight.data = layer.quantized.dequantized()
    return twin


def result_of(model: PreTrainedModel, weights: dict[str, nn.Parameter], pack: Pack) -> Result:
    for weight in weights.values():
        weight.grad = None
    loss, _ = tiny_objective().loss(model, pack)
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in weights.items() if weight.grad is not None}


def assert_same(found: Result, wanted: Result, rtol: float) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=rtol)
    assert found[1].keys() == wanted[1].keys()
    one, other = (torch.cat([result[1][name].flatten() for name in wanted[1]]) for result in (found, wanted))
    assert float((one - other).norm() / other.norm()) <= rtol


# -- both engines ----------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("family", [*FAMILIES, "gpt_neox"])
def test_in_float32_both_engines_train_as_on_the_plain_twin(kind: str, family: str) -> None:
    model = quantized_model(kind, family)
    twin, pack = plain_twin(model, family), one_pack(tiny_rows(5))
    with lora_on(twin) as weights:
        wanted = result_of(twin, weights, pack)
    with lora_on(model) as weights:
        assert_same(result_of(model, weights, pack), wanted, 1e-6)
        if family not in FAMILIES:
            return
        for way in ({}, {"checkpointing": "selective"}, {"checkpointing": "full", "tile": 7}):
            with fast_body(model, **way) as engine:  # type: ignore[arg-type]
                assert engine.name == "fast", engine.sentence
                assert_same(result_of(model, weights, pack), wanted, 1e-5)


@KINDS
@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3"])
def test_in_bfloat16_the_fast_body_is_the_one_of_the_plain_twin_to_the_bit(kind: str, family: str) -> None:
    """The same numbers go into the same products, however long the matrix lives."""
    model = quantized_model(kind, family, torch.bfloat16)
    twin, rows = plain_twin(model, family), sorted(tiny_rows(6), key=lambda row: tuple(row.ids_T.tolist()))
    with lora_on(twin) as weights, fast_body(twin) as engine:
        assert engine.name == "fast", engine.sentence
        wanted = [result_of(twin, weights, pack) for pack in (one_pack(rows), tree_pack(rows))]
    with lora_on(model) as weights, fast_body(model) as engine:
        assert engine.name == "fast", engine.sentence
        found = [result_of(model, weights, pack) for pack in (one_pack(rows), tree_pack(rows))]
    for (loss, gradients), (loss_wanted, gradients_wanted) in zip(found, wanted, strict=True):
        assert loss == loss_wanted
        assert all(torch.equal(gradients[name], gradient) for name, gradient in gradients_wanted.items())


@KINDS
def test_in_bfloat16_the_general_engine_is_near(kind: str) -> None:
    model, pack = quantized_model(kind, dtype=torch.bfloat16), one_pack(tiny_rows(6))
    with lora_on(model) as weights:
        general = result_of(model, weights, pack)
        with fast_body(model):
            assert_same(result_of(model, weights, pack), general, 0.03)


@KINDS
def test_the_fast_body_holds_codes_and_one_matrix(kind: str) -> None:
    """No projection keeps numbers of its own: all make them in the same memory, which the largest decides."""
    model = quantized_model(kind, dtype=torch.bfloat16)
    with lora_on(model), fast_body(model) as engine:
        assert engine.body is not None
        halves = [half for block in engine.body._blocks for half in (block.attention, block.mlp)]
        projections = [part for half in halves for part in (half.inward, half.outward)]
        assert all(projection._kept is None for projection in projections)
        [scratch] = {id(projection._scratch): projection._scratch for projection in projections}.values()
        largest = max(projection.outputs * (projection.inputs + projection.rank) for projection in projections)
        assert scratch._memory is not None and scratch._memory.numel() == largest


def test_a_projection_may_hold_plain_and_quantised_layers() -> None:
    torch.manual_seed(0)
    plain, other = nn.Linear(16, 5).requires_grad_(False), nn.Linear(16, 3, bias=False).requires_grad_(False)
    quantized = QuantizedLinear.of(other, "int8")
    projection = Projection([plain, quantized])
    x_TX = projection.buffer(4)
    x_TX[:, :16] = torch.randn(4, 16)
    wanted = torch.cat([plain(x_TX[:, :16]), quantized(x_TX[:, :16])], 1)
    torch.testing.assert_close(projection.forward(x_TX), wanted)


# -- the adapter -----------------------------------------------------------------------------------------------------


@KINDS
@DTYPES
def test_the_adapter_comes_on_off_and_out_as_on_a_plain_base(kind: str, dtype: torch.dtype) -> None:
    model, ids = quantized_model(kind, "qwen2", dtype), torch.arange(3, 12)[None]
    twin = plain_twin(model, "qwen2")
    with torch.no_grad():
        base = model(ids).logits
        assert torch.equal(base, twin(ids).logits)
        with lora_on(model), lora_on(twin):
            changed = model(ids).logits
            assert torch.equal(changed, twin(ids).logits) and not torch.equal(changed, base)
            with adapter_off(model):
                assert torch.equal(model(ids).logits, base)
            assert {type(model.get_submodule(path)) for path in linear_paths(model)} == {LoraLinear}
        assert torch.equal(model(ids).logits, base)
    assert {type(model.get_submodule(path)) for path in linear_paths(model)} == {QuantizedLinear}


@KINDS
def test_codes_and_scales_move_and_are_found_under_an_adapter(kind: str) -> None:
    model = quantized_model(kind)
    before = {id(part) for part in model.modules() if isinstance(part, QuantizedWeight)}
    with lora_on(model):
        assert {id(part) for part in model.modules() if isinstance(part, QuantizedWeight)} == before
        model.to("meta")
        assert all(buffer.is_meta for buffer in model.buffers())


@KINDS
def test_dropout_under_an_adapter_has_the_gradient_of_the_plain_twin(kind: str) -> None:
    spec, pack = AdapterSpec(rank=2, dropout=0.5), one_pack(tiny_rows(4))
    model = quantized_model(kind)
    results = []
    for each in (model, plain_twin(model, "llama")):
        with lora_on(each.train(), spec) as weights:
            torch.manual_seed(5)
            results.append(result_of(each, weights, pack))
    assert_same(results[0], results[1], 1e-6)


@KINDS
def test_the_saved_adapter_loads_on_the_base_it_was_trained_on_and_on_a_plain_one(kind: str, tmp_path: Path) -> None:
    trained = quantized_model(kind)
    with lora_on(trained) as weights:
        values = {name: weight.detach().clone() for name, weight in weights.items()}
        get_kind("lora").save(trained, tmp_path / "adapter", LORA, None)
    for base in (quantized_model(kind), tiny_family("llama")):
        get_kind("lora").load(base, tmp_path / "adapter")
        found = get_kind("lora").trainable(base)
        assert found.keys() == values.keys() and all(torch.equal(found[name], values[name]) for name in values)
        remove_adapter(base)


# -- the step and the run --------------------------------------------------------------------------------------------


WAYS: dict[str, dict[str, Any]] = {
    "general": {"is_fast": False},
    "fast": {},
    "fast, blocks again": {"checkpointing": "full"},
    "fast in bf16": {"precision": "bf16"},
}


@KINDS
@pytest.mark.parametrize("way", WAYS)
def test_the_step_passes_the_kit(kind: str, way: str) -> None:
    changes = dict(WAYS[way])
    is_fast = changes.pop("is_fast", True)
    spec = tiny_spec(base=kind, weight_decay=0.01, **changes)
    dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32

    @contextlib.contextmanager
    def make(objective: Objective) -> Iterator[Step]:
        model = quantized_model(kind, dtype=dtype).requires_grad_(False)
        get_kind("lora").inject(model, spec.adapter, seed=0)
        trainable = get_kind("lora").trainable(model)
        try:
            if not is_fast:
                yield TorchStep(model, objective, trainable, spec)
                return
            with engine_for(model, spec) as engine:
                assert engine.name == "fast", engine.sentence
                yield TorchStep(model, objective, trainable, spec)
        finally:
            remove_adapter(model)

    check_step(make, tiny_objective(), tiny_rows(5), tolerance=2e-2 if spec.precision == "bf16" else 1e-5)


def lora_run(run: Path, kind: str, **more: Any) -> Any:
    """Train LoRA on a freshly quantised tiny model."""
    model = tiny_model()
    quantize_model(model, kind)  # type: ignore[arg-type]
    model.requires_grad_(False)
    get_kind("lora").inject(model, LORA, seed=0)
    try:
        return tiny_run(run, tiny_spec(base=kind), model=model, **more), get_kind("lora").trainable(model)
    finally:
        remove_adapter(model)


@KINDS
def test_a_resumed_run_ends_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    def stop(event: Any) -> None:
        if event["kind"] == "step" and event["step"] == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        lora_run(tmp_path / "run", kind, tell=stop)
    resumed, weights = lora_run(tmp_path / "run", kind, resume=True)
    whole, wanted = lora_run(tmp_path / "whole", kind)
    assert [record.loss for record in resumed.history] == [record.loss for record in whole.history]
    assert all(torch.equal(weight, wanted[name]) for name, weight in weights.items())
    files = [folder_of(tmp_path / run, whole.steps) / "adapter" / "weights.safetensors" for run in ("run", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert whole.total_parameters == sum(weight.numel() for weight in tiny_model().parameters()) + sum(
        weight.numel() for weight in wanted.values()
    )


# -- words -----------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"adapter": {"kind": "full"}}, r"kind: full trains the weights that base: {kind} quantises; set adapter.kind"),
        ({"precision": "fp16"}, r"base: {kind} needs precision: bf16 or fp32"),
        ({"strategy": "fsdp"}, r"base: {kind} has no weights that fsdp could shard; set strategy: ddp"),
    ],
)
def test_what_needs_whole_weights_is_refused(kind: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence.format(kind=kind)):
        TrainSpec(base=kind, **changes)  # type: ignore[arg-type]


@KINDS
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_other_weights_have_the_precision_of_the_arithmetic(kind: str, precision: str) -> None:
    spec = TrainSpec(base=kind, precision=precision)  # type: ignore[arg-type]
    assert (base_precision(spec), base_quantized(spec), autocast_of(spec)) == (precision, kind, None)
    assert base_quantized(TrainSpec()) is None and base_quantized(TrainSpec(base="fp32")) is None
