"""Attention of encoder-decoder models over rows that lie end to end: of one row's tokens to the same row's, no others.

Queries and keys may belong to different sequences of a row (the decoder's tokens and the encoder's). Rows of similar
size are put into buckets, padded inside of the attention alone, and computed by batched matrix products (long ones by
PyTorch's own scaled-dot-product attention); linear layers and norms see no padding. A bias by distance (T5) is made
once for the longest row, since it depends on nothing else, and each bucket takes its corner. The model's loop over its
layers stands in `luthier.models.seq2seq`.

    mask = rows_mask(encoder_lengths, lengths, device)     # then: layer(hidden_1TD, mask, …)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from luthier.models.packed import FILL, FILL_SHORT
from luthier.models.planned import device_type

NAME = "luthier_seq2seq"
BMM_MOST_SCORES = 768 * 768  # of one row: longer ones are not slower by sdpa, and their scores are not kept
_CAUSAL_UNIT = 256  # few sizes of causal masks are kept
_FILL, _FILL_PAIR = 0.8, 0.5  # a bucket's rows have at least this share of its longest keys, and of its largest product


@dataclass(frozen=True)
class RowBucket:
    """Rows that are computed together: how many, their longest queries and keys, and which keys are padding.

    Attributes:
        hidden_B11K: true at padding; None if all rows have as many keys.
    """

    rows: int
    queries: int
    keys: int
    hidden_B11K: Tensor | None


@dataclass(frozen=True)
class Places:
    """Tokens of one sequence at the places of all buckets: `tokens_M` for each place (padding repeats a row's last).

    `place_T` is the way back: each token's place.
    """

    tokens_M: Tensor
    place_T: Tensor


@dataclass(frozen=True)
class RowLayout:
    """How rows are put into buckets."""

    buckets: tuple[RowBucket, ...]
    queries: Places
    keys: Places


def rows_mask(queries: Sequence[int], keys: Sequence[int], device: torch.device) -> Tensor:
    """Return the "mask" that tells the attention the rows' lengths: int64 [1, 1, 2, rows]."""
    return torch.tensor([list(queries), list(keys)], dtype=torch.int64, device=device)[None, None]


def rows_attention(
    query_THD: Tensor,
    key_SHD: Tensor,
    value_SHD: Tensor,
    layout: RowLayout,
    scaling: float,
    bias_1HLM: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """Return the attention output [T, H, D]: of row n's queries over row n's keys.

    Args:
        bias_1HLM: added to the scores of each row, from its first token on; as long as the longest row, `rounded`.
        causal: query t sees keys 0 … t (the bias may say the same already).
    """
    q_MHD = _taken(query_THD, layout.queries)
    k_MHD, v_MHD = _taken(key_SHD, layout.keys), _taken(value_SHD, layout.keys)
    q_parts = torch.split(q_MHD, [b.rows * b.queries for b in layout.buckets])
    k_parts, v_parts = (torch.split(x, [b.rows * b.keys for b in layout.buckets]) for x in (k_MHD, v_MHD))
    outputs = []
    for bucket, q, k, v in zip(layout.buckets, q_parts, k_parts, v_parts, strict=True):
        q_BHLD = q.view(bucket.rows, bucket.queries, *q.shape[1:]).transpose(1, 2)
        k_BHMD, v_BHMD = (x.view(bucket.rows, bucket.keys, *x.shape[1:]).transpose(1, 2) for x in (k, v))
        bias = _bias_of(bucket, bias_1HLM, causal, q)
        out_BHLD = _attend(q_BHLD, k_BHMD, v_BHMD, bias, bucket.hidden_B11K, scaling, dropout)
        outputs.append(out_BHLD.transpose(1, 2).flatten(0, 1))
    return _put_back(torch.cat(outputs) if len(outputs) > 1 else outputs[0], layout.queries)


def plain_rows_attention(
    query_THD: Tensor,
    key_SHD: Tensor,
    value_SHD: Tensor,
    lengths: tuple[tuple[int, ...], tuple[int, ...]],
    scaling: float,
    bias_1HLM: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Return the same, one row after another with the softmax written out: the reference."""
    outputs = []
    sides = zip((query_THD, key_SHD, value_SHD), (lengths[0], lengths[1], lengths[1]), strict=True)
    for q, k, v in zip(*(torch.split(x_THD, list(of)) for x_THD, of in sides), strict=True):
        scores_HLM = torch.einsum("lhd,mhd->hlm", q, k) * scaling
        if bias_1HLM is not None:
            scores_HLM = scores_HLM + bias_1HLM[0, :, : len(q), : len(k)]
        if causal:
            scores_HLM = scores_HLM + _causal(len(q), scores_HLM.dtype, scores_HLM.device)
        outputs.append(torch.einsum("hlm,mhd->lhd", torch.softmax(scores_HLM, -1), v))
    return torch.cat(outputs)


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls: query [1, H, T, D] → output [1, T, H, D].

    A call without `rows_mask` (generation, padded batches) is ordinary scaled-dot-product attention.
    """
    if attention_mask is None or attention_mask.dtype != torch.int64:
        if position_bias is not None:
            kwargs["position_bias"] = position_bias
        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return out
    lengths = attention_mask[0, 0].tolist()
    layout = make_row_layout(tuple(lengths[0]), tuple(lengths[1]), query.device)
    q_THD, k_SHD, v_SHD = (x[0].transpose(0, 1) for x in (query, key, value))
    bias = None if position_bias is None or position_bias.numel() == 1 else position_bias
    causal = bool(getattr(module, "is_causal", False)) and bias is None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return rows_attention(q_THD, k_SHD, v_SHD, layout, scale, bias, causal, dropout)[None], None


def causal_bias(bias_1HLL: Tensor) -> Tensor:
    """Return a bias in which no query sees a later key."""
    return bias_1HLL + _causal(bias_1HLL.shape[-1], bias_1HLL.dtype, bias_1HLL.device)


# -- buckets -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def make_row_layout(queries: tuple[int, ...], keys: tuple[int, ...], device: torch.device) -> RowLayout:
    """Return how to put rows with so many queries and keys into buckets."""
    groups = _grouped(queries, keys)
    buckets = []
    for rows in groups:
        longest = rounded(max(keys[row] for row in rows))
        hidden = torch.tensor([[place >= keys[row] for place in range(longest)] for row in rows])
        hidden_B11K = hidden[:, None, None].to(device) if bool(hidden.any()) else None
        buckets.append(RowBucket(len(rows), rounded(max(queries[row] for row in rows)), longest, hidden_B11K))
    places = [_places(lengths, groups, device) for lengths in (queries, keys)]
    return RowLayout(tuple(buckets), places[0], places[1])


def rounded(length: int) -> int:
    """Round a bucket's length up to 16 tokens (longer ones: 64): oneDNN keeps a kernel for every shape that it meets.

    Without it bfloat16 training of a model of 60M weights held 90 MB more, and grew for longer.
    """
    unit = FILL if length > 2 * FILL else FILL_SHORT
    return -(-length // unit) * unit


def _grouped(queries: Sequence[int], keys: Sequence[int]) -> list[list[int]]:
    groups: list[list[int]] = []
    for row in sorted(range(len(keys)), key=lambda n: (-keys[n], -queries[n])):
        if groups and _belongs(row, groups[-1], queries, keys):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _belongs(row: int, group: Sequence[int], queries: Sequence[int], keys: Sequence[int]) -> bool:
    longest = max(queries[row], *(queries[member] for member in group))
    own = sum(queries[member] * keys[member] for member in (*group, row))
    is_full = own >= _FILL_PAIR * (len(group) + 1) * longest * keys[group[0]]
    return keys[row] >= _FILL * keys[group[0]] and is_full


def _places(lengths: Sequence[int], groups: Sequence[Sequence[int]], device: torch.device) -> Places:
    starts = [0, *itertools.accumulate(lengths)]
    place_T = torch.empty(starts[-1], dtype=torch.int64)
    tokens, first = [], 0
    for rows in groups:
        longest = rounded(max(lengths[row] for row in rows))
        for row in rows:
            tokens.append(starts[row] + torch.arange(longest).clamp_(max=lengths[row] - 1))
            place_T[starts[row] : starts[row + 1]] = first + torch.arange(lengths[row])
            first += longest
    return Places(torch.cat(tokens).to(device), place_T.to(device))


# -- arithmetic ----------------------------------------------------------------------------------------------------


def _attend(
    q_BHLD: Tensor, k_BHMD: Tensor, v_BHMD: Tensor,
    bias: Tensor | None, hidden: Tensor | None, scaling: float, dropout: float,
) -> Tensor:  # fmt: skip
    """Return the output [B, H, L, D]. Scores are rounded to the inputs' precision, as in any unfused attention."""
    long = q_BHLD.shape[-2] * k_BHMD.shape[-2] > BMM_MOST_SCORES
    if long or device_type(q_BHLD.device) != "cpu":
        return functional.scaled_dot_product_attention(
            q_BHLD, k_BHMD, v_BHMD, _one_mask(bias, hidden, q_BHLD), dropout_p=dropout, scale=scaling
        )
    q_BHLD = q_BHLD if scaling == 1.0 else q_BHLD * scaling
    scores = torch.matmul(q_BHLD, k_BHMD.transpose(-1, -2))
    if bias is not None:
        scores = scores.add_(bias.to(scores.dtype))
    if hidden is not None:
        scores = scores.masked_fill_(hidden, -math.inf)
    weights = torch.softmax(scores, -1, dtype=scores.dtype)
    if dropout:
        weights = functional.dropout(weights, dropout)
    return torch.matmul(weights.to(v_BHMD.dtype), v_BHMD)


def _one_mask(bias: Tensor | None, hidden: Tensor | None, like: Tensor) -> Tensor | None:
    if bias is None:
        return None if hidden is None else ~hidden
    bias = bias.to(like.dtype)
    return bias if hidden is None else bias.masked_fill(hidden, -math.inf)


def _bias_of(bucket: RowBucket, bias_1HLM: Tensor | None, causal: bool, like: Tensor) -> Tensor | None:
    if bias_1HLM is not None:
        return bias_1HLM[:, :, : bucket.queries, : bucket.keys]
    return _causal(bucket.queries, like.dtype, like.device)[None, None] if causal else None


def _causal(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Bias [L, L]: 0 where a query sees a key, −inf elsewhere; a corner of one that is kept."""
    return _kept_causal(-(-length // _CAUSAL_UNIT) * _CAUSAL_UNIT, dtype, device)[:length, :length]


@lru_cache(maxsize=4)
def _kept_causal(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((length, length), -math.inf, dtype=dtype, device=device).triu_(1)


def _taken(x_TX: Tensor, places: Places) -> Tensor:
    """Return the tokens at the places of the buckets."""
    taken: Tensor = _Gather.apply(x_TX, places.tokens_M, places.place_T, None)  # type: ignore[no-untyped-call]
    return taken


def _put_back(x_MX: Tensor, places: Places) -> Tensor:
    """Return what the buckets made of each token."""
    put: Tensor = _Gather.apply(x_MX, places.place_T, places.tokens_M, len(places.tokens_M))  # type: ignore[no-untyped-call]
    return put


class _Gather(torch.autograd.Function):
    """Rows by index, whose backward is an index as well: padding gets no gradient, so nothing has to be added up."""

    @staticmethod
    def forward(ctx: Any, x_TX: Tensor, index_M: Tensor, back_T: Tensor, places: int | None) -> Tensor:
        ctx.save_for_backward(index_M, back_T)
        ctx.places = places
        return x_TX.index_select(0, index_M)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_MX: Tensor) -> tuple[Tensor | None, ...]:
        index_M, back_T = ctx.saved_tensors
        if ctx.places is None:  # the way into buckets: the gradient at padding is zero, so each token has one place
            return grad_MX.index_select(0, back_T), None, None, None
        grad = grad_MX.new_zeros((ctx.places, *grad_MX.shape[1:]))
        return grad.index_copy_(0, index_M, grad_MX), None, None, None


AttentionInterface.register(NAME, attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
