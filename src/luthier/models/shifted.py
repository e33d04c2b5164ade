"""LongLoRA's way of training long rows: shifted sparse attention, with norms and embeddings trained beside LoRA.

While the model trains, half of the heads attend within groups of a row's tokens and the other half within groups that
are shifted by half a group, so that what is near is always seen together and information flows from group to group
(Chen et al. 2024, arXiv:2309.12307). A group is a quarter of the row, and at least the old window, which the model can
read anyway; nothing wraps around the row's ends. Positions are those of the row. In evaluation every token sees all
before it. What is shifted is said by a third line in the mask that `luthier.models.packed` hands to each layer, so that
layers that are computed again see it too. Rotary scaling is `luthier.models.context`.

    shift(model, least=2048); trained = train_beside(model)
"""

from __future__ import annotations

import dataclasses
import itertools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from luthier.models.attention import pack_attention
from luthier.models.kernels.varlen import Heads
from luthier.models.masters import Master, master_of
from luthier.models.segments import Segments

GROUPS = 4  # of a row
_LEAST: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()
_HOOKS: weakref.WeakKeyDictionary[nn.Module, list[RemovableHandle]] = weakref.WeakKeyDictionary()


def shift(model: PreTrainedModel, least: int) -> None:
    """Let the model attend in groups of at least `least` tokens while it trains."""
    _LEAST[model] = least


def least_group(model: nn.Module) -> int | None:
    """Return the fewest tokens of a group, or None if this model's attention is not shifted."""
    return _LEAST.get(model)


def train_beside(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Make norms and the input embedding trainable; return their float32 masters (or themselves) by name."""
    masters: dict[str, nn.Parameter] = {}
    hooks: list[RemovableHandle] = []
    for name, weight in weights_beside(model).items():
        weight.requires_grad_(True)
        masters[name] = master = master_of(weight)
        if isinstance(master, Master):
            hook = weight.register_post_accumulate_grad_hook(_hand_on(master))  # type: ignore[no-untyped-call]  # torch's
            hooks.append(hook)
    rounded = {name: master for name, master in masters.items() if isinstance(master, Master)}
    if rounded:
        hooks.append(model.base_model.register_forward_pre_hook(_round_before(model, rounded)))
    _HOOKS[model] = hooks
    return masters


def weights_beside(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the norms' weights and the input embedding, by name."""
    table = model.get_input_embeddings().weight
    return {name: weight for name, weight in model.named_parameters() if weight is table or _is_norm(name, weight)}


def unshift(model: PreTrainedModel) -> None:
    """Let the model attend as ever, and freeze what was trained beside; values stay."""
    _LEAST.pop(model, None)
    hooks = _HOOKS.pop(model, None)
    if hooks is not None:
        for hook in hooks:
            hook.remove()
        for weight in weights_beside(model).values():
            weight.requires_grad_(False)
            weight.grad = None


def shifted_attention(
    query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, segments: Segments, heads: Heads, least: int, dropout: float
) -> Tensor:
    """Return the attention output [T, H, D] with half of the heads in groups and half in shifted groups.

    With one key-value head, it is the query heads that are halved.
    """
    straight = heads.kv_heads - heads.kv_heads // 2
    per_kv = heads.heads // heads.kv_heads
    first = straight * per_kv if heads.kv_heads > 1 else heads.heads - heads.heads // 2
    parts = []
    for part, is_shifted in ((slice(0, first), False), (slice(first, heads.heads), True)):
        if part.start == part.stop:
            continue
        kv = slice(0, 1) if heads.kv_heads == 1 else slice(part.start // per_kv, part.stop // per_kv)
        inside = dataclasses.replace(heads, heads=part.stop - part.start, kv_heads=kv.stop - kv.start)
        key, value = key_TKD[:, kv], value_TKD[:, kv]
        grouped = groups(segments, least, is_shifted)
        parts.append(pack_attention(query_THD[:, part], key, value, grouped, inside, dropout))
    return torch.cat(parts, 1)


def groups(segments: Segments, least: int, is_shifted: bool) -> Segments:
    """Return the groups of all rows, as segments that see nothing of each other.

    >>> groups(Segments((8, 3)), 2, is_shifted=True).lengths
    (1, 2, 2, 2, 1, 1, 2)
    """
    if not segments.is_flat:
        raise ValueError("rows that share their beginnings cannot be read in shifted groups")
    lengths: list[int] = []
    for length in segments.lengths:
        group = max(-(-length // GROUPS), least)
        first = group // 2 if is_shifted and group < length else group
        cuts = [0, *range(max(1, first), length, group), length]
        lengths += [end - start for start, end in itertools.pairwise(cuts)]
    return Segments(tuple(lengths))


def _is_norm(name: str, weight: Tensor) -> bool:
    return weight.ndim == 1 and "norm" in name.rsplit(".", 2)[-2]


def _hand_on(master: Master) -> Callable[[Tensor], None]:
    def hand_on(weight: Tensor) -> None:
        if weight.grad is not None:
            gradient, weight.grad = weight.grad, None
            master.receive(gradient)

    return hand_on


def _round_before(model: PreTrainedModel, masters: Mapping[str, nn.Parameter]) -> Callable[..., None]:
    reference = weakref.ref(model)

    def round_before(*_: Any) -> None:
        owner = reference()
        if owner is not None:
            with torch.no_grad():
                for name, weight in weights_beside(owner).items():
                    if name in masters:
                        weight.copy_(masters[name])

    return round_before
