"""Supervised finetuning of encoder-decoder models: the encoder reads the question, the decoder writes the answer.

Each token of the answer, and its end token, is predicted from the question and the answer so far. How a row becomes the
tokens of both sides is the renderer's affair (`luthier.rows.source`).

    objective = Seq2SeqFinetuning(ObjectiveContext(SourceRenderer(tokenizer, start_ids=[0])))
    loss_sum, target_tokens = objective.loss(model, one_pack([objective.encode(row)]))
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from luthier.ground.errors import BadInput
from luthier.models.seq2seq import Lines, decoder_states, head_of_seq2seq
from luthier.objectives.base import Objective, ObjectiveContext
from luthier.objectives.cross_entropy import summed_cross_entropy
from luthier.rows.template import RowRefused
from luthier.rows.types import Encoded, Pack, Row


class Seq2SeqFinetuning(Objective):
    """Cross entropy of the last answer of each row."""

    name = "sft"

    def __init__(self, context: ObjectiveContext) -> None:
        """Make it.

        Raises:
            BadInput: a setting that has no meaning for an encoder-decoder.
        """
        super().__init__(context)
        if context.train.prompt_loss_weight:
            raise BadInput(
                "the encoder reads the prompt and predicts none of it, so that it has no loss",
                where="train.prompt_loss_weight",
                fix="leave it out for an encoder-decoder model",
            )

    def encode(self, row: Row) -> Encoded:
        """Return the tokens of both sides; the answer and its end token are the targets.

        Raises:
            RowRefused: besides what the renderer refuses, a side is longer than the model's learned positions.
        """
        encoded = self.renderer.encode_row(row)
        assert encoded.encoder_S is not None
        most = getattr(self.context.config, "max_position_embeddings", None)  # T5 has distances, and no longest side
        for side, tokens in (("source", len(encoded.encoder_S)), ("answer", len(encoded.ids_T))):
            if most is not None and tokens > most:
                what = f"the {side} has {tokens:,} tokens and the model's positions end at {most:,}"
                raise RowRefused("too_long", what, where=row.place, fix="shorten the row, or choose a T5")
        return encoded

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, float]:
        """Return (summed cross entropy of the pack's target tokens, the sum of their weights)."""
        return seq2seq_loss(model, pack)


def seq2seq_loss(model: nn.Module, pack: Pack) -> tuple[Tensor, float]:
    """Return (summed cross entropy of an encoder-decoder over the pack's targets, the sum of their weights).

    The head's reading of the decoder's hidden states is the model's own: T5 scales them, BART adds a bias.
    """
    if pack.encoder_S is None:
        raise ValueError("the pack has nothing for the encoder")
    device = next(model.parameters()).device
    ids_T = torch.from_numpy(pack.ids_T).to(device)
    sources = Lines(torch.from_numpy(pack.encoder_S).to(device), pack.encoder_lengths)
    target_N = torch.from_numpy(np.flatnonzero(pack.target_T)).to(device)
    before_N = torch.from_numpy(pack.predictors_N).to(device)
    hidden_ND = decoder_states(model, sources, Lines(ids_T, pack.lengths), before_N)
    weights_N = pack.target_weights_N
    weights = None if weights_N is None else torch.from_numpy(weights_N).to(device)
    head = head_of_seq2seq(model)
    return summed_cross_entropy(head, hidden_ND, ids_T[target_N], weights), pack.target_weight
