"""The model that a plan is about, from its config alone, on tensors without memory.

`read_config` stands in `luthier.planning.config`. Nothing is initialised and no weight takes memory, so 405 billion
weights cost a second and some megabytes of Python objects.

    model = meta_model(read_config("smollm2-135m-instruct")[0], torch.bfloat16)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from luthier.ground.errors import BadInput
from luthier.models.architecture import LIBRARY, architecture_of
from luthier.models.packed import install_packed_attention
from luthier.models.quiet import no_progress_bars
from luthier.planning.config import config_from, is_encoder_decoder, read_config

__all__ = ["config_from", "is_encoder_decoder", "meta_model", "plannable", "read_config"]


def meta_model(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model without memory, frozen and in evaluation mode, as `load_model` would.

    A causal model asks Luthier's packed attention; another keeps transformers' own.
    """
    architecture = architecture_of(config)
    with torch.device("meta"), no_init_weights(), no_progress_bars():
        model: PreTrainedModel = LIBRARY[architecture].from_config(config, dtype=dtype)
    model.tie_weights()
    if getattr(config, "scale_decoder_outputs", True) is False or config.model_type == "mt5":
        _own_head(model)
    model.requires_grad_(False).eval()
    if architecture == "decoder":
        install_packed_attention(model)
    return model


@contextlib.contextmanager
def plannable(config: PretrainedConfig) -> Iterator[None]:
    """Tell in one sentence that a model's code cannot be run without memory, if that shows within the block."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
        raise BadInput(
            f'a "{config.model_type}" cannot be planned in this way, since its code does not run ({reason})',
            fix="choose another model, or another method",
        ) from error


def _own_head(model: PreTrainedModel) -> None:
    """Give the head a weight of its own.

    T5 1.1 and later (`tie_word_embeddings: false`), and mT5, have one in their files, and loading takes it; built from
    its config the model would be tied, as transformers overrides the key.
    """
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(torch.empty_like(head.weight), requires_grad=False)
