"""Predict the training of an encoder-decoder, which packs cannot run: by transformers' own forward.

The same adapters, step and optimizer as ever, on one padded batch with the logits of every position. Luthier's
objectives need a causal model, so this is a prediction for training elsewhere.

    predict_whole(config, spec, seq=512, batch=8, baseline_bytes=500_000_000).peak_bytes
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig

from luthier.ground.spec import TrainSpec
from luthier.models.quiet import no_progress_bars
from luthier.objectives.base import Objective, ObjectiveContext
from luthier.planning.predict import Prediction, predict_training
from luthier.planning.subject import is_encoder_decoder
from luthier.rows.types import Encoded, Pack, Row

ENGINE = "transformers' own forward"
_STEPS = 3  # as many as bring the optimizer's state and the allocator to where they stay


def predict_whole(
    config: PretrainedConfig,
    spec: TrainSpec,
    seq: int,
    batch: int,
    *,
    baseline_bytes: int,
    device: str = "cpu",
    answer: int | None = None,
) -> Prediction:
    """Return what training an encoder-decoder needs.

    Args:
        seq: tokens of each row that the encoder reads.
        batch: rows that are computed at once.
        baseline_bytes, device: as for `predict_training`.
        answer: tokens that the decoder writes (default: as many as `seq`, the most that a row of this length can ask).
    """
    if not is_encoder_decoder(config):
        raise ValueError("causal models are predicted by predict_training")
    objective = _WholeForward(batch, seq, answer or seq)
    zeros = np.zeros(1, dtype=np.int64)
    pack = Pack(zeros, zeros, zeros.astype(bool), (1,), ("row",))  # what is computed, the objective knows
    steps = [[pack]] * _STEPS
    predicted = predict_training(config, spec, steps, baseline_bytes=baseline_bytes, device=device, objective=objective)
    return replace(predicted, engine=ENGINE)


class _WholeForward(Objective):
    """Cross-entropy over every position of a padded batch."""

    name = "whole"

    def __init__(self, batch: int, seq: int, answer: int) -> None:
        super().__init__(ObjectiveContext(None))
        self._ids_BS = torch.zeros(batch, seq, dtype=torch.int64)
        self._labels_BT = torch.zeros(batch, answer, dtype=torch.int64)

    def encode(self, row: Row) -> Encoded:
        """Rows are made up."""
        return Encoded(np.zeros(1, dtype=np.int64), np.ones(1, dtype=bool), row.place)

    def loss(self, model: nn.Module, _pack: Pack) -> tuple[Tensor, float]:
        """Return the summed loss and the number of targets."""
        with _told_apart(model), no_progress_bars():  # no advice about caches
            logits_BTV = model(
                input_ids=self._ids_BS,
                attention_mask=torch.ones_like(self._ids_BS),
                decoder_input_ids=self._labels_BT,
                use_cache=False,
            ).logits
        return scores_loss(logits_BTV, self._labels_BT), self._labels_BT.numel()


@contextlib.contextmanager
def _told_apart(model: nn.Module) -> Iterator[None]:
    """Let what the output head makes be told from what the layers make: by the name of the function that calls it."""
    head = model.get_output_embeddings()  # type: ignore[operator]  # a PreTrainedModel
    plain = head.forward

    def scores(*args: Tensor) -> Tensor:
        out: Tensor = plain(*args)
        return out

    head.forward = scores
    try:
        yield
    finally:
        del head.forward


def scores_loss(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Return the summed cross-entropy as transformers computes it: all logits in float32."""
    logits = logits_BTV.float().view(-1, logits_BTV.shape[-1])
    return functional.cross_entropy(logits, labels_BT.view(-1), reduction="sum")
