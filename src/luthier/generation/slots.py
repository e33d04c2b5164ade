"""A key-value cache with slots, and the attention that reads it: a shared prefix is stored once and read once a step.

Few-shot prompts share hundreds of tokens. Copying their keys and values to every row makes each step read them once a
row; here all rows' queries meet the one copy in a single matrix product, and only the rows' own tokens are batched. New
tokens are written in place (no concatenation), finished rows leave without moving the others.

The attention holds for full causal attention without soft caps, sinks or position biases; `can_share` says whether a
model is such a one. Everything else takes the plain way in `luthier.generation.sessions`.

    with shared_attention(model, SlotCache(layers=30)) as cache:
        model(input_ids=ids_BT, position_ids=positions_BT, past_key_values=cache, attention_mask=mask_B1TK)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

from luthier.models.packed import NAME as PACKED
from luthier.models.planned import device_type

ATTENTION = "luthier_slots"
GROWTH = 1.5
BLOCK_BYTES = 4 << 20  # of scores at a time while prompts are read: larger ones leave the processor's cache


@dataclass(frozen=True)
class Shared:
    """Keys and values of a prefix, one pair per layer: keys [H, D, P], values [H, P, D]."""

    ids: tuple[int, ...]
    layers: tuple[tuple[Tensor, Tensor], ...]

    def __len__(self) -> int:
        return len(self.ids)


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types
    """One layer's own tokens: keys and values [B, H, room, D]."""

    is_sliding = False

    def __init__(self, prefix: tuple[Tensor, Tensor] | None, prefix_length: int, room: int) -> None:
        super().__init__()
        self.prefix = prefix
        self.prefix_length = prefix_length
        self.room = room
        self.rows = 0
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        dtype = kept_dtype(key_states.device, key_states.dtype)
        rows, heads = key_states.shape[:2]
        self.rows = rows
        self.keys = key_states.new_empty(rows, heads, self.room, key_states.shape[-1], dtype=dtype)
        self.values = value_states.new_empty(rows, heads, self.room, value_states.shape[-1], dtype=dtype)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write new tokens (keys and values [B, H, T, D]) and return all of the rows' own ones, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        if end > self.room:
            self._grow(end)
        keys, values = self._own()
        keys[: self.rows, :, self.length : end] = key_states
        values[: self.rows, :, self.length : end] = value_states
        self.length = end
        return keys[: self.rows, :, :end], values[: self.rows, :, :end]

    def select(self, order: Sequence[int]) -> None:
        """Let row `j` be what row `order[j]` was, where `order[j] >= j`; rows beyond are forgotten."""
        keys, values = self._own()
        for new, old in enumerate(order):
            if new != old:
                keys[new, :, : self.length] = keys[old, :, : self.length]
                values[new, :, : self.length] = values[old, :, : self.length]
        self.rows = len(order)

    def get_seq_length(self) -> int:
        return self.prefix_length + self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def _own(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def _grow(self, needed: int) -> None:
        self.room = max(needed, int(self.room * GROWTH))
        self.keys, self.values = (self._roomier(old) for old in self._own())

    def _roomier(self, old: Tensor) -> Tensor:
        new = old.new_empty(self.rows, old.shape[1], self.room, old.shape[3])
        new[:, :, : self.length] = old[: self.rows, :, : self.length]
        return new


class SlotCache(Cache):  # type: ignore[misc]  # transformers has no types
    """The cache of all layers. `written` is the layer that was updated last: the one whose attention comes next."""

    def __init__(self, layers: int, prefix: Shared | None = None, room: int = 256) -> None:
        length = len(prefix) if prefix else 0
        self.slots = [SlotLayer(prefix.layers[i] if prefix else None, length, room) for i in range(layers)]
        super().__init__(layers=list(self.slots))
        self.written = self.slots[0]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        self.written = self.slots[layer_idx]
        return self.written.update(key_states, value_states)

    def select(self, order: Sequence[int]) -> None:
        for slot in self.slots:
            slot.select(order)

    def share(self, ids: Sequence[int], dtype: torch.dtype) -> Shared:
        """Return what the only row holds, as a prefix for others."""
        layers = []
        for slot in self.slots:
            keys, values = slot._own()
            keys_HPD, values_HPD = keys[0, :, : slot.length].to(dtype), values[0, :, : slot.length].to(dtype)
            layers.append((keys_HPD.transpose(1, 2).contiguous(), values_HPD.contiguous()))
        return Shared(tuple(ids), tuple(layers))


_current: ContextVar[SlotCache] = ContextVar("luthier_slot_cache")


@contextmanager
def shared_attention(model: PreTrainedModel, cache: SlotCache) -> Iterator[SlotCache]:
    """Let the model's attention read `cache` while the block runs."""
    before = model.config._attn_implementation
    token = _current.set(cache)
    model.config._attn_implementation = ATTENTION
    try:
        yield cache
    finally:
        model.config._attn_implementation = before
        _current.reset(token)


def kept_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Return the precision in which rows' own keys and values are kept.

    float32 on a CPU: its batched products read a float32 view where it lies, but copy a bfloat16 one first.
    """
    return torch.float32 if device_type(device) == "cpu" else dtype


def has_full_attention(model: PreTrainedModel) -> bool:
    """Say whether every layer is full causal attention.

    Only then may padding stand between a shared prefix and a row's own tokens: a window or a recurrent state counts it.
    """
    layers = DynamicCache(config=model.config).layers
    causal = getattr(model.config.get_text_config(decoder=True), "is_causal", True)
    return bool(causal and layers and all(type(layer) is DynamicLayer for layer in layers))


def can_share(model: PreTrainedModel) -> bool:
    """Say whether `attend` can stand in for the model's attention."""
    fused = model.config._attn_implementation in ("sdpa", PACKED)
    if getattr(model.config.get_text_config(decoder=True), "kv_lora_rank", None):
        return False  # it computes with what the cache returns, which must then have its own precision
    return fused and bool(model._can_set_attn_implementation()) and has_full_attention(model)


def attend(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of queries [B, Hq, T, D] to the prefix and to the rows' own keys and values [B, H, K, D].

    `attention_mask` [B or 1, 1, T, K] is added to the scores of own tokens; every query sees the whole prefix.
    Returns [B, T, Hq, D].
    """
    for name in ("softcap", "s_aux", "position_bias", "sliding_window"):
        if kwargs.get(name) is not None:
            raise NotSharable(name)
    rows, query_heads, length, width = query.shape
    heads = key.shape[1]
    query = query * (width**-0.5 if scaling is None else scaling)
    query = query.reshape(rows, heads, query_heads // heads * length, width)
    prefix = _current.get().written.prefix
    seen = key.shape[2] + (prefix[0].shape[-1] if prefix else 0)
    block = max(1, BLOCK_BYTES // (query_heads * length * seen * 4))
    mixed = []
    for first in range(0, rows, block):
        some = slice(first, first + block)
        mask = attention_mask if attention_mask is None or len(attention_mask) == 1 else attention_mask[some]
        own = _own_scores(query[some], key[some], mask)
        mixed.append(_mix(own, value[some]) if prefix is None else _mix_all(query[some], own, value[some], *prefix))
    output = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
    return output.to(query.dtype).view(rows, query_heads, length, -1).transpose(1, 2).contiguous(), None


def _own_scores(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """Return the scores [B, H, G * T, K] of own tokens; the G query heads of one key head lie below each other."""
    own = torch.matmul(query.to(key.dtype), key.transpose(-1, -2))
    if mask is None:
        return own
    rows, heads, queries, seen = own.shape
    length = mask.shape[2]
    return (own.view(rows, heads, queries // length, length, seen) + mask.unsqueeze(2)).view(own.shape)


def _mix(own: Tensor, value: Tensor) -> Tensor:
    return torch.matmul(torch.softmax(own, dim=-1), value)


def _mix_all(query: Tensor, own: Tensor, value: Tensor, keys_HDP: Tensor, values_HPD: Tensor) -> Tensor:
    """One softmax over prefix and own scores; the prefix's two products run over all rows at once."""
    rows, heads, queries, width = query.shape
    prefix_length = keys_HDP.shape[-1]
    flat = query.transpose(0, 1).reshape(heads, rows * queries, width)
    scores = torch.matmul(flat, keys_HDP).view(heads, rows, queries, prefix_length).transpose(0, 1)
    weights = torch.softmax(torch.cat([scores, own], dim=-1), dim=-1)
    from_own = torch.matmul(weights[..., prefix_length:], value)
    to_prefix = query.new_empty(heads, rows, queries, prefix_length)
    to_prefix.copy_(weights[..., :prefix_length].transpose(0, 1))
    from_prefix = torch.matmul(to_prefix.view(heads, rows * queries, prefix_length), values_HPD)
    return from_own + from_prefix.view(heads, rows, queries, -1).transpose(0, 1)


class NotSharable(Exception):
    """The model's attention needs something (a soft cap, a sink, a bias, a window) that `attend` does not have."""


AttentionInterface.register(ATTENTION, attend)
