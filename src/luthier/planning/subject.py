"""The model that a plan is about, from its config alone, on tensors without memory.

    model = meta_model(read_config("smollm2-135m-instruct"), torch.bfloat16)
"""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from luthier.models.packed import install_packed_attention


def meta_model(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model without memory, frozen and in evaluation mode, as `load_model` would."""
    with torch.device("meta"), no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.tie_weights()
    model.requires_grad_(False).eval()
    install_packed_attention(model)
    return model
