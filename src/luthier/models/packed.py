"""Run a causal model of `transformers` over a pack: rows end to end, without padding, none of which sees another.

The pack's segments travel through the model's own forward as its attention mask: an int64 tensor [1, 1, 2, N] of their
lengths and parents, which `transformers` hands on untouched because it has four axes. The attention function registered
here reads it; any other mask means an ordinary call, which is answered by plain scaled-dot-product attention, so the
same model generates with padding and a key-value cache. A model that does not ask the attention interface once per
layer is refused, never run with documents that leak. Losses are not computed here.

    hidden_ND = hidden_at(model, ids_T, positions_T, Segments((5, 7)), wanted_N)
    logits_NV = logits_at(model, hidden_ND)
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from luthier.ground.errors import BadInput
from luthier.models.attention import pack_attention
from luthier.models.kernels.varlen import Heads
from luthier.models.quiet import no_progress_bars
from luthier.models.segments import Segments
from luthier.models.shifted import least_group, shifted_attention
from luthier.models.widened import rows_of


class Body(Protocol):
    """What can stand in for a model's own forward."""

    def __call__(self, ids_T: Tensor, positions_T: Tensor, segments: Segments, wanted_N: Tensor) -> Tensor:
        """Return the hidden states [N, D] after the final norm at the tokens `wanted_N`, which rise."""
        ...


NAME = "luthier_packed"
FILL, FILL_SHORT = 64, 16  # a filler of 63 tokens would be half of a short pack
_BODIES: weakref.WeakKeyDictionary[nn.Module, Body] = weakref.WeakKeyDictionary()
_calls: contextvars.ContextVar[list[int] | None] = contextvars.ContextVar("packed_attention_calls", default=None)


def hidden_at(
    model: PreTrainedModel, ids_T: Tensor, positions_T: Tensor, segments: Segments, wanted_N: Tensor
) -> Tensor:
    """Return the hidden states [N, D] after the final norm at the tokens `wanted_N`, in any order, repeats allowed.

    Arguments and errors are those of `hidden_states`; a body that stands in for the model (`use_body`) answers instead.
    """
    body = _BODIES.get(model)
    if body is None:
        return hidden_states(model, ids_T, positions_T, segments)[wanted_N]
    rising_M, place_N = torch.unique(wanted_N, return_inverse=True)
    filled = _filled(ids_T, positions_T, segments)
    asked_M = _with_idle(rising_M, len(filled[0]))
    hidden_MD = body(*filled, asked_M)
    if len(asked_M) == len(wanted_N) and bool((rising_M == wanted_N).all()):
        return hidden_MD
    return hidden_MD[torch.searchsorted(asked_M, rising_M)[place_N]]


@contextlib.contextmanager
def use_body(model: PreTrainedModel, body: Body) -> Iterator[None]:
    """Let `body` answer `hidden_at` in the model's place for the length of the block."""
    _BODIES[model] = body
    try:
        yield
    finally:
        del _BODIES[model]


def hidden_states(model: PreTrainedModel, ids_T: Tensor, positions_T: Tensor, segments: Segments) -> Tensor:
    """Return the hidden states [T, D] after the final norm, each document as if it were alone.

    Args:
        model: a causal model of transformers (with or without an adapter).
        ids_T: token ids of all segments, [T], int64.
        positions_T: position of each token in its document, [T].
        segments: who continues whom; they cover all T tokens.

    Raises:
        BadInput: the model does not use transformers' attention interface.
    """
    install_packed_attention(model)
    if ids_T.ndim != 1 or segments.tokens != len(ids_T):
        raise ValueError(f"segments of {segments.tokens} tokens do not cover {tuple(ids_T.shape)}")
    tokens = len(ids_T)
    ids_T, positions_T, segments = _filled(ids_T, positions_T, segments)
    mask = torch.tensor(_lines(model, segments), dtype=torch.int64, device=ids_T.device)[None, None]
    if model.config._attn_implementation != NAME:
        _refuse_leaks(model, 0)
    calls = [0]
    token = _calls.set(calls)
    try:
        output = model.base_model(
            input_ids=ids_T[None], position_ids=positions_T[None], attention_mask=mask, use_cache=False
        )
    finally:
        _calls.reset(token)
    _refuse_leaks(model, calls[0])
    hidden_TD: Tensor = output.last_hidden_state[0, :tokens]
    return hidden_TD


def logits_at(model: PreTrainedModel, hidden_ND: Tensor) -> Tensor:
    """Return the logits [N, V] of the output head for any N hidden states (scaled and capped as the model says)."""
    return head_of(model)(hidden_ND)


@dataclass(frozen=True)
class Head:
    """The output head: cap · tanh(linear(h) / divisor / cap), or linear(h) / divisor without a cap (0)."""

    linear: nn.Module
    divisor: float = 1.0
    cap: float = 0.0

    def __call__(self, hidden_ND: Tensor) -> Tensor:
        """Return the logits [N, V]."""
        logits_NV = self.uncapped(hidden_ND)
        return torch.tanh(logits_NV / self.cap) * self.cap if self.cap else logits_NV

    @property
    def rows(self) -> list[Tensor]:
        """The matrices whose rows, one after the other, give the logits: one, unless the vocabulary was widened."""
        return rows_of(self.linear)

    def uncapped(self, hidden_ND: Tensor) -> Tensor:
        """Return the logits before the soft cap."""
        logits_NV: Tensor = self.linear(hidden_ND)
        return logits_NV if self.divisor == 1.0 else logits_NV / self.divisor


def head_of(model: PreTrainedModel) -> Head:
    """Return the model's output head."""
    linear = model.get_output_embeddings()
    if linear is None:
        raise BadInput(f"the model {type(model).__name__} has no output head", fix="name a causal language model")
    divisor, cap = (getattr(model.config, key, None) for key in ("logits_scaling", "final_logit_softcapping"))
    return Head(linear, float(divisor or 1.0), float(cap or 0.0))


def _filled(ids_T: Tensor, positions_T: Tensor, segments: Segments) -> tuple[Tensor, Tensor, Segments]:
    """Round the pack up to a multiple of 64 tokens (short ones: 16) with one document that nobody sees or reads.

    oneDNN keeps a kernel and its buffers for every matrix shape it meets: linear layers over packs of ever new lengths
    make the process grow, over packs of a few lengths they do not.
    """
    missing = -len(ids_T) % (FILL if len(ids_T) >= 4 * FILL else FILL_SHORT)
    if not missing:
        return ids_T, positions_T, segments
    filler = torch.arange(missing, device=ids_T.device)
    ids = torch.cat([ids_T, torch.zeros_like(filler)])
    longer = Segments((*segments.lengths, missing), (*segments.parents, -1))
    return ids, torch.cat([positions_T, filler]), longer


def _with_idle(rising_M: Tensor, tokens: int) -> Tensor:
    """Return many wanted tokens with others that nobody wants, up to a multiple of 64, for the same reason."""
    missing = -len(rising_M) % FILL if len(rising_M) >= 4 * FILL else 0
    idle = torch.ones(tokens, dtype=torch.bool, device=rising_M.device)
    idle[rising_M] = False
    return torch.cat([rising_M, idle.nonzero()[:missing, 0]]).sort().values if missing else rising_M


def install_packed_attention(model: PreTrainedModel) -> None:
    """Make the model ask this file for its attention; ordinary calls go on as with `sdpa`. Harmless when repeated.

    A model that does not follow the attention interface stays as it is; `hidden_states` refuses it.
    """
    if model.config._attn_implementation != NAME:
        with no_progress_bars():  # a model that cannot is refused by us, not warned about
            model.set_attn_implementation(NAME)


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls: query [1, H, T, D] -> output [1, T, H, D]."""
    if not _is_lengths(attention_mask):
        return _ordinary_attention(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    assert attention_mask is not None
    segments = _segments_of(attention_mask)
    if query.shape[0] != 1 or segments.tokens != query.shape[2] or kwargs.get("position_bias") is not None:
        raise BadInput(f"packed attention does not fit {type(module).__name__}", fix="choose another model")
    _refuse_sinks(module, kwargs)
    calls = _calls.get()
    if calls is not None:
        calls[0] += 1
    heads = Heads(
        query.shape[1],
        key.shape[1],
        query.shape[-1],
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=kwargs.get("sliding_window") or 0,
        cap=kwargs.get("softcap") or 0.0,
    )
    q_THD, k_TKD, v_TKD = (x[0].transpose(0, 1) for x in (query, key, value))
    if attention_mask.shape[2] > 2:
        least = int(attention_mask[0, 0, 2, 0])
        out_THD = shifted_attention(q_THD, k_TKD, v_TKD, segments, heads, least, dropout)
    else:
        out_THD = pack_attention(q_THD, k_TKD, v_TKD, segments, heads, dropout)
    return out_THD[None], None


def _refuse_sinks(module: nn.Module, kwargs: dict[str, Any]) -> None:
    if kwargs.get("s_aux") is not None:
        raise BadInput(
            f"attention sinks ({type(module).__name__}) are not supported in packs", fix="choose another model"
        )


def _ordinary_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    if kwargs.get("softcap") is None:
        out: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return out
    return _capped_attention(query, key, value, attention_mask, kwargs)


def _capped_attention(
    query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, kwargs: dict[str, Any]
) -> tuple[Tensor, None]:
    """Soft-capped scores, which plain sdpa refuses; the mask is boolean (True: seen), or None for plain causal."""
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
    cap = float(kwargs["softcap"])
    scores = torch.tanh(query @ key.transpose(2, 3) * scale / cap) * cap
    if attention_mask is None and query.shape[2] > 1:
        attention_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril_()
    if attention_mask is not None:
        scores = (
            scores.masked_fill(~attention_mask, -math.inf)
            if attention_mask.dtype == torch.bool
            else scores + attention_mask
        )
    weights = torch.softmax(scores.float(), -1).nan_to_num(0.0).to(query.dtype)
    weights = functional.dropout(weights, kwargs.get("dropout", 0.0))
    return (weights @ value).transpose(1, 2).contiguous(), None


def _is_lengths(mask: Tensor | None) -> bool:
    return isinstance(mask, Tensor) and mask.dtype == torch.int64 and mask.ndim == 4


def _refuse_leaks(model: PreTrainedModel, calls: int) -> None:
    layers = model.config.num_hidden_layers
    if calls < layers:
        raise BadInput(
            f"{type(model).__name__} asked for packed attention in {calls} of {layers} layers, so documents would leak",
            fix="choose a model whose attention goes through transformers' attention interface",
        )


def _lines(model: PreTrainedModel, segments: Segments) -> list[tuple[int, ...]]:
    """Return what is handed to the layers as their mask; a third line says that attention is shifted, and how."""
    least = least_group(model) if model.training else None
    shifted = [] if least is None else [(least,) * len(segments.lengths)]
    return [segments.lengths, segments.parents, *shifted]


def _segments_of(mask: Tensor) -> Segments:
    lengths, parents = mask[0, 0, :2].tolist()
    return Segments(tuple(lengths), tuple(parents))


AttentionInterface.register(NAME, attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
