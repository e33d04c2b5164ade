"""Run an encoder (BERT, RoBERTa, MiniLM …) over a pack of rows, and pool each row's hidden states into one.

Two ways that agree (tested). `packed_states` runs the rows end to end, without padding: their lengths travel through
the model's forward as its attention mask, an int64 tensor [1, 1, 1, N], and the attention function registered here
lets each token see its own row, both ways. `padded_states` runs rows of similar length as a padded batch by
transformers' own attention: the reference, and what families outside `PACKED` use. Heads and losses are not here.

    pooled_RD = pooled_states(model, ids_T, (5, 7), "mean")
"""

from __future__ import annotations

import contextvars
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from luthier.ground.errors import BadInput
from luthier.models.attention import Bucket, make_layout
from luthier.models.quiet import no_progress_bars

NAME = "luthier_encoder"
# Model types whose forward hands a mask of four axes on, and asks the attention interface in each layer (tested).
PACKED = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})
_OFFSET = frozenset({"camembert", "roberta", "xlm-roberta"})  # positions begin behind the padding token's id
FILL, FILLER = 64, 16  # packs are rounded up to so many tokens: oneDNN keeps a kernel for every shape
_calls: contextvars.ContextVar[list[int] | None] = contextvars.ContextVar("encoder_attention_calls", default=None)


def pooled_states(
    model: PreTrainedModel, ids_T: Tensor, lengths: tuple[int, ...], pooling: Literal["first", "last", "mean"]
) -> Tensor:
    """Return one hidden state a row, [R, D]: of its first or last token, or the mean over its tokens in float32.

    Args:
        ids_T: token ids of all rows end to end.
        lengths: tokens of each row; they sum to T.

    Raises:
        BadInput: a row is longer than the model's window.
    """
    hidden_TD = encoder_states(model, ids_T, lengths)
    ends_R = torch.tensor(lengths, device=hidden_TD.device).cumsum(0)
    if pooling == "last":
        return hidden_TD[ends_R - 1]
    if pooling == "first":
        return hidden_TD[ends_R - torch.tensor(lengths, device=hidden_TD.device)]
    return torch.stack([part.mean(0) for part in torch.split(hidden_TD.to(_wide(hidden_TD)), list(lengths))])


def encoder_states(model: PreTrainedModel, ids_T: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Return the hidden states [T, D], each row as if it were alone, by the way that fits the model."""
    if sum(lengths) != len(ids_T) or min(lengths, default=0) < 1:
        raise ValueError(f"rows of {lengths} tokens do not cover {tuple(ids_T.shape)}")
    longest = window_of(model.config)
    if longest is not None and max(lengths) > longest:
        raise BadInput(
            f"a row has {max(lengths):,} tokens and the model's window is {longest:,}",
            fix=f"set train.max_length to {longest} or less",
        )
    return (packed_states if model.config.model_type in PACKED else padded_states)(model, ids_T, lengths)


def window_of(config: PretrainedConfig) -> int | None:
    """Return the most tokens that an encoder can read, None if nothing limits it."""
    most = getattr(config, "max_position_embeddings", None)
    return None if most is None else int(most) - _first_position(config)


def packed_states(model: PreTrainedModel, ids_T: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Return the hidden states [T, D] of rows that run end to end, without padding."""
    _install(model)
    tokens, missing = len(ids_T), -len(ids_T) % FILL
    if missing:  # more rows, short enough for any window, which nobody sees or reads
        fillers = (min(FILLER, missing - start) for start in range(0, missing, FILLER))
        ids_T, lengths = torch.cat([ids_T, ids_T.new_zeros(missing)]), (*lengths, *fillers)
    positions_T = torch.cat([torch.arange(length, device=ids_T.device) for length in lengths])
    mask = torch.tensor(lengths, dtype=torch.int64, device=ids_T.device)[None, None, None]
    calls = [0]
    token = _calls.set(calls)
    try:
        output = model.base_model(
            input_ids=ids_T[None], position_ids=positions_T[None] + _first_position(model.config), attention_mask=mask
        )
    finally:
        _calls.reset(token)
    layers = model.config.num_hidden_layers
    if calls[0] < layers:
        raise BadInput(
            f"{type(model).__name__} asked for packed attention in {calls[0]} of {layers} layers, so rows would leak",
            fix="choose another encoder",
        )
    hidden_TD: Tensor = output.last_hidden_state[0, :tokens]
    return hidden_TD


def padded_states(model: PreTrainedModel, ids_T: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Return the hidden states [T, D] by padded batches of rows of similar length: the reference."""
    layout = make_layout(lengths, ids_T.device)
    outputs = []
    for bucket in layout.buckets:
        hidden_BLD = model.base_model(
            input_ids=ids_T[bucket.tokens_BL], attention_mask=_is_real(bucket).to(torch.int64)
        ).last_hidden_state
        outputs.append(hidden_BLD.flatten(0, 1))
    return torch.cat(outputs).index_select(0, layout.place_T)


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
    calls = _calls.get()
    if calls is None or attention_mask is None:
        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return out
    calls[0] += 1
    lengths = tuple(attention_mask[0, 0, 0].tolist())
    q_THD, k_THD, v_THD = (x[0].transpose(0, 1) for x in (query, key, value))
    return two_way_attention(q_THD, k_THD, v_THD, lengths, scaling, dropout)[None], None


def two_way_attention(
    query_THD: Tensor,
    key_THD: Tensor,
    value_THD: Tensor,
    lengths: tuple[int, ...],
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Return the attention output [T, H, D] where each token sees its whole row; rows of similar length go together."""
    layout = make_layout(lengths, query_THD.device)
    outputs = []
    for bucket in layout.buckets:
        q, k, v = (_rows_of(x, bucket) for x in (query_THD, key_THD, value_THD))
        real_BL = _is_real(bucket)
        mask = None if bool(real_BL.all()) else real_BL[:, None, None, :]
        out_BHLD = functional.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, scale=scale)
        outputs.append(out_BHLD.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, layout.place_T)


def _rows_of(x_THD: Tensor, bucket: Bucket) -> Tensor:
    """[T, H, D] -> [B, H, L, D]."""
    x = x_THD.index_select(0, bucket.tokens_BL.view(-1))
    return x.view(bucket.documents, bucket.longest, *x_THD.shape[1:]).transpose(1, 2)


def _is_real(bucket: Bucket) -> Tensor:
    """Which places of a bucket are tokens, [B, L]: padding repeats the token before it."""
    tokens_BL = bucket.tokens_BL
    first_B1 = torch.ones_like(tokens_BL[:, :1], dtype=torch.bool)
    return torch.cat([first_B1, tokens_BL[:, 1:] != tokens_BL[:, :-1]], 1)


def _first_position(config: PretrainedConfig) -> int:
    return int(config.pad_token_id) + 1 if config.model_type in _OFFSET else 0


def _install(model: PreTrainedModel) -> None:
    if model.config._attn_implementation != NAME:
        with no_progress_bars():
            model.set_attn_implementation(NAME)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


AttentionInterface.register(NAME, attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
