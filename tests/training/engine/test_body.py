"""Life with the fast body: when it is not taken and why, that it sees every change, and that it leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_training import LORA, OBJECTIVE, loss_and_gradients, rows, shared_pack, training
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from luthier.adapters.base import adapter_off, get_kind
from luthier.adapters.lora import lora_layers
from luthier.ground.spec import AdapterSpec, TrainSpec
from luthier.models.packed import hidden_at, hidden_states
from luthier.models.segments import Segments
from luthier.models.vocabulary import VocabularyExtension
from luthier.rows.packing import one_pack
from luthier.training.engine import body as body_module
from luthier.training.engine import families
from luthier.training.engine.body import engine_for, fast_body
from luthier.training.step import TorchStep
from models.tiny_models import tiny_model, tiny_tokenizer

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
TRAINED = pytest.mark.parametrize("trained", ["lora", "full", "norms and biases"])


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def assert_bit_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


# -- leaving no trace ------------------------------------------------------------------------------------------------


@DTYPES
@TRAINED
@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3", "granite"])
def test_afterwards_the_weights_are_what_they_were_in_memory_of_their_own(
    family: str, trained: str, dtype: torch.dtype
) -> None:
    with training(family, trained, dtype) as (model, weights):
        before, training_before = values(model), model.training
        names = list(dict(model.named_modules()))
        with fast_body(model) as engine:
            assert engine.name == "fast"
            loss_and_gradients(model, weights, one_pack(rows()))
            assert_bit_equal(values(model), before)
        assert_bit_equal(values(model), before)
        assert list(dict(model.named_modules())) == names and model.training is training_before
        for name, weight in model.named_parameters():
            assert weight.is_contiguous(), name
            assert weight.untyped_storage().nbytes() == weight.numel() * weight.element_size(), f"{name} is shared"


@DTYPES
@TRAINED
def test_the_model_can_be_saved_meanwhile(trained: str, dtype: torch.dtype, tmp_path: Path) -> None:
    with training("qwen2", trained, dtype) as (model, _), fast_body(model) as engine:
        assert engine.name == "fast"
        if trained == "norms and biases":
            model.save_pretrained(tmp_path / "saved")
        else:
            spec = LORA if trained == "lora" else AdapterSpec(kind="full")
            get_kind(spec.kind).save(model, tmp_path / "saved", spec, None)
        if trained == "lora":
            again = tiny_model("qwen2").to(dtype)
            get_kind("lora").load(again, tmp_path / "saved")
        else:
            again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=dtype)
        assert_bit_equal(values(again), values(model))


def test_a_body_that_differs_from_the_model_is_put_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    real = families._heads
    monkeypatch.setattr(families, "_heads", lambda config, layer: replace(real(config, layer), scale=0.5))
    with training("llama", "lora") as (model, weights):
        before = values(model)
        wanted = loss_and_gradients(model, weights, one_pack(rows()))[0]
        with engine_for(model, TrainSpec(precision="fp32")) as engine:
            assert engine.name == "general" and "the fast body differs from it" in engine.reason
            assert loss_and_gradients(model, weights, one_pack(rows()))[0] == wanted
            assert all(weight.is_contiguous() for weight in model.parameters())
        assert_bit_equal(values(model), before)


def test_a_model_that_is_built_in_another_way_is_put_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*_: object) -> None:
        raise AttributeError("'Attention' object has no attribute 'scaling'")

    with training("llama", "lora") as (model, _):
        before = values(model)
        monkeypatch.setattr(families, "_heads", other)
        with engine_for(model, TrainSpec(precision="fp32")) as engine:
            assert engine.name == "general" and "no attribute 'scaling'" in engine.reason
            assert all(weight.is_contiguous() for weight in model.parameters())
        assert_bit_equal(values(model), before)


# -- when it is not taken --------------------------------------------------------------------------------------------


def _dropout_of_lora(model: PreTrainedModel) -> None:
    get_kind("lora").inject(model, AdapterSpec(rank=2, dropout=0.1), seed=0)


def _switched_off(model: PreTrainedModel) -> None:
    get_kind("lora").inject(model, AdapterSpec(rank=2), seed=0)
    get_kind("lora").switch(model, False)


def _attention_dropout(model: PreTrainedModel) -> None:
    model.config.attention_dropout = 0.1


def _another_activation(model: PreTrainedModel) -> None:
    for layer in model.base_model.layers:
        layer.mlp.act_fn = nn.ReLU()


class _Scaled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2.0


def _another_linear_layer(model: PreTrainedModel) -> None:
    mlp = model.base_model.layers[1].mlp
    mlp.up_proj = _Scaled(64, 48, bias=False)


REASONS: dict[str, tuple[str, Callable[[PreTrainedModel], None], str]] = {
    "family": ("gpt2", lambda model: None, "the family gpt2 has none"),
    "dropout of lora": ("llama", _dropout_of_lora, "LoRA dropout is set"),
    "switched off": ("llama", _switched_off, "the adapter is switched off"),
    "attention dropout": ("llama", _attention_dropout, "the model has dropout"),
    "activation": ("llama", _another_activation, "its activation is ReLU"),
    "linear layer": ("llama", _another_linear_layer, "model.layers.1.mlp.up_proj is a _Scaled"),
}


@pytest.mark.parametrize("why", REASONS)
@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
def test_otherwise_the_models_own_modules_compute_and_say_why(why: str, checkpointing: str) -> None:
    family, change, reason = REASONS[why]
    model = tiny_model(family)
    change(model)
    wanted = loss_and_gradients(model, dict(model.named_parameters()), one_pack(rows()))
    with engine_for(model, TrainSpec(precision="fp32", checkpointing=checkpointing)) as engine:
        assert engine.name == "general" and engine.reason.startswith(reason), engine
        assert ("checkpointing: full" in engine.reason) == (checkpointing != "none")
        found = loss_and_gradients(model, dict(model.named_parameters()), one_pack(rows()))
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [({"is_sharded": True}, "its weights lie in shards"), ({"autocast": torch.bfloat16}, "differ in precision")],
)
def test_the_caller_may_know_a_reason(arguments: dict[str, object], reason: str) -> None:
    with engine_for(tiny_model(), TrainSpec(), **arguments) as engine:  # type: ignore[arg-type]
        assert engine.name == "general" and reason in engine.reason


# -- seeing every change ---------------------------------------------------------------------------------------------


def run_of(trained: str, dtype: torch.dtype, is_fast: bool, family: str = "qwen2", **spec: object) -> list[float]:
    """Losses of a few steps, a restored one among them, and at last one of the model with other weights."""
    made = TrainSpec(**{"precision": "fp32", "learning_rate": 1e-2, **spec})  # type: ignore[arg-type]
    with training(family, trained, dtype) as (model, weights):
        step = TorchStep(model, OBJECTIVE, weights, made)
        start = {name: tensor.clone() for name, tensor in step.tensors().items()}
        packs = [one_pack(rows()[:4]), one_pack(rows()[4:])]
        reason = families.why_not if is_fast else (lambda _: "it is not wanted")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(body_module, "why_not", reason)
            with engine_for(model, made) as engine:
                assert engine.name == ("fast" if is_fast else "general")
                losses = [step.run(packs, 1e-2).loss_sum for _ in range(5)]
                step.restore_weights(start)
                losses.append(step.evaluate(packs)[0])
                with torch.no_grad():
                    for weight in weights.values():
                        weight.mul_(0.9)
                losses.append(step.evaluate(packs)[0])
    return losses


@TRAINED
@pytest.mark.parametrize("family", ["qwen2", "gemma3_text", "granite"])
def test_steps_restored_weights_and_changes_by_hand_are_seen(trained: str, family: str) -> None:
    fast, general = (run_of(trained, torch.float32, is_fast, family) for is_fast in (True, False))
    assert fast == pytest.approx(general, rel=1e-4)
    assert fast[5] == pytest.approx(fast[0], rel=1e-5), "the restored weights give the first loss again"
    assert len({round(loss, 2) for loss in fast}) == 6, "and every other change gives another one"


@TRAINED
def test_in_bfloat16_too(trained: str) -> None:
    fast, general = (run_of(trained, torch.bfloat16, is_fast) for is_fast in (True, False))
    assert fast == pytest.approx(general, rel=2e-2) and fast[5] == pytest.approx(fast[0], rel=1e-3)


def test_layers_take_turns() -> None:
    """Which weights have gradients changes from step to step, and the others stay bit for bit."""
    fast, general = (run_of("full", torch.float32, is_fast, "llama", layers_in_turn=1) for is_fast in (True, False))
    assert fast == pytest.approx(general, rel=1e-5)


def test_weights_are_updated_in_backward() -> None:
    changes = {"optimizer_in_backward": True, "max_grad_norm": None}
    fast, general = (run_of("full", torch.float32, is_fast, "llama", **changes) for is_fast in (True, False))
    assert fast == pytest.approx(general, rel=1e-4)


def test_a_switched_off_adapter_has_no_effect() -> None:
    with training("llama", "lora") as (model, weights):
        with torch.no_grad():
            on = OBJECTIVE.loss(model, one_pack(rows()))[0].item()
        with fast_body(model):
            for _ in range(2):
                with torch.no_grad(), adapter_off(model):
                    off = OBJECTIVE.loss(model, one_pack(rows()))[0].item()
                assert loss_and_gradients(model, weights, one_pack(rows()))[0] == pytest.approx(on, rel=1e-5)
        with torch.no_grad(), adapter_off(model):
            assert off == pytest.approx(OBJECTIVE.loss(model, one_pack(rows()))[0].item(), rel=1e-5) != on


def test_rounded_masters_are_the_weights_that_answer() -> None:
    with training("llama", "full", torch.bfloat16) as (model, masters), fast_body(model):
        step = TorchStep(model, OBJECTIVE, masters, TrainSpec())
        losses = [step.run([shared_pack()], 1e-2).loss_sum for _ in range(3)]
        step.evaluate([shared_pack()])
        assert losses[2] < losses[1] < losses[0]
        for name, weight in model.named_parameters():
            assert torch.equal(weight, masters[name].bfloat16()), name


# -- edges -----------------------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("wanted", [[], [0], [11], [4, 4, 2], list(range(12))])
def test_it_answers_at_any_tokens(wanted: list[int], dtype: torch.dtype) -> None:
    model = tiny_model("gemma2").to(dtype)
    ids_T, positions_T = torch.arange(3, 15), torch.cat([torch.arange(7), torch.arange(5)])
    wanted_N = torch.tensor(wanted, dtype=torch.long)
    with torch.no_grad():
        expected_ND = hidden_states(model, ids_T, positions_T, Segments((7, 5)))[wanted_N]
        with fast_body(model) as engine:
            found_ND = hidden_at(model, ids_T, positions_T, Segments((7, 5)), wanted_N)
    assert engine.name == "fast" and found_ND.shape == (len(wanted), 64)
    rtol = 1e-4 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found_ND, expected_ND, rtol=rtol, atol=rtol)


def test_a_second_backward_is_refused_not_wrong() -> None:
    with training("llama", "lora") as (model, _), fast_body(model):
        loss, _ = OBJECTIVE.loss(model, one_pack(rows()))
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="only once"):
            loss.backward()


def test_one_way_of_computing_is_the_other_to_the_bit() -> None:
    """What is computed again is what was: checkpointing changes memory, not results."""
    with training("llama", "lora", torch.bfloat16) as (model, weights):
        found = []
        for checkpointing in ("none", "selective", "full"):
            with fast_body(model, checkpointing):  # type: ignore[arg-type]
                found.append(loss_and_gradients(model, weights, shared_pack()))
    for loss, gradients in found[1:]:
        assert loss == found[0][0]
        assert_bit_equal(gradients, found[0][1])


def test_every_linear_layer_of_a_block_is_taken() -> None:
    """A family whose blocks hold more than attention and MLP would train less than is asked for."""
    for family in families.FAMILIES:
        with training(family, "lora") as (model, weights):
            blocks = families.blocks_of(model)
            taken = [id(part) for block in blocks for part in block.parameters]
            assert sorted(taken) == sorted(map(id, weights.values())), family
            assert len(lora_layers(model)) * 2 == len(taken)


# -- new tokens ------------------------------------------------------------------------------------------------------


def test_new_tokens_leave_the_fast_body_and_the_models_precision() -> None:
    """Their rows are float32; a model computes in the precision of its first weight."""
    model = tiny_model("llama").to(torch.bfloat16)
    extension = VocabularyExtension(tiny_tokenizer(), ["ab", "ba"])
    extension.apply(model, seed=0)
    get_kind("lora").inject(model, LORA, seed=0)
    assert model.dtype == next(model.parameters()).dtype == torch.bfloat16
    with engine_for(model, TrainSpec()) as engine:
        assert (engine.name, engine.reason) == ("fast", "")
