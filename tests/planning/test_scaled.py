"""A deep model predicted from shallow ones agrees with its whole trace."""

from __future__ import annotations

from typing import Any

import pytest
from tests.planning.small import small_config, some_packs
from transformers import PretrainedConfig

from luthier.ground.plan_result import TERMS
from luthier.ground.spec import TrainSpec
from luthier.planning.predict import Prediction, predict_training
from luthier.planning.predict_inference import predict_inference
from luthier.planning.scaled import cut, depth_of, predict_quickly, predict_scaled, shallow_depths
from luthier.planning.workload import made_up

SPECS: dict[str, dict[str, Any]] = {
    "lora": {},
    "full": {"adapter": {"kind": "full"}},
    "nf4": {"base": "nf4"},
    "lora, full checkpointing": {"checkpointing": "full"},
    "lora, selective checkpointing": {"checkpointing": "selective"},
    "full, full checkpointing": {"adapter": {"kind": "full"}, "checkpointing": "full"},
    "full, selective checkpointing": {"adapter": {"kind": "full"}, "checkpointing": "selective"},
    "nf4, full checkpointing": {"base": "nf4", "checkpointing": "full"},
}


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gemma2", "mixtral"])
def test_scaled_training_agrees_with_the_whole_trace(model_type: str, spec: str) -> None:
    def predict(config: PretrainedConfig) -> Prediction:
        # On a GPU the allocator wastes next to nothing, so that terms can be compared.
        return predict_training(config, TrainSpec(**SPECS[spec]), [some_packs()] * 2, baseline_bytes=0, device="cuda")

    config = small_config(model_type)
    whole, scaled = predict(config), predict_scaled(predict, config)
    agree(whole, scaled)
    assert scaled.trainable_parameters == whole.trainable_parameters
    assert scaled.work.flops == pytest.approx(whole.work.flops, rel=0.01)


def agree(whole: Prediction, scaled: Prediction) -> None:
    assert scaled.live_bytes == pytest.approx(whole.live_bytes, rel=0.01)
    assert scaled.parameters == whole.parameters
    for term in TERMS[:-1]:
        name = f"{term}_bytes"
        assert getattr(scaled.terms, name) == pytest.approx(getattr(whole.terms, name), abs=0.01 * whole.peak_bytes)


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "olmoe"])
def test_scaled_answering_agrees_with_the_whole_trace(model_type: str) -> None:
    def predict(config: PretrainedConfig) -> Any:
        return predict_inference(
            config, precision="bf16", base=None, seq=256, batch=2, baseline_bytes=0, device="cuda", new_tokens=150
        )

    config = small_config(model_type)
    whole, scaled = predict(config), predict_scaled(predict, config)
    agree(whole, scaled)
    assert scaled.cache_bytes == whole.cache_bytes
    assert scaled.prompt_work.flops == pytest.approx(whole.prompt_work.flops, rel=1e-6)
    assert scaled.work.flops == pytest.approx(whole.work.flops, rel=1e-6)


def test_scaled_encoder_decoder_agrees_with_the_whole_trace() -> None:
    def predict(config: PretrainedConfig) -> Prediction:
        packs = made_up(32, 2, TrainSpec(), has_encoder=True).heaviest
        return predict_training(config, TrainSpec(), [packs] * 2, baseline_bytes=0, device="cuda")

    config = small_t5()
    whole, scaled = predict(config), predict_scaled(predict, config)
    agree(whole, scaled)


def small_t5() -> PretrainedConfig:
    from transformers import AutoConfig

    return AutoConfig.for_model(
        "t5", d_model=64, d_kv=16, d_ff=128, num_layers=12, num_decoder_layers=12, num_heads=4, vocab_size=512
    )


def test_on_a_cpu_the_whole_peak_is_near_too() -> None:
    def predict(config: PretrainedConfig) -> Prediction:
        spec = TrainSpec(adapter={"kind": "full"})  # type: ignore[arg-type]  # pydantic reads it
        return predict_training(config, spec, [some_packs()] * 2, baseline_bytes=0)

    config = small_config("llama", num_hidden_layers=20, hidden_size=256, intermediate_size=640)
    assert predict_scaled(predict, config).peak_bytes == pytest.approx(predict(config).peak_bytes, rel=0.05)


# -- patterns ------------------------------------------------------------------------------------------------------


def test_shallow_models_have_whole_periods_of_the_layers() -> None:
    config = small_config("gemma3_text", num_hidden_layers=34)  # five of six layers see a window; 34 = 5 x 6 + 4
    assert shallow_depths(config, (3, 5)) == (10, 16)
    shallow = cut(config, 10)
    assert shallow.num_hidden_layers == 10
    assert shallow.layer_types == config.layer_types[:10]
    assert config.num_hidden_layers == 34 and len(config.layer_types) == 34


def test_layers_before_the_pattern_are_kept() -> None:
    config = small_config("deepseek_v3")  # two dense layers, then mixtures
    assert shallow_depths(config, (3, 5)) == (3, 5)
    config = small_config("qwen3_moe")  # the first one by its number
    few, more = shallow_depths(config, (3, 5)) or (0, 0)
    assert cut(config, few).mlp_only_layers == [0] and more < depth_of(config)


def test_alternating_layers_of_llama_4() -> None:
    config = small_config("llama4_text", num_hidden_layers=24)
    few, more = shallow_depths(config, (3, 5)) or (0, 0)
    assert (more - few) % 4 == 0
    assert len(cut(config, few).layer_types) == few


def test_without_a_pattern_the_whole_model_is_traced() -> None:
    config = small_config("llama", num_hidden_layers=4)
    assert shallow_depths(config, (3, 5)) is None
    seen: list[int] = []

    def predict(config: PretrainedConfig) -> Prediction:
        seen.append(config.num_hidden_layers)
        return predict_training(config, TrainSpec(), [some_packs(1, 16)], baseline_bytes=0)

    predict_scaled(predict, config)
    assert seen == [4]


def test_only_deep_models_are_scaled_quickly() -> None:
    seen: list[int] = []

    def predict(config: PretrainedConfig) -> Prediction:
        seen.append(config.num_hidden_layers)
        return predict_training(config, TrainSpec(), [some_packs(1, 16)], baseline_bytes=0)

    config = small_config("llama", num_hidden_layers=8)
    predict_quickly(predict, config)
    assert seen == [8]
    predict_quickly(predict, config, traced_in_full=7)
    assert seen == [8, 3, 5]
