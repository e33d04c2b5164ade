"""The decoder's hidden states of an encoder-decoder model over a pack: each row as if it were alone, without padding.

The rows' encoder tokens lie end to end, and so do their decoder tokens. T5, mT5 and BART run layer by layer with
attention from row to row (`luthier.models.seq2seq_attention`), all other encoder-decoders by transformers' own forward
on padded batches of rows of similar length (`padded_states`, the reference). Losses and generation are not here.

    hidden_ND = decoder_states(model, sources, targets, wanted_N); logits_NV = head_of_seq2seq(model)(hidden_ND)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from luthier.ground.errors import BadInput
from luthier.models.packed import FILL, FILL_SHORT, Head
from luthier.models.quiet import no_progress_bars
from luthier.models.seq2seq_attention import NAME, causal_bias, rounded, rows_mask

PADDED_TOKENS = 2048  # places of a padded batch, encoder and decoder together


@dataclass(frozen=True)
class Lines:
    """Token ids of several rows end to end, [T], and each row's length."""

    ids_T: Tensor
    lengths: tuple[int, ...]

    @property
    def positions_T(self) -> Tensor:
        """Each token's position in its row, [T]."""
        device = self.ids_T.device
        return torch.cat([torch.arange(length, device=device) for length in self.lengths])


def decoder_states(model: PreTrainedModel, sources: Lines, targets: Lines, wanted_N: Tensor) -> Tensor:
    """Return the decoder's hidden states [N, D], as the output head takes them, at its tokens `wanted_N`.

    Args:
        sources: what the encoder reads, row by row.
        targets: what the decoder reads, which begins with its start token; as many rows.

    Raises:
        BadInput: a row is longer than the model's positions.
    """
    if len(sources.lengths) != len(targets.lengths) or min((*sources.lengths, *targets.lengths), default=0) < 1:
        raise ValueError("encoder and decoder need the same rows, each with tokens")
    _refuse_long(model, sources, targets)
    run = _FAMILIES.get(model.config.model_type)
    base = model.base_model
    for hook in base._forward_pre_hooks.values():  # such as the rounding of float32 masters
        hook(base, ())
    if run is None:
        return _scaled(model, padded_states(model, sources, targets)[wanted_N])
    install_row_attention(model)
    return _scaled(model, run(base, *_filled(sources, targets))[wanted_N])


def head_of_seq2seq(model: PreTrainedModel) -> Head:
    """Return the output head for what `decoder_states` gives; BART's bias of the logits is part of it."""
    linear = model.get_output_embeddings()
    if linear is None:
        raise BadInput(f"the model {type(model).__name__} has no output head", fix="name an encoder-decoder model")
    bias = getattr(model, "final_logits_bias", None)
    if bias is None or not bool(bias.any()):
        return Head(linear)
    biased = nn.Linear(linear.in_features, linear.out_features, device="meta")
    biased.weight, biased.bias = linear.weight, nn.Parameter(bias[0].to(linear.weight.dtype), requires_grad=False)
    return Head(biased)


def start_ids(config: PretrainedConfig) -> tuple[int, ...]:
    """Return what the decoder reads before the first token that it writes.

    Raises:
        BadInput: the config names none.
    """
    start = getattr(config, "decoder_start_token_id", None)
    if start is None and config.model_type in ("t5", "mt5"):
        start = config.pad_token_id
    if start is None:
        raise BadInput(
            f'the config of this "{config.model_type}" names no decoder_start_token_id', fix="add it to config.json"
        )
    return (int(start),)


def install_row_attention(model: PreTrainedModel) -> None:
    """Make the model ask `seq2seq_attention` for its attention; ordinary calls go on as with `sdpa`."""
    if model.config._attn_implementation != NAME:
        with no_progress_bars():
            model.set_attn_implementation(NAME)


# -- any family, padded --------------------------------------------------------------------------------------------


def padded_states(model: PreTrainedModel, sources: Lines, targets: Lines) -> Tensor:
    """Return the decoder's last hidden states [T, D] by transformers' own forward on padded batches: the reference."""
    rows_S, rows_T = (torch.split(lines.ids_T, list(lines.lengths)) for lines in (sources, targets))
    order = sorted(range(len(rows_S)), key=lambda row: (len(rows_S[row]), len(rows_T[row])))
    states: dict[int, Tensor] = {}
    for rows in _batches(order, sources.lengths, targets.lengths):
        source_BS, mask_BS = _padded([rows_S[row] for row in rows])
        target_BT, _ = _padded([rows_T[row] for row in rows])
        read_BSD = model.get_encoder()(input_ids=source_BS, attention_mask=mask_BS).last_hidden_state
        written_BTD = model.get_decoder()(
            input_ids=target_BT, encoder_hidden_states=read_BSD, encoder_attention_mask=mask_BS, use_cache=False
        ).last_hidden_state
        states |= {row: hidden_TD[: len(rows_T[row])] for row, hidden_TD in zip(rows, written_BTD, strict=True)}
    return torch.cat([states[row] for row in range(len(states))])


def _batches(order: Sequence[int], sources: Sequence[int], targets: Sequence[int]) -> list[list[int]]:
    """Cut rows, which come by length, into batches that hold a bounded number of places with their padding."""
    batches: list[list[int]] = []
    for row in order:
        longer = [*(batches[-1] if batches else []), row]
        places = len(longer) * (max(sources[n] for n in longer) + max(targets[n] for n in longer))
        if batches and places <= PADDED_TOKENS:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return rows below each other, filled with zeros, and the mask of what is real, both [B, longest]."""
    lengths_B = torch.tensor([len(row) for row in rows], device=rows[0].device)
    mask = torch.arange(max(map(len, rows)), device=rows[0].device)[None] < lengths_B[:, None]
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True), mask.long()


# -- T5 and mT5 ----------------------------------------------------------------------------------------------------


def _t5(base: PreTrainedModel, sources: Lines, targets: Lines) -> Tensor:
    read_1SD = _t5_stack(base.encoder, sources, None, None)
    across = rows_mask(targets.lengths, sources.lengths, targets.ids_T.device)
    return _t5_stack(base.decoder, targets, read_1SD, across)[0]


def _t5_stack(stack: PreTrainedModel, lines: Lines, read_1SD: Tensor | None, across: Tensor | None) -> Tensor:
    """Return the last hidden states [1, T, D] of the encoder, or of the decoder that sees what the encoder `read`."""
    hidden_1TD = stack.dropout(stack.embed_tokens(lines.ids_T[None]))
    within = rows_mask(lines.lengths, lines.lengths, lines.ids_T.device)
    longest = rounded(max(lines.lengths))
    bias_1HLL = stack.block[0].layer[0].SelfAttention.compute_bias(longest, longest, device=hidden_1TD.device)
    if read_1SD is not None:
        bias_1HLL = causal_bias(bias_1HLL)
    nothing = hidden_1TD.new_zeros(1, 1, 1, 1)  # the bias across: without one, each layer makes a [T, S] of zeros
    for block in stack.block:
        hidden_1TD = block(hidden_1TD, within, bias_1HLL, read_1SD, across, nothing)[0]
    last_1TD: Tensor = stack.dropout(stack.final_layer_norm(hidden_1TD))
    return last_1TD


def _scaled(model: PreTrainedModel, hidden_ND: Tensor) -> Tensor:
    """Scale what goes into the head as T5 does with tied embeddings."""
    if getattr(model.config, "scale_decoder_outputs", False):
        hidden_ND = hidden_ND * float(model.config.d_model) ** -0.5
    return hidden_ND


# -- BART ----------------------------------------------------------------------------------------------------------


def _bart(base: PreTrainedModel, sources: Lines, targets: Lines) -> Tensor:
    within = rows_mask(sources.lengths, sources.lengths, sources.ids_T.device)
    read_1SD = _bart_embedded(base.encoder, sources)
    for layer in _kept_layers(base.encoder, base.encoder.layers):
        read_1SD = layer(read_1SD, within)
    within = rows_mask(targets.lengths, targets.lengths, targets.ids_T.device)
    across = rows_mask(targets.lengths, sources.lengths, targets.ids_T.device)
    hidden_1TD = _bart_embedded(base.decoder, targets)
    for layer in _kept_layers(base.decoder, base.decoder.layers):
        hidden_1TD = layer(hidden_1TD, within, read_1SD, encoder_attention_mask=across, use_cache=False)
    last_TD: Tensor = hidden_1TD[0]
    return last_TD


def _bart_embedded(stack: PreTrainedModel, lines: Lines) -> Tensor:
    ids_1T = lines.ids_T[None]
    places_1TD = stack.embed_positions(ids_1T, position_ids=lines.positions_T)
    hidden_1TD = stack.layernorm_embedding(stack.embed_tokens(ids_1T) + places_1TD)
    dropped_1TD: Tensor = functional.dropout(hidden_1TD, p=stack.dropout, training=stack.training)
    return dropped_1TD


def _kept_layers(stack: PreTrainedModel, layers: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the layers that run: all but those that layer dropout leaves out while training."""
    if not stack.training or not stack.layerdrop:
        return list(layers)
    return [layer for layer in layers if float(torch.rand(())) >= stack.layerdrop]


# -- lengths -------------------------------------------------------------------------------------------------------


def _filled(sources: Lines, targets: Lines) -> tuple[Lines, Lines]:
    """Round both sides up to a multiple of 64 tokens (short ones: 16) with one row that nobody reads.

    As in `luthier.models.packed`: linear layers over ever new numbers of tokens make the process grow.
    """
    short = [_missing(len(lines.ids_T)) for lines in (sources, targets)]
    if not any(short):
        return sources, targets
    filled = []
    for lines, missing in zip((sources, targets), short, strict=True):
        more = missing or _unit(len(lines.ids_T))
        ids_T = torch.cat([lines.ids_T, lines.ids_T.new_zeros(more)])
        filled.append(Lines(ids_T, (*lines.lengths, more)))
    return filled[0], filled[1]


def _unit(tokens: int) -> int:
    return FILL if tokens >= 4 * FILL else FILL_SHORT


def _missing(tokens: int) -> int:
    return -tokens % _unit(tokens)


def _refuse_long(model: PreTrainedModel, sources: Lines, targets: Lines) -> None:
    """Refuse rows beyond learned positions; T5 has distances, and no longest row."""
    most = getattr(model.config, "max_position_embeddings", None)
    longest = max(*sources.lengths, *targets.lengths)
    if most is not None and longest > most:
        raise BadInput(
            f"a row has {longest} tokens and the model's positions end at {most}",
            where="train.max_length",
            fix=f"set it to {most} or less",
        )


_FAMILIES: dict[str, Callable[[PreTrainedModel, Lines, Lines], Tensor]] = {"t5": _t5, "mt5": _t5, "bart": _bart}
