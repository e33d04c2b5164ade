"""The settings under `train` that change memory and time, what each costs beside time, and how they are applied.

A lever is one such setting; its options are ordered from the mildest to the leanest. Tier 1 keeps the mathematics (the
trained weights are the same but for rounding), tier 2 trains the same weights by another algorithm or on a rounded
base, tier 3 trains something else. What an option saves is not known here: `luthier.planning.choose` evaluates it.

    >>> difference(TrainSpec(), applied(TrainSpec(), {"train.checkpointing": "full"}))
    {'train.checkpointing': 'full'}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from luthier.ground.errors import BadInput
from luthier.ground.spec import TrainSpec
from luthier.ground.words import count, many
from luthier.training.loop import PACK_TOKENS
from luthier.training.precision import base_precision

SAME, ALGORITHM, TRAINED = 1, 2, 3  # the tiers
_CHECKPOINTING = ("none", "selective", "full")
_BASES = ("fp32", "bf16", "int8", "nf4")
_OPTIMIZERS = ("adamw", "adamw8bit", "adafactor")
_PACKS = (PACK_TOKENS, 1024, 512, 256, 128)
_TILES = (512, 256)
_LEAST_TOKENS_PER_STEP = 128
_LEAST_RANK = 4
_LEAST_LAYERS = 4


@dataclass(frozen=True)
class Option:
    """One value of one lever.

    Attributes:
        lever: options of one lever exclude each other.
        label: short, for people.
        changes: dotted keys and values; what the option needs beside its own key is among them.
        tier: 1 same mathematics, 2 another algorithm, 3 another thing trained.
        note: what it costs beside time; empty in tier 1.
        loss: how much less it trains than the spec, ranked by judgement; 0 below tier 3.
        is_leaner: whether it is there to save memory; otherwise to save time.
    """

    lever: str
    label: str
    changes: tuple[tuple[str, Any], ...]
    tier: int = SAME
    note: str = ""
    loss: int = 0
    is_leaner: bool = True


def options_of(spec: TrainSpec, layers: int | None = None, has_gpu: bool = False) -> list[Option]:
    """Return every option that `spec` does not have already, levers in the order in which they are applied.

    Args:
        layers: decoder layers of the model; without them adapters are not taken off layers.
        has_gpu: the MLP is not computed in tiles there.
    """
    sharded = spec.strategy == "fsdp"  # shards weights whose optimizer is AdamW, with masters, all at once
    return [
        *_precision(spec),
        *_kind(spec),
        *_base(spec),
        *_rank(spec),
        *_layers(spec, layers),
        *([] if sharded else [*_masters(spec), *_optimizer(spec)]),
        *_in_backward(spec),
        *_checkpointing(spec),
        *_packs(spec),
        *([] if has_gpu else _tiles(spec)),
        *_less_per_step(spec),
    ]


def combined(spec: TrainSpec, options: Sequence[Option]) -> TrainSpec | None:
    """Return `spec` with all `options`, or None if the spec does not allow that or one of them would be idle there."""
    try:
        changed = applied(spec, dict(change for option in options for change in option.changes))
    except BadInput:
        return None
    return changed if all(_WORKS.get(option.lever, _always)(changed) for option in options) else None


def label_of(options: Sequence[Option]) -> str:
    """Return what a combination is called: `nf4, full checkpointing, 512-token packs`."""
    return ", ".join(option.label for option in options) or "as written"


def applied(spec: TrainSpec, settings: Mapping[str, Any]) -> TrainSpec:
    """Return `spec` with dotted keys changed, held to all its rules.

    Raises:
        BadInput: a key is not one of `train`, or the values do not go together.
    """
    values = spec.model_dump(exclude_unset=True)
    for key, value in settings.items():
        first, *path, last = key.split(".") if "." in key else ("", key)
        at: Any = values
        for name in path:
            at = at.setdefault(name, {}) if isinstance(at, dict) else None
        if first != "train" or not isinstance(at, dict):
            raise BadInput("this is not a key of train", where=key, fix="write train.KEY")
        at[last] = value
    try:
        return TrainSpec.model_validate(values)
    except ValidationError as error:
        faults = [fault["msg"].removeprefix("Value error, ") for fault in error.errors(include_url=False)]
        raise BadInput(f"{', '.join(settings)}: {'; '.join(faults)}", where="train") from None


def difference(a: TrainSpec, b: TrainSpec) -> dict[str, Any]:
    """Return the dotted keys in which `b` differs from `a`, with b's values; applied to `a` they give `b`."""
    before = dict(_flat(a, "train"))
    return {key: value for key, value in _flat(b, "train") if before[key] != value}


def written_keys(spec: TrainSpec) -> frozenset[str]:
    """Return the dotted keys that the task file sets itself."""
    return frozenset(_written(spec, "train"))


# -- the levers ----------------------------------------------------------------------------------------------------


def _precision(spec: TrainSpec) -> Iterator[Option]:
    if spec.precision != "bf16":
        base = (("train.base", "bf16"),) if spec.base == "fp32" else ()
        changes = (("train.precision", "bf16"), *base)
        yield Option("precision", "bf16 arithmetic", changes, TRAINED, "computes with 8 significant bits", loss=1)


def _kind(spec: TrainSpec) -> Iterator[Option]:
    if spec.adapter.kind == "full":
        masters = (("train.adapter.masters", "fp32"),) if spec.adapter.masters == "none" else ()
        changes = (("train.adapter.kind", "lora"), *masters)
        note = "trains adapters alone, with a learning rate of their own"
        yield Option("kind", f"LoRA of rank {spec.adapter.rank}", changes, TRAINED, note, loss=4)


def _base(spec: TrainSpec) -> Iterator[Option]:
    if spec.base == "fp32" and spec.precision == "bf16":
        yield Option("base", "bf16 base", (("train.base", "bf16"),), ALGORITHM, "rounds the frozen weights")
    for base in ("int8", "nf4"):
        if spec.base is None or _BASES.index(base) > _BASES.index(spec.base):
            yield Option("base", base, (("train.base", base),), ALGORITHM, "rounds the frozen weights")


def _rank(spec: TrainSpec) -> Iterator[Option]:
    rank = spec.adapter.rank
    for loss, smaller in enumerate(_smaller(rank, (rank // 2, _LEAST_RANK), _LEAST_RANK), start=1):
        alpha = spec.adapter.alpha * smaller / rank  # the update keeps its scale
        changes = (("train.adapter.rank", smaller), ("train.adapter.alpha", alpha))
        yield Option("rank", f"rank {smaller}", changes, TRAINED, "trains fewer weights", loss)


def _layers(spec: TrainSpec, layers: int | None) -> Iterator[Option]:
    if layers is None:
        return
    for loss, fewer in enumerate(_smaller(spec.adapter.layers or layers, (layers // 2, _LEAST_LAYERS)), start=2):
        label = f"adapters in the last {many(fewer, 'layer')}"
        yield Option("layers", label, (("train.adapter.layers", fewer),), TRAINED, "trains fewer weights", loss)


def _masters(spec: TrainSpec) -> Iterator[Option]:
    """Two options of one lever: one layer at a time needs weights without masters, or float32 weights."""
    none = (("train.adapter.masters", "none"),) if spec.adapter.masters == "fp32" else ()
    if none:
        yield Option("masters", "no float32 masters", none, ALGORITHM, "rounds every update stochastically")
    if spec.layers_in_turn is None:
        needed = none if base_precision(spec) == "bf16" else ()
        changes = (("train.layers_in_turn", 1), *needed)
        yield Option("masters", "one layer at a time", changes, TRAINED, "trains one layer in each step", loss=4)


def _optimizer(spec: TrainSpec) -> Iterator[Option]:
    if spec.optimizer not in _OPTIMIZERS:
        return  # a plug-in's: nothing is known of it
    notes = {"adamw8bit": "another algorithm", "adafactor": "another algorithm, with a learning rate of its own"}
    for name in _OPTIMIZERS[_OPTIMIZERS.index(spec.optimizer) + 1 :]:
        yield Option("optimizer", name, (("train.optimizer", name),), ALGORITHM, notes[name])


def _in_backward(spec: TrainSpec) -> Iterator[Option]:
    if spec.optimizer_in_backward:
        return
    changes: tuple[tuple[str, Any], ...] = (("train.optimizer_in_backward", True),)
    if spec.max_grad_norm is None:
        yield Option("in_backward", "optimizer in the backward", changes)
    else:
        changes = (*changes, ("train.max_grad_norm", None))
        yield Option("in_backward", "optimizer in the backward", changes, ALGORITHM, "gradients are not clipped")


def _checkpointing(spec: TrainSpec) -> Iterator[Option]:
    now = _CHECKPOINTING.index(spec.checkpointing)
    for place, name in enumerate(_CHECKPOINTING):
        if place != now:
            label = f"{'no' if name == 'none' else name} checkpointing"
            yield Option("checkpointing", label, (("train.checkpointing", name),), is_leaner=place > now)


def _packs(spec: TrainSpec) -> Iterator[Option]:
    now = spec.pack_tokens or PACK_TOKENS
    for tokens in _PACKS:
        if tokens != now:
            label = f"{count(tokens)}-token packs"
            yield Option("packs", label, (("train.pack_tokens", tokens),), is_leaner=tokens < now)


def _tiles(spec: TrainSpec) -> Iterator[Option]:
    if spec.mlp_tile is not None:
        yield Option("tile", "MLP as a whole", (("train.mlp_tile", None),), is_leaner=False)
    for tokens in _TILES:
        if spec.mlp_tile is None or tokens < spec.mlp_tile:
            yield Option("tile", f"MLP in tiles of {tokens}", (("train.mlp_tile", tokens),))


def _less_per_step(spec: TrainSpec) -> Iterator[Option]:
    note = "changes the training: smaller and more steps"
    if (rows := spec.rows_per_step) is not None:
        for loss, fewer in enumerate(_smaller(rows, (rows // 2, rows // 4)), start=1):
            label = f"{many(fewer, 'row')} a step"
            yield Option("less_per_step", label, (("train.rows_per_step", fewer),), TRAINED, note, loss)
        return
    tokens = spec.tokens_per_step
    smaller = _smaller(tokens, (tokens // 2, tokens // 4), _LEAST_TOKENS_PER_STEP)
    for loss, fewer in enumerate(smaller, start=1):
        label = f"{count(fewer)} tokens a step"
        yield Option("less_per_step", label, (("train.tokens_per_step", fewer),), TRAINED, note, loss)


# -- where a lever works -------------------------------------------------------------------------------------------


def _always(_: TrainSpec) -> bool:
    return True


def _is_full(spec: TrainSpec) -> bool:
    return spec.adapter.kind == "full"


def _is_adapter(spec: TrainSpec) -> bool:
    return not _is_full(spec)


def _masters_can_go(spec: TrainSpec) -> bool:
    """Masters are there beside bfloat16 weights alone, and layers take turns only without them."""
    if not _is_full(spec):
        return False
    if spec.layers_in_turn is not None:
        return spec.adapter.masters == "none" or base_precision(spec) == "fp32"
    return base_precision(spec) == "bf16"


# Adapters have next to no optimizer state, gradients or masters; the MLP is cut in tiles where it is computed again.
_WORKS: dict[str, Callable[[TrainSpec], bool]] = {
    "rank": _is_adapter,
    "layers": _is_adapter,
    "masters": _masters_can_go,
    "optimizer": _is_full,
    "in_backward": _is_full,
    "tile": lambda spec: spec.mlp_tile is None or spec.checkpointing != "none",
}


def _smaller(now: int | None, wanted: Sequence[int], least: int = 1) -> list[int]:
    """Return the numbers below `now` from the largest to the smallest, each once."""
    return sorted({number for number in wanted if least <= number < (now or number + 1)}, reverse=True)


def _flat(spec: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if isinstance(value, BaseModel):
            yield from _flat(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", value


def _written(spec: BaseModel, prefix: str) -> Iterator[str]:
    for name in spec.model_fields_set:
        value = getattr(spec, name)
        if isinstance(value, BaseModel):
            yield from _written(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}"
