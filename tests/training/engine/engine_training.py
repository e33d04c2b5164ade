"""Rows that begin alike, and tiny models of which something is trained, shared by the tests of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from luthier.adapters.base import get_kind, remove_adapter
from luthier.adapters.lora import lora_layers
from luthier.ground.spec import AdapterSpec
from luthier.objectives.base import ObjectiveContext
from luthier.objectives.sft import SupervisedFinetuning
from luthier.rows.packing import tree_pack
from luthier.rows.types import Encoded, Pack
from models.tiny_models import VOCABULARY, tiny_model

OBJECTIVE = SupervisedFinetuning(ObjectiveContext(None))  # rows come encoded
LORA = AdapterSpec(kind="lora", rank=3, alpha=6.0)  # an odd rank: the joined matrix rounds it up
Gradients = dict[str, Tensor]


def rows() -> list[Encoded]:
    """Rows of 3 to 39 tokens, sorted by ids; five begin alike up to their first target, three of them for longer."""
    generator = np.random.default_rng(0)
    common = generator.integers(3, VOCABULARY, 36)
    made = []
    for number, (shared, own) in enumerate([(17, 6), (34, 3), (34, 5), (17, 9), (34, 1), (0, 11), (0, 3), (0, 24)]):
        ids = np.concatenate([common[:shared], generator.integers(3, VOCABULARY, own)])
        places = np.arange(len(ids))
        made.append(Encoded(ids, (places >= shared) & (places % 3 > 0), f"train.jsonl:{number + 1}"))
    return sorted(made, key=lambda row: tuple(row.ids_T.tolist()))


def shared_pack() -> Pack:
    """All rows with their common beginnings once."""
    pack = tree_pack(rows())
    assert max(pack.parents) > 0 and len(pack) < sum(map(len, rows())), "beginnings of beginnings are shared too"
    return pack


@contextmanager
def training(family: str, trained: str, dtype: torch.dtype = torch.float32) -> Iterator[tuple[PreTrainedModel, dict]]:
    """Yield a model of which `trained` is trained, and what that is by name."""
    model = tiny_model(family).to(dtype).requires_grad_(False)
    if trained in ("lora", "lora of the last layer"):
        get_kind("lora").inject(model, LORA, seed=0)
        generator = torch.Generator().manual_seed(1)
        for layer in lora_layers(model).values():
            layer.lora_B.data.normal_(0, 0.1, generator=generator)  # zero would hide the gradient of A
        weights = get_kind("lora").trainable(model)
        if trained != "lora":
            for name in [name for name in weights if ".0." in name]:
                weights.pop(name).requires_grad_(False)
    elif trained == "full":
        get_kind("full").inject(model, AdapterSpec(kind="full"), seed=0)
        weights = get_kind("full").trainable(model)
    else:  # norms and biases
        weights = {name: weight for name, weight in model.named_parameters() if weight.ndim == 1}
        for weight in weights.values():
            weight.requires_grad_(True)
    try:
        yield model, weights
    finally:
        remove_adapter(model)


def loss_and_gradients(model: PreTrainedModel, weights: dict[str, nn.Parameter], pack: Pack) -> tuple[float, Gradients]:
    for weight in weights.values():
        weight.grad = None
    loss, _ = OBJECTIVE.loss(model, pack)
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in weights.items() if weight.grad is not None}
