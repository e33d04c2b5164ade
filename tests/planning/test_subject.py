"""Models without memory, of every kind and size, from their configs alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from luthier.models.quantized import parameter_count
from luthier.planning.subject import meta_model, read_config

CONFIGS = Path(__file__).parent / "configs"

PARAMETERS = {  # in billions, as published or as summed from the shapes of the published weights
    "bart-large": 0.4063,
    "deepseek-v3": 671.03,
    "flan-t5-base": 0.2476,
    "gemma-3-4b": 3.880,
    "gpt2": 0.1244,
    "llama-2-13b": 13.016,
    "llama-3.1-405b": 405.85,
    "llama-3.1-70b": 70.554,
    "mixtral-8x7b": 46.703,
    "olmoe-1b-7b": 6.919,
    "qwen3-30b-a3b": 30.532,
    "smollm2-135m": 0.1345,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_kind_of_model_has_its_weights_and_no_memory(name: str) -> None:
    config, _ = read_config(f"{name}.json", CONFIGS)
    model = meta_model(config, torch.bfloat16)
    assert parameter_count(model) / 1e9 == pytest.approx(PARAMETERS[name], rel=1e-3)
    assert all(weight.is_meta and not weight.requires_grad for weight in model.parameters())
    assert not model.training
    assert {weight.dtype for weight in model.parameters()} <= {torch.bfloat16, torch.float32}
