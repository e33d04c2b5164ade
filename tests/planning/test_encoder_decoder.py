"""Training of an encoder-decoder, traced through the real step."""

from __future__ import annotations

from typing import Any

import pytest
from tests.planning.test_scaled import small_t5

from luthier.ground.spec import TrainSpec
from luthier.planning.predict import Prediction, predict_training
from luthier.planning.workload import made_up

VOCABULARY = 512


def predict(seq: int = 64, batch: int = 4, targets: float = 1.0, device: str = "cuda", **spec: Any) -> Prediction:
    settings = TrainSpec(**spec)
    packs = made_up(seq, batch, settings, targets=targets, has_encoder=True).heaviest
    return predict_training(small_t5(), settings, [packs] * 2, baseline_bytes=0, device=device)


def test_made_up_rows_have_a_source_and_an_answer() -> None:
    load = made_up(100, 3, TrainSpec(), targets=0.25, has_encoder=True)
    (pack,) = load.heaviest
    assert pack.encoder_lengths == (100,) * 3
    assert pack.lengths == (26,) * 3 and pack.target_tokens == 75
    assert load.tokens == 3 * 126 and load.longest == 126


def test_every_weight_trained_needs_masters_gradients_and_states() -> None:
    predicted = predict(adapter={"kind": "full"})
    assert predicted.trainable_parameters == predicted.parameters
    assert predicted.terms.optimizer_bytes == pytest.approx(12 * predicted.parameters, rel=0.01)


def test_adapters_and_checkpointing_bring_it_down() -> None:
    full, lora = predict(adapter={"kind": "full"}), predict()
    again = predict(checkpointing="full")
    assert full.peak_bytes > lora.peak_bytes > again.peak_bytes
    assert again.work.flops > lora.work.flops


def test_activations_grow_with_the_tokens() -> None:
    one, two = predict(batch=2), predict(batch=4)
    kept = [p.terms.activations_bytes + p.terms.attention_bytes for p in (one, two)]
    assert kept[1] == pytest.approx(2 * kept[0], rel=0.25)  # each pack has a filler
    scores = [predict(seq=seq, device="cpu").terms.attention_bytes for seq in (64, 128)]
    assert scores[1] > 2.5 * scores[0]


def test_only_the_logits_of_targets_are_computed() -> None:
    few, many = predict(seq=128, targets=0.25), predict(seq=128)
    assert few.terms.loss_bytes <= many.terms.loss_bytes
    assert few.work.flops < many.work.flops


def test_on_a_processor_attention_has_its_term() -> None:
    assert predict(device="cpu").terms.attention_bytes > 0
