"""The on-disk format of PEFT for LoRA: `adapter_config.json` and `adapter_model.safetensors`.

What is written loads in plain PEFT, and what PEFT writes is read, if LoRA says it all: alpha and rank patterns and
rsLoRA's scale are honoured; DoRA, biases, saved modules and the like are refused, since leaving them out would change
the model. Every tensor must fit; pickles are never opened. Nothing is injected here.

    plan, tensors = read_peft(Path("adapter"), model)
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from luthier.adapters.base import FACTS, facts_of
from luthier.adapters.targets import leaf_names
from luthier.ground.errors import BadInput, Refused
from luthier.ground.files import write_json
from luthier.ground.results import Provenance
from luthier.ground.spec import AdapterSpec
from luthier.models.folder import read_json_file, tensor_shapes
from luthier.models.load import provenance_of
from luthier.models.presets import hub_name

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Settings of PEFT that change what an adapter computes and that a plain LoRA has not.
_UNSUPPORTED = (
    "use_dora", "modules_to_save", "layer_replication", "megatron_config", "trainable_token_indices", "lora_bias",
    "use_qalora", "alora_invocation_tokens", "arrow_config", "target_parameters", "exclude_modules",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """Rank and scale of each layer that gets an update, by module path."""

    ranks: dict[str, int]
    scales: dict[str, float]
    dropout: float


def write_peft(
    folder: Path,
    model: PreTrainedModel,
    tensors: Mapping[str, Tensor],
    spec: AdapterSpec,
    provenance: Provenance | None,
    template_key: str | None,
) -> None:
    """Write an adapter into `folder`, which exists. `tensors` are named `<module path>.lora_A` and `.lora_B`."""
    paths = [name.removesuffix(".lora_A") for name in tensors if name.endswith(".lora_A")]
    weights = {f"{_PREFIX}{name}.weight": weight.contiguous().cpu() for name, weight in tensors.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        "base_model_name_or_path": hub_name(provenance.name) if provenance else None,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": spec.dropout,
        "target_modules": leaf_names(model, paths),
        "bias": "none",
        "inference_mode": True,
        "fan_in_fan_out": False,
        "use_rslora": False,
    }
    write_json(folder / CONFIG, config)
    write_json(folder / FACTS, facts_of("lora", spec, provenance, template_key))


def read_peft(folder: Path, model: PreTrainedModel) -> tuple[Plan, dict[str, Tensor]]:
    """Return the plan and the tensors (`<module path>.lora_A` / `.lora_B`, float32) of an adapter that fits `model`.

    Raises:
        BadInput: a file is missing or damaged, or a tensor has the wrong name, shape, or a value that is not finite.
        Refused: it needs what is not supported, it is a pickle, or it belongs to another base model.
    """
    config = _read_config(folder)
    refuse_other_base(folder, model)
    weights = _weights_file(folder)
    shapes = {_own_name(key, weights): shape for key, shape in tensor_shapes(weights).items()}
    plan = _plan(shapes, config, model, weights)
    tensors = {_own_name(key, weights): weight.to(torch.float32) for key, weight in load_file(weights).items()}
    for name, weight in tensors.items():
        if not torch.isfinite(weight).all():
            raise BadInput(f"the tensor {name} holds NaN or infinity", where=str(weights), fix="use another checkpoint")
    return plan, tensors


def refuse_other_base(folder: Path, model: PreTrainedModel) -> None:
    """Refuse an adapter that was trained on other base weights than the model's, where both are known by hash."""
    here = provenance_of(model)
    facts = read_json_file(folder / FACTS) if (folder / FACTS).is_file() else {}
    there = facts.get("base") or {}
    if here is None or not isinstance(there, dict) or not there.get("sha256") or there["sha256"] == here.sha256:
        return
    raise Refused(
        f"this adapter was trained on {there.get('name')} ({there.get('origin')}), not on {here.name} ({here.origin})",
        where=str(folder),
        fix="load the base model that it was trained on",
    )


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise BadInput(f"there is no {CONFIG} here", where=str(folder), fix="name an adapter's folder")
    config, place = read_json_file(folder / CONFIG), str(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        raise Refused(f"the adapter is of PEFT's type {config.get('peft_type')}; only LORA is read", where=place)
    for key in _UNSUPPORTED:
        if config.get(key):
            raise Refused(
                f"the adapter uses {key}, which is not supported", where=place, fix="use a plain LoRA adapter"
            )
    if config.get("bias", "none") != "none":
        raise Refused("the adapter trains biases, which is not supported", where=place, fix="use a plain LoRA adapter")
    if config.get("fan_in_fan_out"):
        raise Refused("the adapter is for layers that are not nn.Linear (fan_in_fan_out)", where=place)
    return config


def _weights_file(folder: Path) -> Path:
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    if (folder / "adapter_model.bin").is_file():
        raise Refused(
            "the adapter is there only as a pickle (adapter_model.bin), which can run code and is never opened",
            where=str(folder),
            fix="save it again as safetensors",
        )
    raise BadInput(f"there is no {WEIGHTS} here", where=str(folder))


def _own_name(key: str, file: Path) -> str:
    """base_model.model.<path>.lora_A.weight -> <path>.lora_A."""
    match = re.fullmatch(re.escape(_PREFIX) + r"(.+\.lora_[AB])\.weight", key)
    if match is None:
        raise BadInput(f'the tensor "{key}" is not one of a LoRA adapter', where=str(file))
    return match[1]


def _plan(shapes: Mapping[str, tuple[int, ...]], config: dict[str, Any], model: PreTrainedModel, file: Path) -> Plan:
    modules = dict(model.named_modules())
    ranks: dict[str, int] = {}
    scales: dict[str, float] = {}
    for path in dict.fromkeys(name.rsplit(".", 1)[0] for name in shapes):
        layer = modules.get(path)
        if not isinstance(layer, nn.Linear):
            raise BadInput(
                f"the adapter has weights for {path}, which is no linear layer of this model", where=str(file)
            )
        rank = int(_by_pattern(path, config.get("rank_pattern"), config.get("r")))
        alpha = float(_by_pattern(path, config.get("alpha_pattern"), config.get("lora_alpha")))
        _check_shapes(path, shapes, layer, rank, file)
        ranks[path] = rank
        scales[path] = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    if not ranks:
        raise BadInput("the adapter holds no tensors", where=str(file))
    return Plan(ranks, scales, float(config.get("lora_dropout") or 0.0))


def _by_pattern(path: str, patterns: dict[str, Any] | None, default: Any) -> Any:
    """PEFT's rule: a pattern means a path that ends with it."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", path):
            return value
    return default


def _check_shapes(path: str, shapes: Mapping[str, tuple[int, ...]], layer: nn.Linear, rank: int, file: Path) -> None:
    wanted = {"lora_A": (rank, layer.in_features), "lora_B": (layer.out_features, rank)}
    for part, shape in wanted.items():
        found = shapes.get(f"{path}.{part}")
        if found != shape:
            what = "is missing" if found is None else f"has the shape {list(found)} where {list(shape)} is wanted"
            raise BadInput(
                f"the tensor {path}.{part} {what}", where=str(file), fix="use the base model that it was made for"
            )
