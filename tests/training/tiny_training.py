"""A tiny model, tiny rows and a saver, shared by the tests of this room and by the processes that they kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from luthier.ground.spec import TrainSpec
from luthier.objectives.base import ObjectiveContext
from luthier.objectives.sft import SupervisedFinetuning
from luthier.rows.types import Encoded
from luthier.training.loop import train_rows
from luthier.training.progress import TrainOutcome

VOCABULARY = 30
torch.set_num_threads(1)  # tiny arrays: threads would only wait for each other


def tiny_model(dropout: float = 0.0) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        attention_dropout=dropout,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


def tiny_rows(rows: int, seed: int = 0) -> list[Encoded]:
    """Rows of 4 to 12 tokens; the second half of each is trained."""
    generator = np.random.default_rng(seed)
    encoded = []
    for number in range(rows):
        length = int(generator.integers(4, 13))
        ids = generator.integers(2, VOCABULARY, length)
        encoded.append(Encoded(ids, np.arange(length) >= length // 2, f"train.jsonl:{number + 1}"))
    return encoded


def tiny_objective() -> SupervisedFinetuning:
    return SupervisedFinetuning(ObjectiveContext(None))  # rows come encoded


def trainable_of(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def saver(model: nn.Module) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        save_file({name: value.detach() for name, value in trainable_of(model).items()}, folder / "weights.safetensors")

    return save


def tiny_spec(**changes: Any) -> TrainSpec:
    base = {"epochs": 3.0, "tokens_per_step": 30, "learning_rate": 1e-2, "precision": "fp32", "warmup": 0.2}
    return TrainSpec(**{**base, **changes})


def tiny_run(run: Path, spec: TrainSpec, *, dropout: float = 0.0, rows: int = 16, **more: Any) -> TrainOutcome:
    """Train a fresh tiny model in `run`."""
    model = more.pop("model", None) or tiny_model(dropout)
    dev = more.pop("dev", tiny_rows(4, seed=9))
    train = more.pop("train", tiny_rows(rows))
    return train_rows(
        model,
        more.pop("objective", tiny_objective()),
        train,
        dev,
        spec,
        run,
        trainable=trainable_of(model),
        save_adapter=more.pop("save_adapter", saver(model)),
        pack_tokens=more.pop("pack_tokens", 24),
        **more,
    )
