"""Classification and regression: a linear head on one hidden state a row, instead of words.

Which state that is depends on the model. A decoder reads the prompt as it would to answer, and the state of its last
token, from which it would write, carries the label. An encoder-decoder reads the text twice, as transformers' own
classifiers do: its encoder as it stands, its decoder shifted by one; the decoder's last state carries the label. An
encoder reads the text alone, without instruction, and the mean of its states does. The head is an extension of the
model (`luthier.models.head`), the losses stand in `luthier.objectives.classification_loss`.

    objective = Classification(ObjectiveContext(renderer, labels=LabelSet("single", ("card", "loan"))))
    loss_sum, weight = objective.loss(model, one_pack([objective.encode(row)]))
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from luthier.ground.errors import BadInput
from luthier.models.encoder import pooled_states, window_of
from luthier.models.head import HeadExtension, HeadFacts, Pooling, classification_head
from luthier.models.packed import hidden_at
from luthier.models.segments import Segments
from luthier.models.seq2seq import Lines, decoder_states
from luthier.objectives.base import OBJECTIVES, Objective, ObjectiveContext
from luthier.objectives.classification_loss import summed_label_loss
from luthier.rows.labels import LabelFault, LabelSet
from luthier.rows.template import RowRefused
from luthier.rows.types import Encoded, FloatArray, IntArray, Pack, Row

# Measured on MiniLM with the queues example (docs/classify.md): the mean of all tokens against the first token.
ENCODER_POOLING: Pooling = "mean"


@OBJECTIVES.register("classify")
class Classification(Objective):
    """One label a row, several, or a number."""

    name = "classify"
    answers = "label"

    def __init__(self, context: ObjectiveContext) -> None:
        super().__init__(context)
        if context.labels is None:
            raise BadInput("the objective classify needs labels", where="labels", fix="list them, or set data.train")
        self.labels: LabelSet = context.labels
        weights = self.labels.weights(context.train.class_weights)
        self._weights_L = None if weights is None else np.array(list(weights.values()), dtype=np.float32)
        self.head = HeadExtension(head_facts_of(context, self.labels))
        self.extensions = (*context.extensions, self.head)
        if context.architecture == "encoder" and context.config is not None:
            self.window = window_of(context.config)

    def encode(self, row: Row) -> Encoded:
        """Return the row as the tokens of its question, the last of which carries the label.

        Raises:
            RowRefused: the row has no label, or one that is not the task's.
        """
        if row.messages is None or row.messages[-1].role != "assistant":
            raise RowRefused("no_label", "the row has no label", where=row.place, fix="give it one, or delete it")
        try:
            label_L = self.labels.numbers_of(row.reference)
        except LabelFault as fault:
            fix = "mend the label" if self.labels.listed else "mend the label, or give training rows of it"
            raise RowRefused(fault.kind, fault.what, where=row.place, fix=fix) from None
        question = self.question(replace(row, messages=row.messages[:-1]))
        weight = self._weight_of(row, label_L)
        weight_T = None if weight is None else np.full(len(question.ids_T), weight, dtype=np.float32)
        return replace(question, label_L=label_L, weight_T=weight_T)

    def question(self, row: Row) -> Encoded:
        """Return a row without its answer as the tokens that the model reads, the last of which is marked."""
        ids = self._ids(row)
        if not ids:
            raise RowRefused("empty_row", "the text has no tokens", where=row.place, fix="delete the row")
        ids_T = np.array(ids, dtype=np.int64)
        target_T = np.zeros(len(ids_T), dtype=np.bool_)
        target_T[-1] = True
        if self.context.architecture != "encoder-decoder":
            return Encoded(ids_T, target_T, row.place)
        return Encoded(self._shifted(ids_T), target_T, row.place, encoder_S=ids_T)

    def ask(self, row: Row) -> list[int]:
        """Return the tokens that the model reads of a row without its answer."""
        return self._ids(row)

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, float]:
        """Return (sum of the rows' losses, each by its weight; the sum of the weights)."""
        assert pack.label_RL is not None
        logits_RL = self.logits(model, pack)
        device = logits_RL.device
        weights_R = pack.target_weights_N
        of_labels = self._weights_L if self.labels.kind == "multi" else None
        loss = summed_label_loss(
            self.labels.kind,
            logits_RL,
            torch.from_numpy(pack.label_RL).to(device),
            None if weights_R is None else torch.from_numpy(weights_R).to(device),
            None if of_labels is None else torch.from_numpy(of_labels / of_labels.mean()).to(device),
        )
        return loss, pack.target_weight

    def logits(self, model: nn.Module, pack: Pack) -> Tensor:
        """Return what the head gives for each row of a pack, [R, L], in the order of the rows' last tokens."""
        logits_RL: Tensor = classification_head(model)(self.states(model, pack))
        return logits_RL

    def states(self, model: nn.Module, pack: Pack) -> Tensor:
        """Return the hidden state of each row that its label is read from, [R, D]."""
        assert isinstance(model, PreTrainedModel)
        device = next(model.parameters()).device
        ids_T = torch.from_numpy(pack.ids_T).to(device)
        if self.context.architecture == "encoder":
            return pooled_states(model, ids_T, pack.lengths, self.head.facts.pooling)
        last_R = torch.from_numpy(np.flatnonzero(pack.target_T)).to(device)
        if pack.encoder_S is not None:
            sources = Lines(torch.from_numpy(pack.encoder_S).to(device), pack.encoder_lengths)
            states_RD = decoder_states(model, sources, Lines(ids_T, pack.lengths), last_R)
            return states_RD / _output_scale(model)
        positions_T = torch.from_numpy(pack.positions_T).to(device)
        return hidden_at(model, ids_T, positions_T, Segments(pack.lengths, pack.parents), last_R)

    def probabilities(self, logits_RL: Tensor) -> FloatArray:
        """Return the probability of each label, [R, L]; of regression, the trained number itself."""
        wide = logits_RL.detach().float()
        if self.labels.kind == "single":
            wide = torch.softmax(wide, -1)
        elif self.labels.kind == "multi":
            wide = torch.sigmoid(wide)
        numbers: FloatArray = wide.cpu().numpy()
        return numbers

    def _weight_of(self, row: Row, label_L: FloatArray) -> float | None:
        """Return what a row counts; of single, its label's weight too."""
        if self.labels.kind == "single" and self._weights_L is not None:
            return row.weight * float(self._weights_L @ label_L)
        return None if row.weight == 1.0 else row.weight

    def _ids(self, row: Row) -> list[int]:
        if self.context.architecture == "decoder":
            return self.renderer.encode_prompt(row.messages or ())
        if self.context.architecture == "encoder":
            return self.renderer.tokens.encode_document(row.input)
        told = [message.content for message in row.messages or () if message.role == "system"]
        return self.renderer.tokens.encode_document("\n\n".join([*told, row.input]))

    def _shifted(self, ids_T: IntArray) -> IntArray:
        start = getattr(self.context.config, "decoder_start_token_id", None)
        if start is None:
            raise BadInput(
                "the model's config names no decoder_start_token_id", where="model", fix="choose another model"
            )
        return np.concatenate([[int(start)], ids_T[:-1]]).astype(np.int64)


def head_facts_of(context: ObjectiveContext, labels: LabelSet) -> HeadFacts:
    """Return what the head of a task answers with."""
    pooling: Pooling = ENCODER_POOLING if context.architecture == "encoder" else "last"
    return HeadFacts(labels.kind, labels.labels, pooling, labels.mean, labels.scale, context.instruction)


def labels_of(facts: HeadFacts) -> LabelSet:
    """Return the labels that a saved head answers with."""
    return LabelSet(facts.kind, facts.labels, mean=facts.mean, scale=facts.scale)


def _output_scale(model: PreTrainedModel) -> float:
    """Return what T5 with tied embeddings multiplies its states by before the vocabulary, which this head is not."""
    if getattr(model.config, "scale_decoder_outputs", False):
        return 1 / math.sqrt(model.config.d_model)
    return 1.0
