"""A longer window for a model with rotary positions: an extension of the base model.

The rotary embedding is made anew from a changed config, in which the scaling stands in the form that transformers (and
vLLM) read: a model that is saved afterwards carries it in its `config.json`. Beside an adapter, `context.json` keeps
that part of the config, and loading puts it in again. Taking it away gives back module and config as they were. The
formulas stand in `luthier.models.rope`. With `shifted`, the model trains as in LongLoRA (`luthier.models.shifted`):
norms and embeddings are then trained too, and lie beside `context.json` as `context.safetensors`.

    window = ContextExtension(ContextSpec(factor=4)); window.apply(model, seed=0); window.remove(model)
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from luthier.ground.errors import BadInput
from luthier.ground.files import write_json
from luthier.ground.spec import ContextSpec, TrainSpec
from luthier.models.folder import read_json_file, tensor_shapes
from luthier.models.rope import SCALABLE, pretrained_window, scaled_rope
from luthier.models.shifted import shift, train_beside, unshift, weights_beside

CONTEXT, WEIGHTS = "context.json", "context.safetensors"
_KEYS = ("rope_parameters", "max_position_embeddings", "original_max_position_embeddings")
_LOCAL = "sliding_attention"  # layers that look back only a little way have nothing to scale


@dataclass(frozen=True)
class Extended:
    """What a longer window changes in a config.

    Attributes:
        values: keys of the config and their new values.
        original: the window before, in tokens.
        window: the window after.
        factor: the window after over the one that the model was pretrained with.
    """

    values: dict[str, Any]
    original: int
    window: int
    factor: float


@dataclass
class _State:
    """The way back: values of the config, rotary modules by their paths, weights by name."""

    values: dict[str, Any]
    modules: dict[str, nn.Module] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)


_STATES: weakref.WeakKeyDictionary[nn.Module, _State] = weakref.WeakKeyDictionary()


class ContextExtension:
    """The extension `context`.

    Args:
        beside: with `shifted`, train norms and embeddings beside the adapter, unless it trains every weight itself.
    """

    name = "context"

    def __init__(self, spec: ContextSpec, *, beside: bool = True) -> None:
        self.spec = spec
        self._beside = beside

    def apply(self, model: PreTrainedModel, *, seed: int) -> dict[str, nn.Parameter]:  # noqa: ARG002  # the protocol's
        """Scale the model's positions.

        Raises:
            BadInput: it has no rotary positions, or of a kind that cannot be scaled, or its window does not grow.
        """
        window = extended(model.config, self.spec)
        _put_in(model, window.values)
        if not self.spec.shifted:
            return {}
        shift(model, window.original)
        if not self._beside:
            return {}
        _keep_weights(model)
        return {f"{self.name}.{name}": master for name, master in train_beside(model).items()}

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Write `context.json`: the part of the config that makes the window, and what it was before."""
        state = _STATES[model]
        facts = {"method": self.spec.method, "config": _values_of(model.config), "before": state.values}
        write_json(folder / CONTEXT, facts)
        if state.weights:
            weights = {name: weight.detach().cpu().contiguous() for name, weight in _beside(model, state).items()}
            save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    @classmethod
    def saved(cls, folder: Path) -> ContextExtension | None:
        """Return the extension that lies in an adapter's folder, to be loaded; None if there is none."""
        if not (folder / CONTEXT).is_file():
            return None
        return cls(ContextSpec(factor=2.0))  # what it does stands in the folder

    def load(self, model: PreTrainedModel, folder: Path) -> None:
        """Scale the model's positions as it was saved."""
        place = folder / CONTEXT
        if not place.is_file():
            raise BadInput(f"there is no {CONTEXT} here", where=str(folder), fix="name an adapter with a longer window")
        facts = read_json_file(place)
        values, before = facts.get("config"), facts.get("before")
        if not isinstance(values, dict) or not isinstance(before, dict) or not _is_window(values):
            raise BadInput("this is not the description of a window", where=str(place), fix="train the adapter again")
        if _plain(before) != _plain(_values_of(model.config)):
            raise BadInput(
                "the longer window was made for a base model with other positions",
                where=str(place),
                fix="load the base model that it was made for",
            )
        _put_in(model, values)
        if (folder / WEIGHTS).is_file():
            _read_weights(model, folder / WEIGHTS)

    def remove(self, model: PreTrainedModel) -> None:
        """Give rotary modules, config and weights back."""
        state = _STATES.pop(model, None)
        if state is None:
            return
        unshift(model)
        with torch.no_grad():
            for name, weight in _beside(model, state).items():
                weight.copy_(state.weights[name])
        for path, module in state.modules.items():
            model.set_submodule(path, module)
        _set_values(model.config, state.values)


def extended(config: PretrainedConfig, spec: ContextSpec) -> Extended:
    """Return what a longer window changes in a model's config.

    The window grows by `factor` from `original`, by default the model's own. A model whose config is scaled already is
    scaled anew, from the window that it was pretrained with to the new one.

    Raises:
        BadInput: the model has no rotary positions, or of a kind that cannot be scaled, or its window does not grow.
    """
    rope = _rope_of(config)
    now = int(config.max_position_embeddings)
    original = spec.original or now
    window = round(original * spec.factor)
    if window <= now:
        raise BadInput(
            f"the window would not grow: it has {now:,} positions, and {original:,} × {spec.factor:g} is {window:,}",
            where="context.factor",
            fix="raise context.factor, or leave context.original out",
        )
    first = next(iter(_parts(rope).values()))
    is_scaled = first.get("rope_type", "default") != "default"
    pretrained = pretrained_window(first, now) if is_scaled else original
    changed = {
        name: scaled_rope(
            part,
            spec.method,
            window / pretrained,
            original=pretrained,
            size=_rotated(config, part),
            base=spec.rope_base,
        )
        for name, part in _parts(rope).items()
    }
    values = {
        "rope_parameters": changed.get("", {**rope, **changed}),
        "max_position_embeddings": window,
    }
    if hasattr(config, "original_max_position_embeddings"):  # Phi-3's own key, which goes before the other
        values["original_max_position_embeddings"] = pretrained
    return Extended(values, original, window, window / pretrained)


def refuse_longer_rows(config: PretrainedConfig, spec: ContextSpec, train: TrainSpec) -> None:
    """Refuse rows that reach beyond the scaled window.

    Raises:
        BadInput: `train.max_length` allows them, or one of the reasons of `extended`.
    """
    found = extended(config, spec)
    if train.max_length > found.window:
        raise BadInput(
            f"rows of {train.max_length:,} tokens reach beyond the scaled window of {found.window:,} positions "
            f"({found.original:,} × {spec.factor:g})",
            where="train.max_length",
            fix=f"set train.max_length: {found.window}, or raise context.factor",
        )


def _put_in(model: PreTrainedModel, values: Mapping[str, Any]) -> None:
    if model in _STATES:
        raise BadInput("the model has a longer window already", fix="remove it first")
    state = _State(copy.deepcopy(_values_of(model.config)))
    paths = _rotary_paths(model)
    if not paths:
        raise BadInput(
            f"the rotary positions of {model.config.model_type} are built in another way and cannot be scaled",
            where="context",
            fix="choose another model, or leave context out",
        )
    _set_values(model.config, values)
    _STATES[model] = state
    try:
        for path in paths:
            old = model.get_submodule(path)
            new = _made_anew(old, model.config)
            if _is_same(old, new):
                raise BadInput(
                    f"this scaling changes none of the rotary positions of {model.config.model_type}",
                    where="context.method",
                    fix="choose another method, such as ntk",
                )
            state.modules[path] = old
            model.set_submodule(path, new)
    except BaseException:
        ContextExtension.remove(_ANY, model)
        raise


def _beside(model: PreTrainedModel, state: _State) -> dict[str, nn.Parameter]:
    """Return the weights that are trained beside an adapter, by name."""
    return {name: weight for name, weight in model.named_parameters() if name in state.weights}


def _keep_weights(model: PreTrainedModel) -> None:
    _STATES[model].weights = {name: weight.detach().clone() for name, weight in weights_beside(model).items()}


def _read_weights(model: PreTrainedModel, file: Path) -> None:
    wanted = {name: tuple(weight.shape) for name, weight in weights_beside(model).items()}
    tensors = load_file(file) if tensor_shapes(file) == wanted else {}
    if not tensors or not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        ContextExtension.remove(_ANY, model)
        raise BadInput(
            "these norms and embeddings do not fit this model", where=str(file), fix="use the base model of the adapter"
        )
    _keep_weights(model)
    with torch.no_grad():
        for name, weight in weights_beside(model).items():
            weight.copy_(tensors[name])


def _rotary_paths(model: PreTrainedModel) -> list[str]:
    """Return the paths of the modules that turn positions into angles by the config."""
    return [
        path
        for path, module in model.named_modules()
        if type(module).__name__.endswith("RotaryEmbedding")
        and isinstance(getattr(module, "config", None), PretrainedConfig)
    ]


def _made_anew(old: nn.Module, config: PretrainedConfig) -> nn.Module:
    device = next(old.buffers()).device
    with torch.device("cpu"):  # its numbers are made on the processor, as when a model is loaded
        new: nn.Module = type(old)(config)
    return new.to(device).train(old.training)


def _is_same(old: nn.Module, new: nn.Module) -> bool:
    pairs = zip(old.buffers(), new.buffers(), strict=True)
    return all(a.shape == b.shape and not a.is_meta and torch.equal(a, b) for a, b in pairs)


def _rope_of(config: PretrainedConfig) -> dict[str, Any]:
    rope = getattr(config, "rope_parameters", None)
    if not isinstance(rope, dict) or not _parts(rope) or not getattr(config, "max_position_embeddings", None):
        raise BadInput(
            f"the architecture {config.model_type} has no rotary positions, so its window cannot be scaled",
            where="context",
            fix="choose a model with rotary positions, or leave context out",
        )
    for part in _parts(rope).values():
        kind = part.get("rope_type", "default")
        if kind not in SCALABLE or "mrope_section" in part:
            raise BadInput(
                f"rotary positions of the kind {'mrope' if 'mrope_section' in part else kind} cannot be scaled",
                where="context",
                fix=f"choose a model with one of {', '.join(SCALABLE)}, or leave context out",
            )
    return rope


def _parts(rope: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the parameters that are scaled: all (""), or those of each kind of layer that looks back far."""
    if "rope_theta" in rope:
        return {"": dict(rope)}
    return {name: part for name, part in rope.items() if isinstance(part, dict) and name != _LOCAL}


def _rotated(config: PretrainedConfig, part: Mapping[str, Any]) -> int:
    """Return how many values of a head are rotated."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(size * float(part.get("partial_rotary_factor") or 1.0))


def _values_of(config: PretrainedConfig) -> dict[str, Any]:
    return {key: getattr(config, key) for key in _KEYS if hasattr(config, key)}


def _set_values(config: PretrainedConfig, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        setattr(config, key, copy.deepcopy(value))


def _is_window(values: Mapping[str, Any]) -> bool:
    """Whether what was read has the shape of a window."""
    rope = values.get("rope_parameters")
    window = values.get("max_position_embeddings")
    if not set(values) <= set(_KEYS) or not isinstance(rope, dict) or not isinstance(window, int):
        return False
    parts = list(_parts(rope).values())
    return bool(parts) and all(part.get("rope_type") in SCALABLE and _has_numbers(part) for part in parts)


def _has_numbers(part: Mapping[str, Any]) -> bool:
    values = [value for key, value in part.items() if key != "rope_type"]
    flat = [x for value in values for x in (value if isinstance(value, list) else [value])]
    return all(isinstance(x, int | float | bool) or x is None for x in flat)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they come back from JSON."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}


_ANY = ContextExtension(ContextSpec(factor=2.0))
