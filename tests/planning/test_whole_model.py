"""Training of an encoder-decoder, by transformers' own forward."""

from __future__ import annotations

from typing import Any

import pytest
from tests.planning.small import small_config
from tests.planning.test_scaled import small_t5

from luthier.ground.spec import TrainSpec
from luthier.planning.predict import Prediction
from luthier.planning.whole_model import ENGINE, predict_whole


def predict(seq: int = 64, batch: int = 4, answer: int | None = None, **spec: Any) -> Prediction:
    return predict_whole(small_t5(), TrainSpec(**spec), seq, batch, baseline_bytes=0, device="cuda", answer=answer)


def test_every_weight_trained_needs_masters_gradients_and_states() -> None:
    predicted = predict(adapter={"kind": "full"})
    assert predicted.engine == ENGINE
    assert predicted.trainable_parameters == predicted.parameters
    assert predicted.terms.optimizer_bytes == pytest.approx(12 * predicted.parameters, rel=0.01)


def test_adapters_and_checkpointing_bring_it_down() -> None:
    full, lora = predict(adapter={"kind": "full"}), predict()
    again = predict(checkpointing="full")
    assert full.peak_bytes > lora.peak_bytes > again.peak_bytes
    assert again.work.flops > lora.work.flops


def test_the_logits_of_every_position_are_told_as_loss() -> None:
    predicted = predict(seq=16, batch=8, answer=256)
    logits = 8 * 256 * 512
    # 16-bit logits, their float32 copy and its log-softmax are there together, with one gradient beside them.
    assert 8 * logits < predicted.terms.loss_bytes + predicted.terms.temporary_bytes < 20 * logits


def test_activations_grow_with_batch_and_length() -> None:
    one, two = predict(batch=2), predict(batch=4)
    assert two.terms.activations_bytes == pytest.approx(2 * one.terms.activations_bytes, rel=0.05)
    assert predict(seq=128).terms.activations_bytes > 2 * predict(seq=64).terms.activations_bytes


def test_causal_models_are_not_for_it() -> None:
    with pytest.raises(ValueError, match="predict_training"):
        predict_whole(small_config("llama"), TrainSpec(), 16, 1, baseline_bytes=0)
