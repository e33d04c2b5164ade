"""LoRA: does nothing at first, trains what it should, switches off, comes off without a trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from luthier.adapters.base import adapter_off, remove_adapter
from luthier.adapters.lora import LORA, LoraLinear, lora_layers
from luthier.ground.errors import BadInput
from luthier.ground.spec import AdapterSpec

MakeModel = Callable[..., PreTrainedModel]


def logits(model: PreTrainedModel, ids_BT: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(ids_BT).logits
    return out


def shake(model: PreTrainedModel, seed: int = 1) -> None:
    """Give every adapter weight a random value, as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for weight in LORA.trainable(model).values():
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_adapter_changes_nothing_and_a_removed_one_leaves_no_trace(
    make_model: MakeModel, ids_BT: Tensor, dtype: torch.dtype
) -> None:
    model = make_model(dtype=dtype)
    before, names = logits(model, ids_BT), [name for name, _ in model.named_modules()]
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    LORA.inject(model, AdapterSpec(rank=4), seed=0)
    assert torch.equal(logits(model, ids_BT), before)
    shake(model)
    assert not torch.equal(logits(model, ids_BT), before)
    with adapter_off(model):
        assert torch.equal(logits(model, ids_BT), before)
        with adapter_off(model):
            assert torch.equal(logits(model, ids_BT), before)
        assert torch.equal(logits(model, ids_BT), before)
    assert not torch.equal(logits(model, ids_BT), before)
    remove_adapter(model)
    assert torch.equal(logits(model, ids_BT), before)
    assert [name for name, _ in model.named_modules()] == names
    assert not any(isinstance(module, LoraLinear) for module in model.modules())
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert {type(module) for path, module in model.named_modules() if path.endswith("q_proj")} == {nn.Linear}


def test_the_same_seed_gives_the_same_start(make_model: MakeModel) -> None:
    starts = []
    for seed in (7, 7, 8):
        model = make_model()
        LORA.inject(model, AdapterSpec(rank=4), seed=seed)
        starts.append({name: weight.clone() for name, weight in LORA.trainable(model).items()})
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    a = [name for name in starts[0] if name.endswith("lora_A")]
    assert not any(torch.equal(starts[0][name], starts[2][name]) for name in a)
    assert len({starts[0][name].sum().item() for name in a}) == len(a)  # every layer its own
    assert all(bool((starts[0][name] == 0).all()) for name in starts[0] if name.endswith("lora_B"))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6)])
def test_the_written_out_product_has_the_gradient_of_the_plain_one(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = LoraLinear(nn.Linear(6, 4, bias=bias).double().requires_grad_(False), 3, 1.7, 0.0)
    layer.lora_A, layer.lora_B = (nn.Parameter(torch.randn_like(w).double()) for w in (layer.lora_A, layer.lora_B))
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    inputs = (x, layer.lora_A, layer.lora_B)
    plain = nn.functional.linear(x, layer.weight, layer.bias) + layer._update(x)
    torch.testing.assert_close(layer(x), plain)
    wanted = torch.autograd.grad(plain.square().sum(), inputs)
    found = torch.autograd.grad(layer(x).square().sum(), inputs)
    torch.testing.assert_close(found, wanted)


def test_only_the_adapter_is_trained_in_float32(make_model: MakeModel, ids_BT: Tensor) -> None:
    model = make_model(dtype=torch.bfloat16)
    LORA.inject(model, AdapterSpec(rank=4), seed=0)
    shake(model)
    model(ids_BT).logits.float().square().sum().backward()
    trained = LORA.trainable(model)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in trained.values()}
    assert all(p.dtype == torch.float32 and p.grad is not None and p.grad.abs().sum() > 0 for p in trained.values())


def test_dropout_acts_only_in_training_and_on_the_update_alone(make_model: MakeModel, ids_BT: Tensor) -> None:
    model = make_model()
    LORA.inject(model, AdapterSpec(rank=4, dropout=0.5), seed=0)
    base = logits(model, ids_BT)
    model.train()
    assert torch.equal(logits(model, ids_BT), base)  # B is zero: dropping the input of the update changes nothing
    shake(model)
    assert not torch.equal(logits(model, ids_BT), logits(model, ids_BT))
    model.eval()
    assert torch.equal(logits(model, ids_BT), logits(model, ids_BT))
    assert {layer.dropout for layer in lora_layers(model).values()} == {0.5}


def test_under_autocast_it_computes_in_bfloat16_with_gradients() -> None:
    torch.manual_seed(0)
    layer = LoraLinear(nn.Linear(16, 8).requires_grad_(False), 4, 1.5, 0.0)
    layer.lora_A, layer.lora_B = (nn.Parameter(torch.randn_like(weight)) for weight in (layer.lora_A, layer.lora_B))
    x = torch.randn(5, 16)
    exact = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), exact, rtol=0.02, atol=0.1)
    out.float().sum().backward()
    assert layer.lora_A.grad is not None and layer.lora_A.grad.dtype == torch.float32


def test_a_model_carries_one_adapter(make_model: MakeModel) -> None:
    model = make_model()
    LORA.inject(model, AdapterSpec(rank=4), seed=0)
    with pytest.raises(BadInput, match="carries an adapter already"):
        LORA.inject(model, AdapterSpec(rank=4), seed=0)
    remove_adapter(model)
    remove_adapter(model)
    with pytest.raises(BadInput, match="carries no LoRA"):
        LORA.trainable(model)
    LORA.inject(model, AdapterSpec(rank=4), seed=0)
    assert len(LORA.trainable(model)) == 2 * 7 * 2
