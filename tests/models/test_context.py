"""A longer window put into a model and taken away: config, module, folder, and what refuses it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.tiny_models import tiny_model
from transformers import AutoModelForCausalLM, BertConfig, GPT2Config, LlamaConfig, LlamaForCausalLM, T5Config

from luthier.ground.errors import BadInput
from luthier.ground.spec import ContextSpec, TrainSpec
from luthier.models.context import CONTEXT, ContextExtension, extended, refuse_longer_rows
from luthier.models.packed import hidden_states
from luthier.models.segments import Segments

METHODS = ("linear", "ntk", "yarn", "longrope", "llama3", "base")
WINDOW = 48
TOKENS = 3 * WINDOW


def short_model(**changes: Any) -> LlamaForCausalLM:
    """A model with a window of 48 tokens, whose attention depends on positions."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=WINDOW, initializer_range=0.4, **changes,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(TOKENS)[None] % 37
    with torch.no_grad():
        return model(ids, use_cache=False).logits


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_folder_gives_the_same_logits_beyond_the_old_window(method: Any, tmp_path: Path) -> None:
    model = short_model()
    before = logits(model)
    ContextExtension(ContextSpec(factor=4, method=method)).apply(model, seed=0)
    wanted = logits(model)
    assert not torch.allclose(wanted[:, WINDOW:], before[:, WINDOW:], atol=1e-2)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.max_position_embeddings == 4 * WINDOW
    torch.testing.assert_close(logits(loaded), wanted)


@pytest.mark.parametrize("method", METHODS)
def test_taken_away_it_leaves_no_trace(method: Any) -> None:
    model = short_model()
    before, config, module = logits(model), copy.deepcopy(model.config.to_dict()), model.model.rotary_emb
    extension = ContextExtension(ContextSpec(factor=4, method=method))
    extension.apply(model, seed=0)
    extension.remove(model)
    assert torch.equal(logits(model), before)
    assert model.config.to_dict() == config
    assert model.model.rotary_emb is module
    extension.remove(model)  # harmless


@pytest.mark.parametrize("method", METHODS)
def test_loaded_from_an_adapters_folder_it_is_the_same(method: Any, tmp_path: Path) -> None:
    model = short_model()
    extension = ContextExtension(ContextSpec(factor=4, method=method))
    extension.apply(model, seed=0)
    extension.save(model, tmp_path)
    other = short_model()
    ContextExtension(ContextSpec(factor=2)).load(other, tmp_path)  # what was saved counts
    assert torch.equal(logits(other), logits(model))
    assert other.config.to_dict() == model.config.to_dict()


def test_packed_rows_are_read_with_the_new_positions() -> None:
    model = short_model()
    ContextExtension(ContextSpec(factor=4)).apply(model, seed=0)
    ids = torch.arange(TOKENS) % 37
    with torch.no_grad():
        wanted = model.model(ids[None], use_cache=False).last_hidden_state[0]
        packed = hidden_states(
            model, torch.cat([ids[:5], ids]), torch.cat([torch.arange(5), torch.arange(TOKENS)]), Segments((5, TOKENS))
        )
    torch.testing.assert_close(packed[5:], wanted, atol=1e-4, rtol=1e-4)


def test_short_and_long_rows_of_a_pack_have_the_same_positions() -> None:
    """LongRoPE in transformers changes all rows' frequencies when one is long; with equal lists nothing changes."""
    model = short_model()
    ContextExtension(ContextSpec(factor=4, method="longrope")).apply(model, seed=0)
    ids = torch.arange(TOKENS) % 37
    with torch.no_grad():
        alone = model.model(ids[None, :9], use_cache=False).last_hidden_state[0]
        packed = hidden_states(
            model, torch.cat([ids[:9], ids]), torch.cat([torch.arange(9), torch.arange(TOKENS)]), Segments((9, TOKENS))
        )
    torch.testing.assert_close(packed[:9], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "mistral", "gemma2", "olmo2", "phi3", "granite", "gpt_neox"])
def test_families(family: str) -> None:
    model = tiny_model(family)
    before = copy.deepcopy(model.config.to_dict())
    few = family in ("mistral", "phi3")  # all their pairs turn often within the window, so ramps leave them alone
    for method in ("linear", "ntk") if few else METHODS:
        extension = ContextExtension(ContextSpec(factor=2, method=method))
        extension.apply(model, seed=0)
        assert model.config.max_position_embeddings == 2 * before["max_position_embeddings"]
        extension.remove(model)
    assert model.config.to_dict() == before


def test_layers_that_look_back_a_little_keep_their_positions() -> None:
    model = tiny_model("gemma3_text")
    local = dict(model.config.rope_parameters["sliding_attention"])
    own = model.config.max_position_embeddings
    ContextExtension(ContextSpec(factor=2, method="linear")).apply(model, seed=0)
    assert model.config.rope_parameters["sliding_attention"] == local
    assert model.config.rope_parameters["full_attention"]["factor"] == 4.0  # 2 of the base, times 2
    assert model.config.max_position_embeddings == 2 * own


@pytest.mark.parametrize(
    ("rope", "spec", "factor", "window"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12}, {"factor": 2}, 8.0, 96),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12},
         {"factor": 16, "original": 12}, 16.0, 192),
        ({"rope_type": "linear", "factor": 4.0}, {"factor": 2}, 8.0, 96),
        ({"rope_type": "default"}, {"factor": 8, "original": 24}, 8.0, 192),
    ],
)  # fmt: skip
def test_a_base_that_is_scaled_is_scaled_from_the_window_of_its_pretraining(
    rope: dict[str, Any], spec: dict[str, Any], factor: float, window: int
) -> None:
    config = LlamaConfig(max_position_embeddings=WINDOW, rope_parameters={"rope_theta": 10_000.0, **rope})
    found = extended(config, ContextSpec(**spec))
    assert (found.factor, found.window) == (factor, window)
    assert found.values["rope_parameters"]["factor"] == factor
    assert found.values["rope_parameters"]["rope_theta"] == 10_000.0


def test_a_window_must_grow() -> None:
    config = LlamaConfig(max_position_embeddings=2048)
    with pytest.raises(BadInput, match="would not grow: it has 2,048 positions, and 512 × 4 is 2,048"):
        extended(config, ContextSpec(factor=4, original=512))


def test_rows_beyond_the_scaled_window_are_refused() -> None:
    config = LlamaConfig(max_position_embeddings=512)
    refuse_longer_rows(config, ContextSpec(factor=4), TrainSpec(max_length=2048))
    with pytest.raises(BadInput, match=r"rows of 2,049 tokens reach beyond the scaled window of 2,048 .*512 × 4"):
        refuse_longer_rows(config, ContextSpec(factor=4), TrainSpec(max_length=2049))


@pytest.mark.parametrize("config", [GPT2Config(), BertConfig(), T5Config()])
def test_architectures_without_rotary_positions_are_refused(config: Any) -> None:
    with pytest.raises(BadInput, match=f"the architecture {config.model_type} has no rotary positions"):
        extended(config, ContextSpec(factor=4))


def test_kinds_that_cannot_be_scaled_are_refused() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    with pytest.raises(BadInput, match="rotary positions of the kind dynamic cannot be scaled"):
        extended(LlamaConfig(rope_parameters=rope), ContextSpec(factor=4))


def test_a_scaling_that_changes_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = short_model()
    before = model.config.to_dict()
    made = model.model.rotary_emb
    monkeypatch.setattr("luthier.models.context._made_anew", lambda old, _config: copy.deepcopy(old))
    with pytest.raises(BadInput, match="this scaling changes none of the rotary positions"):
        ContextExtension(ContextSpec(factor=4)).apply(model, seed=0)
    assert model.config.to_dict() == before
    assert model.model.rotary_emb is made


def test_it_works_without_memory() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, vocab_size=40))
    extension = ContextExtension(ContextSpec(factor=4))
    extension.apply(model, seed=0)
    assert next(model.model.rotary_emb.buffers()).is_meta
    assert model.config.max_position_embeddings == 4 * 2048
    extension.remove(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"before": {}}, "made for a base model with other positions"),
        ({"config": {"max_position_embeddings": 96}}, "not the description of a window"),
        ({"config": {"rope_parameters": {"rope_theta": "x", "rope_type": "yarn"}, "max_position_embeddings": 96}},
         "not the description of a window"),
        ({"config": {"torch_dtype": "x", "rope_parameters": {}, "max_position_embeddings": 96}},
         "not the description of a window"),
    ],
)  # fmt: skip
def test_damaged_descriptions_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = short_model()
    extension = ContextExtension(ContextSpec(factor=4))
    extension.apply(model, seed=0)
    extension.save(model, tmp_path)
    facts = json.loads((tmp_path / CONTEXT).read_text())
    (tmp_path / CONTEXT).write_text(json.dumps({**facts, **change}))
    with pytest.raises(BadInput, match=message):
        extension.load(short_model(), tmp_path)
    with pytest.raises(BadInput, match=r"there is no context\.json"):
        extension.load(short_model(), tmp_path / "nowhere")
