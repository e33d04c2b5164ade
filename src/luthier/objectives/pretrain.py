"""Continued pretraining: predict every token of a document from those before it, and then that it ends.

Documents are kept apart by the packs, so none is read behind another. A conversation is trained as the text that it
renders to, all of it. Where documents come from, and how they are cut into pieces, is `luthier.rows.corpus`.

    objective = ContinuedPretraining(ObjectiveContext(renderer)); objective.encode(Row("1", "a.txt:1", text="…"))
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from luthier.ground.errors import BadInput
from luthier.objectives.base import OBJECTIVES, Objective, ObjectiveContext
from luthier.objectives.sft import next_token_loss
from luthier.rows.types import Encoded, Pack, Row


@OBJECTIVES.register("pretrain")
class ContinuedPretraining(Objective):
    """Cross entropy of all tokens of raw text."""

    name = "pretrain"
    answers = "likelihood"
    reads_corpora = True

    def __init__(self, context: ObjectiveContext) -> None:
        super().__init__(context)
        if context.architecture == "encoder-decoder":
            raise BadInput(
                "pretrain needs a model that only decodes, and this one encodes first",
                where="train.objective",
                fix="set train.objective: infill, which masks spans as encoder-decoder models were pretrained",
            )
        _refuse_what_needs_answers(context)

    def encode(self, row: Row) -> Encoded:
        """Return the row as token ids, every one but the first a target."""
        if row.weight != 1.0:
            raise BadInput("a document has no weight of its own", where=row.place, fix="weigh its source in data.train")
        encoded = self.renderer.encode_row(row)
        target_T = np.ones(len(encoded.ids_T), dtype=np.bool_)
        target_T[:1] = False
        return replace(encoded, target_T=target_T, weight_T=None)

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, float]:
        """Return (summed cross entropy of the pack's tokens, their number)."""
        return next_token_loss(model, pack)


def _refuse_what_needs_answers(context: ObjectiveContext) -> None:
    train = context.train
    if train.passages:
        raise BadInput("raw text has no prompt to put passages into", where="train.passages", fix="set it to 0")
    if train.best_by == "metric":
        raise BadInput("raw text has no answers to score", where="train.best_by", fix="set train.best_by: dev_loss")
