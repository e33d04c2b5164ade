"""Supervised finetuning: predict assistant turns, and the token that ends each, from what stands before.

The mask and the weights are the renderer's; here is only the loss: the body runs over the whole pack, the head over the
positions that predict a target, nothing else.

    objective = SupervisedFinetuning(ObjectiveContext(renderer))
    loss_sum, target_tokens = objective.loss(model, one_pack([objective.encode(row)]))
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from luthier.ground.errors import BadInput
from luthier.models.packed import head_of, hidden_at
from luthier.models.segments import Segments
from luthier.objectives.base import OBJECTIVES, Objective, ObjectiveContext
from luthier.objectives.cross_entropy import summed_cross_entropy
from luthier.objectives.noise import noisy_embeddings
from luthier.objectives.sft_seq2seq import Seq2SeqFinetuning
from luthier.rows.types import Encoded, Pack, Row


@OBJECTIVES.register("sft")
def supervised(context: ObjectiveContext) -> Objective:
    """Return supervised finetuning for the kind of model that is trained.

    Raises:
        BadInput: the model is an encoder, which writes nothing, or an encoder-decoder is to be trained with noise.
    """
    if context.architecture == "encoder-decoder":
        if context.train.neftune_alpha is not None:
            raise BadInput(
                "noise on embeddings is made for models with a decoder alone",
                where="train.neftune_alpha",
                fix="leave it out for an encoder-decoder model",
            )
        return Seq2SeqFinetuning(context)
    if context.architecture == "encoder":
        raise BadInput(
            "the model is an encoder and writes no answers, so sft cannot train it",
            where="train.objective",
            fix="set it to classify, or choose a model that writes",
        )
    return SupervisedFinetuning(context)


class SupervisedFinetuning(Objective):
    """Cross entropy of all assistant turns, or of the last one; raw text counts as one turn."""

    name = "sft"

    def encode(self, row: Row) -> Encoded:
        """Return the row as token ids; the mask covers each trained turn and its end token.

        With a prompt-loss weight above 0, what stands before a trained turn is a target of that weight too. An answer
        that says `train: false` never is. All weights are times the row's own.
        """
        train = self.context.train
        return self.renderer.encode_row(row, train=train.turns, prompt_weight=train.prompt_loss_weight)

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, float]:
        """Return (weighted sum of the cross entropy of the pack's target tokens, the sum of their weights)."""
        return next_token_loss(model, pack, self.context.train.neftune_alpha)


def next_token_loss(model: nn.Module, pack: Pack, neftune_alpha: float | None = None) -> tuple[Tensor, float]:
    """Return (weighted cross entropy of a causal model over the pack's targets, the sum of their weights).

    Args:
        neftune_alpha: noise on the embeddings, while the model trains.
    """
    device = next(model.parameters()).device
    ids_T = torch.from_numpy(pack.ids_T).to(device)
    positions_T = torch.from_numpy(pack.positions_T).to(device)
    target_N = torch.from_numpy(np.flatnonzero(pack.target_T)).to(device)
    before_N = torch.from_numpy(pack.predictors_N).to(device)
    segments = Segments(pack.lengths, pack.parents)
    with noisy_embeddings(model, pack.lengths, neftune_alpha):
        hidden_ND = hidden_at(model, ids_T, positions_T, segments, before_N)  # what stands before a target predicts it
    weights_N = pack.target_weights_N
    weights = None if weights_N is None else torch.from_numpy(weights_N).to(device)
    return summed_cross_entropy(head_of(model), hidden_ND, ids_T[target_N], weights), pack.target_weight
