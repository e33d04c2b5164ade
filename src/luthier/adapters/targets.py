"""Which linear layers of a model get an adapter.

Only layers inside the blocks are offered (of an encoder-decoder: of both sides, with the attention across), never the
output head. Names are those of the modules, such as `q_proj`; groups are `all-linear`, `attention` and `mlp`.

    paths = choose_targets(model, "all-linear")
"""

from __future__ import annotations

from transformers import PreTrainedModel

from luthier.ground.errors import BadInput, nearest
from luthier.models.quantized import linear_paths


def choose_targets(model: PreTrainedModel, targets: str | tuple[str, ...], last_layers: int | None = None) -> list[str]:
    """Return the module paths of the chosen layers, in the model's order.

    Args:
        targets: a group, or names: the last part of a module's path, or any longer end of it.
        last_layers: only in the last so many layers (of an encoder-decoder: of each side).

    Raises:
        BadInput: a name fits no linear layer of a block (the right ones are listed), or there are no such layers.
    """
    known = _in_last(linear_paths(model), last_layers)
    if not known:
        raise BadInput(
            f"{type(model).__name__} has no nn.Linear layers in its blocks, so LoRA cannot be added",
            fix="set train.adapter.kind: full",
        )
    if isinstance(targets, str):
        return _group(known, targets)
    for name in targets:
        if not any(_fits(path, name) for path in known):
            names = sorted({path.rsplit(".", 1)[-1] for path in known})
            raise BadInput(
                f'no linear layer is called "{name}"{nearest(name, names)}',
                where="train.adapter.targets",
                fix=f"choose among {', '.join(names)}, or a group: all-linear, attention, mlp",
            )
    return [path for path in known if any(_fits(path, name) for name in targets)]


def _in_last(paths: list[str], layers: int | None) -> list[str]:
    """Return the paths in the last numbered blocks: of an encoder-decoder, in the last of each side."""
    if layers is None:
        return paths
    places = {path: _block_of(path) for path in paths}
    counts: dict[str, int] = {}
    for side, number in places.values():
        counts[side] = max(counts.get(side, 0), number + 1)
    if paths and layers > (count := max(counts.values())):
        raise BadInput(
            f"the model has {count} {'decoder ' if len(counts) == 1 else ''}layers, not {layers}",
            where="train.adapter.layers",
            fix="name fewer, or none",
        )
    return [path for path, (side, number) in places.items() if number >= counts[side] - layers]


def _block_of(path: str) -> tuple[str, int]:
    """Return the list of blocks that a path is in, and the block's number."""
    parts = path.split(".")
    place = next(n for n, part in enumerate(parts) if part.isdigit())
    return ".".join(parts[:place]), int(parts[place])


def leaf_names(model: PreTrainedModel, paths: list[str]) -> list[str]:
    """Return short names that mean exactly `paths` to a tool that matches ends of paths; else the paths themselves."""
    leaves = sorted({path.rsplit(".", 1)[-1] for path in paths})
    meant = [path for path, _ in model.named_modules() if any(_fits(path, leaf) for leaf in leaves)]
    return leaves if set(meant) == set(paths) else list(paths)


def _group(known: list[str], group: str) -> list[str]:
    if group == "all-linear":
        return known
    chosen = [path for path in known if _is_attention(path) == (group == "attention")]
    if not chosen:
        raise BadInput(
            f'the group "{group}" is empty in this model', where="train.adapter.targets", fix="use all-linear"
        )
    return chosen


def _is_attention(path: str) -> bool:
    return any("attn" in part or "attention" in part for part in path.lower().split("."))


def _fits(path: str, name: str) -> bool:
    return path == name or path.endswith("." + name)
