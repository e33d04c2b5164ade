"""PEFT's on-disk format: equal logits in plain PEFT, and the other way round; whatever does not fit is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from luthier.adapters.base import load_adapter, remove_adapter
from luthier.adapters.lora import LORA
from luthier.adapters.peft_format import write_peft
from luthier.ground.errors import BadInput, LuthierError, Refused
from luthier.ground.spec import AdapterSpec
from luthier.models.find import find_model
from luthier.models.load import load_model

MakeModel = Callable[..., PreTrainedModel]
SPEC = AdapterSpec(rank=4, alpha=12, dropout=0.1)


def logits(model: Any, ids_BT: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(ids_BT).logits
    return out


def shake(weights: list[Tensor]) -> None:
    generator = torch.Generator().manual_seed(5)
    for weight in weights:
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.2)


@pytest.fixture
def saved(tmp_path: Path, make_model: MakeModel) -> Path:
    """A trained adapter as Luthier saves it."""
    model = make_model()
    LORA.inject(model, SPEC, seed=0)
    shake(list(LORA.trainable(model).values()))
    LORA.save(model, tmp_path / "adapter", SPEC, None, template_key="abc")
    return tmp_path / "adapter"


def edit(folder: Path, **values: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)


@pytest.mark.parametrize("targets", ["all-linear", "attention", ("layers.1.mlp.up_proj", "q_proj")])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt_neox"])
def test_what_we_save_answers_the_same_in_plain_peft(
    make_model: MakeModel, ids_BT: Tensor, tmp_path: Path, family: str, targets: Any
) -> None:
    if family == "gpt_neox" and not isinstance(targets, str):
        targets = ("layers.1.mlp.dense_h_to_4h", "query_key_value")
    ours, spec = make_model(family), AdapterSpec(rank=4, alpha=12, targets=targets)
    base = logits(ours, ids_BT)
    LORA.inject(ours, spec, seed=0)
    shake(list(LORA.trainable(ours).values()))
    LORA.save(ours, tmp_path / "adapter", spec, None)
    theirs = PeftModel.from_pretrained(make_model(family), tmp_path / "adapter").eval()
    assert sum("lora_A" in name for name, _ in theirs.named_parameters()) * 2 == len(LORA.trainable(ours))
    torch.testing.assert_close(logits(theirs, ids_BT), logits(ours, ids_BT), rtol=1e-5, atol=1e-5)
    assert (logits(ours, ids_BT) - base).abs().max() > 1e-2


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj", "up_proj"], "use_rslora": True},
        {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 2, "layers.1.self_attn.q_proj": 3}},
        {"target_modules": ["q_proj", "v_proj"], "alpha_pattern": {"v_proj": 3}, "use_rslora": True},
    ],
)
def test_what_peft_saves_answers_the_same_here(
    make_model: MakeModel, ids_BT: Tensor, tmp_path: Path, settings: dict[str, Any]
) -> None:
    theirs = get_peft_model(make_model(), LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=10, **settings)).eval()
    shake([weight for name, weight in theirs.named_parameters() if "lora_" in name])
    theirs.save_pretrained(tmp_path / "adapter")
    ours = make_model()
    assert load_adapter(ours, tmp_path / "adapter") == "lora"
    torch.testing.assert_close(logits(ours, ids_BT), logits(theirs, ids_BT), rtol=1e-5, atol=1e-5)


def test_saving_and_loading_is_exact_and_says_what_it_is(make_model: MakeModel, saved: Path) -> None:
    model = make_model()
    load_adapter(model, saved)
    weights = load_file(saved / "adapter_model.safetensors")
    assert len(weights) == len(LORA.trainable(model)) == 28
    for name, weight in LORA.trainable(model).items():
        assert torch.equal(weights[f"base_model.model.{name}.weight"], weight)
    facts = json.loads((saved / "luthier.json").read_text())
    assert (facts["adapter_kind"], facts["template_key"]) == ("lora", "abc")
    assert facts["spec"]["alpha"] == 12 and facts["base"] is None
    assert json.loads((saved / "manifest.json").read_text())["files"].keys() >= {"adapter_config.json"}


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"layer_replication": [[0, 1]]},
        {"fan_in_fan_out": True},
        {"peft_type": "IA3"},
    ],
)
def test_settings_that_a_plain_lora_cannot_honour_are_refused(
    make_model: MakeModel, saved: Path, settings: dict[str, Any]
) -> None:
    edit(saved, **settings)
    with pytest.raises(Refused) as caught:
        load_adapter(make_model(), saved)
    assert "adapter_config.json" in str(caught.value) and "\n" not in str(caught.value)


def drop(weights: dict[str, Tensor]) -> None:
    del weights["base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"]


def add_unknown_layer(weights: dict[str, Tensor]) -> None:
    weights["base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"] = torch.zeros(4, 16)


def add_unknown_kind(weights: dict[str, Tensor]) -> None:
    weights["base_model.model.model.layers.1.mlp.up_proj.lora_magnitude_vector"] = torch.zeros(4)


def change_shape(weights: dict[str, Tensor]) -> None:
    weights["base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"] = torch.zeros(4, 17)


def change_rank(weights: dict[str, Tensor]) -> None:
    weights["base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"] = torch.zeros(5, 16)


def put_nan(weights: dict[str, Tensor]) -> None:
    weights["base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"][2, 2] = float("nan")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (drop, "up_proj.lora_B is missing"),
        (add_unknown_layer, r"layers\.9.*no linear layer"),
        (add_unknown_kind, "not one of a LoRA adapter"),
        (change_shape, r"shape \[4, 17\] where \[4, 16\]"),
        (change_rank, r"shape \[5, 16\] where \[4, 16\]"),
        (put_nan, "NaN or infinity"),
        (dict.clear, "no tensors"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_and_the_model_is_left_alone(
    make_model: MakeModel, ids_BT: Tensor, saved: Path, change: Callable[[dict[str, Tensor]], object], wanted: str
) -> None:
    model = make_model()
    before = logits(model, ids_BT)
    rewrite(saved, change)
    with pytest.raises(BadInput, match=wanted):
        load_adapter(model, saved)
    assert torch.equal(logits(model, ids_BT), before)
    LORA.inject(model, SPEC, seed=0)  # it carries no adapter


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.canary)!r}, 'w').close()",)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.safetensors"])
def test_a_pickle_is_never_opened(make_model: MakeModel, saved: Path, tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    (saved / "adapter_model.safetensors").unlink()
    (saved / name).write_bytes(pickle.dumps(Bomb(canary)))
    with pytest.raises(LuthierError, match=r"never opened|not a sound safetensors"):
        load_adapter(make_model(), saved)
    assert not canary.exists()


def test_an_adapter_of_another_base_is_refused(model_folder: Path, tmp_path: Path) -> None:
    base = load_model(find_model(str(model_folder)), "fp32")
    LORA.inject(base.model, SPEC, seed=0)
    LORA.save(base.model, tmp_path / "adapter", SPEC, base.provenance)
    remove_adapter(base.model)
    assert load_adapter(base.model, tmp_path / "adapter") == "lora"
    facts = json.loads((tmp_path / "adapter" / "luthier.json").read_text())
    assert facts["base"]["sha256"] == base.provenance.sha256
    facts["base"]["sha256"] = "0" * 64
    (tmp_path / "adapter" / "luthier.json").write_text(json.dumps(facts))
    remove_adapter(base.model)
    with pytest.raises(Refused, match="was trained on"):
        load_adapter(base.model, tmp_path / "adapter")


def test_presets_are_named_by_their_hub_id(make_model: MakeModel, tmp_path: Path, model_folder: Path) -> None:
    provenance = load_model(find_model(str(model_folder)), "fp32").provenance
    named = provenance.model_copy(update={"name": "smollm2-135m-instruct"})
    write_peft(tmp_path, make_model(), {}, SPEC, named, None)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_a_folder_without_an_adapter_is_told(make_model: MakeModel, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no adapter here"):
        load_adapter(make_model(), tmp_path)


def test_saving_into_a_draft_writes_beside_what_is_there(make_model: MakeModel, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("kept")
    model = make_model()
    LORA.inject(model, SPEC, seed=0)
    LORA.save(model, tmp_path, SPEC, None)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"other.txt", "adapter_config.json", "adapter_model.safetensors", "luthier.json"}
