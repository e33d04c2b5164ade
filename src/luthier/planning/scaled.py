"""Predict a deep model from shallow ones: what is needed grows evenly with the number of layers.

Two models of few layers are traced, and everything is carried on to the depth of the config: the bytes of each term at
each point of the step (the point with the most is then the peak), the work, the numbers of weights. What the allocator
wastes is not even, so its share of the deeper trace is kept. Layers of several kinds (sliding and full attention, dense
and mixture) are told apart by their weights and by the config's lists; the shallow models have whole periods of them.
A model whose layers follow no such pattern is traced as it is.

    predict_scaled(lambda config: predict_training(config, spec, steps, baseline_bytes=0), config).peak_bytes
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PretrainedConfig

from luthier.ground.plan_result import Moment
from luthier.planning.predict import Prediction
from luthier.planning.replay import terms_of
from luthier.planning.stages import words_of
from luthier.planning.subject import is_encoder_decoder, meta_model
from luthier.planning.work import Work

TRACED_IN_FULL = 48  # layers; deeper models are scaled by `predict_quickly`
P = TypeVar("P", bound=Prediction)
_INDEX_LISTS = ("mlp_only_layers", "moe_layers")  # name layers by number
_LARGEST = ("block_parameters", "largest_trained")  # of one layer or weight, whatever the depth
_SHARED = ("num_kv_shared_layers",)  # the last layers borrow from others: no pattern
_DEPTHS = (("num_layers", "num_decoder_layers"), ("encoder_layers", "decoder_layers", "num_hidden_layers"))


def predict_quickly(
    predict: Callable[[PretrainedConfig], P], config: PretrainedConfig, traced_in_full: int = TRACED_IN_FULL
) -> P:
    """Return the prediction, traced in full up to so many layers and scaled beyond."""
    deep = depth_of(config) > traced_in_full
    return predict_scaled(predict, config) if deep else predict(config)


def predict_scaled(
    predict: Callable[[PretrainedConfig], P], config: PretrainedConfig, layers: tuple[int, int] = (3, 5)
) -> P:
    """Return the prediction for the whole depth from two shallow models.

    Args:
        layers: of the shallow models, at least; whole periods of the layers' pattern are taken.
    """
    depths = shallow_depths(config, layers)
    if depths is None:
        return predict(config)
    few, more = (predict(cut(config, depth)) for depth in depths)
    return carried_on(few, more, (depth_of(config) - depths[0]) / (depths[1] - depths[0]))


def depth_of(config: PretrainedConfig) -> int:
    """Return the number of layers; of an encoder-decoder, of both halves together."""
    if is_encoder_decoder(config):
        keys = _depth_keys(config)
        return sum(int(getattr(config, key)) for key in keys[:2]) if keys else 0
    return int(getattr(config, "num_hidden_layers", 0))


def shallow_depths(config: PretrainedConfig, layers: tuple[int, int]) -> tuple[int, int] | None:
    """Return the two depths to trace, in the units of `depth_of`, or None if the model is not to be scaled."""
    if any(getattr(config, key, None) for key in _SHARED):
        return None
    if is_encoder_decoder(config):
        keys = _depth_keys(config)
        halves = {int(getattr(config, key)) for key in keys[:2]} if keys else set()
        few, more = 2 * layers[0], 2 * layers[1]
        return (few, more) if len(halves) == 1 and more < depth_of(config) else None
    depth = depth_of(config)
    pattern = _pattern(_kinds(config))
    if pattern is None:
        return None
    prefix, period = pattern
    rest = (depth - prefix) % period
    few = prefix + rest
    few += period * max(1, -(-(layers[0] - few) // period))
    more = few + period * max(1, -(-(layers[1] - few) // period))
    return (few, more) if 0 < few < more < depth else None


# -- the shallow models --------------------------------------------------------------------------------------------


def cut(config: PretrainedConfig, depth: int) -> PretrainedConfig:
    """Return the config of the model with its first `depth` layers, half of them in each half of an encoder-decoder."""
    shallow = copy.deepcopy(config)
    if is_encoder_decoder(config):
        for key in _depth_keys(config):
            setattr(shallow, key, depth // 2)
        return shallow
    for key in _INDEX_LISTS:
        if isinstance(listed := getattr(config, key, None), list):
            setattr(shallow, key, [number for number in listed if number < depth])
    for key in _lists_by_layer(config):
        setattr(shallow, key, list(getattr(config, key))[:depth])
    shallow.num_hidden_layers = depth
    return shallow


def _depth_keys(config: PretrainedConfig) -> tuple[str, ...]:
    return next((keys for keys in _DEPTHS if all(hasattr(config, key) for key in keys)), ())


def _lists_by_layer(config: PretrainedConfig) -> list[str]:
    """Return the keys whose value is a list with one entry for each layer."""
    depth = depth_of(config)
    values = vars(config).items()
    return [
        key
        for key, value in values
        if key not in _INDEX_LISTS and isinstance(value, list | tuple) and len(value) == depth and depth > 1
    ]


def _kinds(config: PretrainedConfig) -> list[Hashable]:
    """Return for each layer what makes it different from others: its weights, and its entries in the config's lists."""
    model = meta_model(config, torch.bfloat16)
    parts: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
    for name, weight in model.named_parameters():
        words = name.split(".")
        number = next((place for place, word in enumerate(words) if word.isdigit()), None)
        if number is not None:
            parts.setdefault(int(words[number]), []).append((".".join(words[number + 1 :]), tuple(weight.shape)))
    lists = [getattr(config, key) for key in _lists_by_layer(config)]
    return [
        (tuple(parts.get(layer, ())), *(str(values[layer]) for values in lists)) for layer in range(depth_of(config))
    ]


def _pattern(kinds: Sequence[Hashable]) -> tuple[int, int] | None:
    """Return how many layers stand before the pattern, and its period; None if two periods would be most of all."""
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    row = [numbers[kind] for kind in kinds]
    found = []
    for period in range(1, len(row) // 3 + 1):
        breaks = [place for place in range(len(row) - period) if row[place] != row[place + period]]
        found.append((breaks[-1] + 1 if breaks else 0, period))
    return min(found, key=lambda pair: pair[0] + 2 * pair[1], default=None)


# -- carrying on ---------------------------------------------------------------------------------------------------


def carried_on(few: P, more: P, share: float) -> P:
    """Return what lies on the line through two predictions: the first at 0, the second at 1, the answer at `share`."""
    found = {key: _carried(few.profile[key], more.profile[key], share) for key in more.profile if key in few.profile}
    at = max(found, key=lambda key: found[key].bytes)
    peak = found[at]
    live, used = peak.bytes, more.terms.total - more.terms.overhead_bytes
    waste = round(more.waste_bytes * live / max(1, used))
    overhead = more.terms.overhead_bytes - more.waste_bytes + waste
    most: dict[str, int] = {}
    for (_, stage, _), one in found.items():
        most[stage] = max(most.get(stage, 0), one.bytes)
    changed: dict[str, Any] = {
        "terms": terms_of(peak.sizes.tolist(), overhead),
        "moments": tuple(Moment(stage=stage, peak_bytes=size + overhead) for stage, size in most.items()),
        "peak_at": words_of(at[1], peak.part),
        "live_bytes": live,
        "waste_bytes": waste,
        "profile": {},
    }
    for each in fields(more):
        a, b = getattr(few, each.name), getattr(more, each.name)
        if isinstance(b, Work):
            changed[each.name] = a + (b - a) * share
        elif isinstance(b, int) and each.name not in {*changed, *_LARGEST}:
            changed[each.name] = round(a + (b - a) * share)
    return replace(more, **changed)


@dataclass(frozen=True)
class _Peak:
    """The most bytes while a function makes blocks, by term, and at which part of all its calls, from 0 to 1."""

    sizes: NDArray[np.int64]
    part: float

    @property
    def bytes(self) -> int:
        return int(self.sizes.sum())


def _carried(few: Sequence[tuple[int, ...]], more: Sequence[tuple[int, ...]], share: float) -> _Peak:
    """Carry a function's blocks on: their first half comes again at a deeper model's beginning, the second at its end.

    Between them a deeper model repeats its layers, and bytes rise or fall evenly, so that the most is at one end.
    """
    a, b = np.array(few, dtype=np.float64), np.array(more, dtype=np.float64)
    half = min(len(a), len(b)) // 2 + 1
    sizes = np.concatenate([one + (two - one) * share for one, two in ((a[:half], b[:half]), (a[-half:], b[-half:]))])
    at = int(sizes.sum(1).argmax())
    return _Peak(np.maximum(sizes[at], 0).round().astype(np.int64), 0.0 if at < half else 1.0)
