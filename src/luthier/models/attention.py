"""Causal attention over documents that lie end to end, none of which sees another, and which may share beginnings.

Three ways that agree (tested). `plain_attention` runs PyTorch's scaled-dot-product attention on one segment after
another and is the reference. The native kernels (`luthier.models.kernels.varlen`: bfloat16 on processors with
AVX512-BF16) are 3 times as fast as the next. `bucketed_attention` groups documents of similar length and does each
group with batched matrix products: what CPUs without the kernels, and float32, run. `pack_attention` chooses. No [T, T]
mask is ever built.

Shapes: T tokens of all documents, H query heads, K key-value heads, G = H / K, D head size, B documents of a bucket, L
its longest document.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

from luthier.models.kernels.varlen import Heads, serves, varlen_attention
from luthier.models.planned import device_type
from luthier.models.segments import Segments

BMM_MOST_TOKENS = 768  # longer documents go one by one: no slower there, and without large score matrices
_FILL = 0.8  # a bucket's shortest document has at least this share of its longest one


@dataclass(frozen=True)
class Bucket:
    """Documents of similar length. `tokens_BL` gives the token of the pack at each place; padding repeats the last."""

    documents: int
    longest: int
    tokens_BL: Tensor


@dataclass(frozen=True)
class Layout:
    """How short documents are put into buckets. `place_T` gives each token's place in all buckets' rows end to end."""

    buckets: tuple[Bucket, ...]
    place_T: Tensor


def pack_attention(
    query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, segments: Segments, heads: Heads, dropout: float = 0.0
) -> Tensor:
    """Return the attention output [T, H, D], by the fastest way that serves."""
    autocast = torch.is_autocast_enabled(device_type(query_THD.device))
    is_even = value_TKD.shape[-1] == heads.size  # the kernels know one width; latent attention has narrower values
    if is_even and not dropout and not autocast and serves(query_THD.dtype, query_THD.device, heads.size):
        return varlen_attention(query_THD, key_TKD, value_TKD, segments, heads)
    if is_even and _flash_serves(query_THD, segments, heads, dropout):
        return _flash_attention(query_THD, key_TKD, value_TKD, segments, heads)
    if dropout or heads.cap or not segments.is_flat or device_type(query_THD.device) != "cpu":
        return plain_attention(query_THD, key_TKD, value_TKD, segments, heads, dropout)
    outputs, start = [], 0
    for is_short, members in itertools.groupby(segments.lengths, lambda length: length <= BMM_MOST_TOKENS):
        run = tuple(members)
        parts = [x.narrow(0, start, sum(run)) for x in (query_THD, key_TKD, value_TKD)]
        if is_short:
            layout = make_layout(run, query_THD.device)
            outputs.append(bucketed_attention(parts[0], parts[1], parts[2], layout, heads.scale, heads.window or None))
        else:
            outputs.append(plain_attention(parts[0], parts[1], parts[2], Segments(run), heads))
        start += sum(run)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def segment_attention(q_TS: Tensor, k_TS: Tensor, v_TS: Tensor, heads: Heads, segments: Segments) -> Tensor:
    """Return `pack_attention` of heads that lie next to each other in rows: [T, H · D]."""
    q_THD, k_TKD, v_TKD = (x.view(len(x), -1, heads.size) for x in (q_TS, k_TS, v_TS))
    return pack_attention(q_THD, k_TKD, v_TKD, segments, heads).flatten(1)


def _flash_serves(query_THD: Tensor, segments: Segments, heads: Heads, dropout: float) -> bool:
    is_half = query_THD.dtype in (torch.bfloat16, torch.float16)
    return device_type(query_THD.device) == "cuda" and is_half and segments.is_flat and not dropout and not heads.cap


def _flash_attention(query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, segments: Segments, heads: Heads) -> Tensor:
    """PyTorch's own variable-length flash attention, which exists on GPUs only (not yet run on one)."""
    bounds = torch.tensor([*segments.starts, segments.tokens], dtype=torch.int32, device=query_THD.device)
    longest = max(segments.lengths)
    out_THD = varlen_attn(
        query_THD, key_TKD, value_TKD, bounds, bounds, longest, longest,
        scale=heads.scale, window_size=(heads.window - 1 if heads.window else -1, 0), enable_gqa=True,
    )  # fmt: skip
    assert isinstance(out_THD, Tensor)
    return out_THD


def plain_attention(
    query_THD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    segments: Segments,
    heads: Heads,
    dropout: float = 0.0,
) -> Tensor:
    """Return the attention output [T, H, D], one segment after another: the reference.

    With a window w a token sees itself and the w − 1 tokens before it; with a soft cap c the scores s become
    c · tanh(s / c) (Gemma 2, Riviere et al. 2024).
    """
    groups = heads.heads // heads.kv_heads
    q_parts, k_parts, v_parts = (torch.split(x, list(segments.lengths)) for x in (query_THD, key_TKD, value_TKD))
    outputs = []
    for n, q in enumerate(q_parts):
        chain = segments.chain(n)
        k, v = (
            torch.cat([parts[link] for link in chain]) if len(chain) > 1 else parts[n] for parts in (k_parts, v_parts)
        )
        q_HLD, k_HMD, v_HMD = (x.transpose(0, 1) for x in (q, k, v))
        k_HMD, v_HMD = k_HMD.repeat_interleave(groups, 0), v_HMD.repeat_interleave(groups, 0)
        attend = _capped if heads.cap else _sdpa
        outputs.append(attend(q_HLD, k_HMD, v_HMD, heads, dropout).transpose(0, 1))
    return torch.cat(outputs)


def bucketed_attention(
    query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, layout: Layout, scaling: float, window: int | None = None
) -> Tensor:
    """Return the attention output [T, H, D] of a pack of short documents, by batched matrix products.

    Scores are rounded to the inputs' precision, as in any unfused attention; the softmax works in float32.
    """
    device = device_type(query_THD.device)
    if torch.is_autocast_enabled(device):  # its casts inside forward would not be undone in the written-out backward
        dtype = torch.get_autocast_dtype(device)
        query_THD, key_TKD, value_TKD = (x.to(dtype) for x in (query_THD, key_TKD, value_TKD))
    with torch.autocast(device, enabled=False):
        inputs = (query_THD, key_TKD, value_TKD, layout, scaling, window)
        out: Tensor = _Bucketed.apply(*inputs)  # type: ignore[no-untyped-call]
    return out


@lru_cache(maxsize=16)
def make_layout(lengths: tuple[int, ...], device: torch.device) -> Layout:
    """Return how to put documents of these lengths into buckets."""
    starts = [0, *itertools.accumulate(lengths)]
    place_T = torch.empty(starts[-1], dtype=torch.long)
    buckets, row = [], 0
    for members in _group(sorted(range(len(lengths)), key=lambda i: -lengths[i]), lengths):
        longest = lengths[members[0]]
        lengths_B1 = torch.tensor([lengths[i] for i in members])[:, None]
        starts_B1 = torch.tensor([starts[i] for i in members])[:, None]
        tokens_BL = starts_B1 + torch.minimum(torch.arange(longest)[None], lengths_B1 - 1)
        for n, i in enumerate(members):
            place_T[starts[i] : starts[i + 1]] = row + n * longest + torch.arange(lengths[i])
        row += len(members) * longest
        buckets.append(Bucket(len(members), longest, tokens_BL.to(device)))
    return Layout(tuple(buckets), place_T.to(device))


def _group(order: list[int], lengths: Sequence[int]) -> list[list[int]]:
    groups: list[list[int]] = []
    for i in order:
        if groups and lengths[i] >= _FILL * lengths[groups[-1][0]]:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


class _Bucketed(torch.autograd.Function):
    """Saves queries, keys, values and the attention weights of each bucket; the backward is written out."""

    @staticmethod
    def forward(
        ctx: Any,
        query_THD: Tensor,
        key_TKD: Tensor,
        value_TKD: Tensor,
        layout: Layout,
        scaling: float,
        window: int | None,
    ) -> Tensor:
        kv_heads = key_TKD.shape[1]
        saved, outputs = [], []
        for bucket in layout.buckets:
            q = _fold(query_THD, bucket, kv_heads)
            k, v = _fold(key_TKD, bucket, kv_heads), _fold(value_TKD, bucket, kv_heads)
            mask = _causal_bias(bucket.longest, q.shape[1] // bucket.longest, window, q.dtype, q.device)
            scores = torch.baddbmm(mask.expand(q.shape[0], -1, -1), q, k.transpose(1, 2), alpha=scaling)
            weights = torch.softmax(scores, -1)
            outputs.append(_unfold(torch.bmm(weights, v), bucket, kv_heads))
            saved += [q, k, v, weights]
        ctx.save_for_backward(*saved)
        ctx.layout, ctx.scaling, ctx.kv_heads = layout, scaling, kv_heads
        return torch.cat(outputs).index_select(0, layout.place_T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THD: Tensor) -> tuple[Tensor | None, ...]:
        kv_heads, parts = ctx.kv_heads, []
        saved = ctx.saved_tensors  # once: gradient checkpointing allows no second look
        for n, bucket in enumerate(ctx.layout.buckets):
            q, k, v, weights = saved[4 * n : 4 * n + 4]
            grad = _fold(grad_THD, bucket, kv_heads, without_padding=ctx.layout)
            grad_v = torch.bmm(weights.transpose(1, 2), grad)
            grad_weights = torch.bmm(grad, v.transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_q = torch.bmm(grad_scores, k).mul_(ctx.scaling)
            grad_k = torch.bmm(grad_scores.transpose(1, 2), q).mul_(ctx.scaling)
            parts.append(tuple(_unfold(x, bucket, kv_heads) for x in (grad_q, grad_k, grad_v)))
        place_T = ctx.layout.place_T
        grads = [torch.cat(kind).index_select(0, place_T) for kind in zip(*parts, strict=True)]
        return grads[0], grads[1], grads[2], None, None, None


def _fold(x_THD: Tensor, bucket: Bucket, kv_heads: int, without_padding: Layout | None = None) -> Tensor:
    """[T, H, D] -> [B * K, G * L, D]: one document and key-value head each, its query heads below each other."""
    heads, size = x_THD.shape[1:]
    x = x_THD.index_select(0, bucket.tokens_BL.view(-1))
    if without_padding is not None:
        x *= _is_real(bucket)[:, None, None].to(x.dtype)
    x = x.view(bucket.documents, bucket.longest, kv_heads, heads // kv_heads, size)
    return x.permute(0, 2, 3, 1, 4).reshape(bucket.documents * kv_heads, -1, size)


def _unfold(x: Tensor, bucket: Bucket, kv_heads: int) -> Tensor:
    """[B * K, G * L, D] -> [B * L, H, D]."""
    groups, size = x.shape[1] // bucket.longest, x.shape[2]
    x = x.view(bucket.documents, kv_heads, groups, bucket.longest, size).permute(0, 3, 1, 2, 4)
    return x.reshape(bucket.documents * bucket.longest, kv_heads * groups, size)


def _is_real(bucket: Bucket) -> Tensor:
    """Which places of a bucket are tokens: padding repeats the token before it. Shape [B * L]."""
    tokens_BL = bucket.tokens_BL
    first_B1 = torch.ones_like(tokens_BL[:, :1], dtype=torch.bool)
    return torch.cat([first_B1, tokens_BL[:, 1:] != tokens_BL[:, :-1]], 1).view(-1)


@lru_cache(maxsize=64)
def _causal_bias(length: int, groups: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Bias [1, G * L, L]: 0 where a query sees a key, -inf elsewhere."""
    bias_LL = torch.zeros(length, length, dtype=dtype, device=device).masked_fill_(
        ~_visible(length, window, device), -math.inf
    )
    return bias_LL.repeat(groups, 1)[None]


def _visible(length: int, window: int | None, device: torch.device, keys: int | None = None) -> Tensor:
    """Which of the `keys` (default: as many) each of the last `length` tokens sees, [L, M]."""
    total = keys or length
    queries_L = torch.arange(total - length, total, device=device)
    distance_LM = queries_L[:, None] - torch.arange(total, device=device)[None, :]
    visible_LM = distance_LM >= 0
    return visible_LM if not window else visible_LM & (distance_LM < window)


def _sdpa(q_HLD: Tensor, k_HMD: Tensor, v_HMD: Tensor, heads: Heads, dropout: float) -> Tensor:
    length, keys = q_HLD.shape[1], k_HMD.shape[1]
    is_causal = length == keys and (not heads.window or length <= heads.window)
    mask = None if is_causal else _visible(length, heads.window, q_HLD.device, keys)
    out = functional.scaled_dot_product_attention(
        q_HLD[None], k_HMD[None], v_HMD[None], mask, dropout_p=dropout, is_causal=is_causal, scale=heads.scale
    )
    return out[0]


def _capped(q_HLD: Tensor, k_HMD: Tensor, v_HMD: Tensor, heads: Heads, dropout: float) -> Tensor:
    scores_HLM = torch.tanh(q_HLD @ k_HMD.transpose(1, 2) * heads.scale / heads.cap) * heads.cap
    hidden_LM = ~_visible(q_HLD.shape[1], heads.window, q_HLD.device, k_HMD.shape[1])
    weights_HLM = torch.softmax(scores_HLM.masked_fill(hidden_LM, -math.inf).float(), -1).to(q_HLD.dtype)
    return functional.dropout(weights_HLM, dropout) @ v_HMD
