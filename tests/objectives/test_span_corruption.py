"""Span corruption against the published procedure, written a second time here; nothing is lost by it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BartConfig, PreTrainedModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from luthier.ground.errors import BadInput
from luthier.ground.spec import CorruptionSpec, TrainSpec
from luthier.objectives.base import ObjectiveContext, make_objective
from luthier.objectives.span_corruption import corrupted, corrupted_runs, noise_counts, noise_mask, read_spans
from luthier.objectives.span_infill import SpanInfill
from luthier.rows.packing import one_pack
from luthier.rows.template import Renderer, RowRefused
from luthier.rows.types import Row
from rows.conftest import make_tokenizer
from rows.families import Family

SENTINELS = list(range(1000, 1100))
PLAIN = Family(template="", eos="</s>", end="</s>", specials=("<pad>", "</s>"))
MARKED = Family(
    template="", eos="</s>", end="</s>", specials=("<pad>", "</s>", *(f"<extra_id_{n}>" for n in range(20)))
)
TEXT = "the assistant writes a short answer about the weather in Paris, the capital of France. " * 2


# -- the published procedure, written a second time ------------------------------------------------------------------


def published_counts(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """As in T5's `random_spans_noise_mask`: rounded, at least one, and not all tokens."""
    noise = int(np.round(length * density))
    noise = min(max(noise, 1), length - 1)
    spans = max(int(np.round(noise / mean_span)), 1)
    return noise, spans


def published_encoder(ids: list[int], mask: list[bool]) -> list[int]:
    """`noise_span_to_unique_sentinel`: the first token of each masked span becomes a sentinel, its others go."""
    out, spans = [], 0
    for place, (token, noise) in enumerate(zip(ids, mask, strict=True)):
        if not noise:
            out.append(token)
        elif place == 0 or not mask[place - 1]:
            out.append(SENTINELS[spans])
            spans += 1
    return out


def published_decoder(ids: list[int], mask: list[bool]) -> list[int]:
    """`nonnoise_span_to_unique_sentinel`: the same with the mask the other way round."""
    return published_encoder(ids, [not noise for noise in mask])


def restored(encoder: list[int], decoder: list[int]) -> list[int]:
    spans = read_spans(decoder, SENTINELS)
    return [token for mark in encoder for token in (spans[mark] if mark in SENTINELS else [mark])]


@given(st.integers(2, 300), st.sampled_from([0.15, 0.3, 0.5]), st.sampled_from([1.0, 3.0, 10.0]), st.integers(0, 10**6))
@settings(max_examples=300, deadline=None)
def test_masks_have_the_published_numbers_and_order(length: int, density: float, mean: float, seed: int) -> None:
    mask = noise_mask(length, density, mean, seed)
    noise, spans = published_counts(length, density, mean)
    spans = min(spans, length - noise)  # each span stands behind kept text
    starts = np.flatnonzero(np.diff(np.r_[0, mask.astype(int)]) == 1)
    assert (int(mask.sum()), len(starts)) == (noise, spans) == noise_counts(length, density, mean)
    assert not mask[0] and mask[-1]
    assert (mask == noise_mask(length, density, mean, seed)).all()


@given(st.integers(2, 120), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_encoder_and_decoder_are_the_published_ones_and_nothing_is_lost(length: int, seed: int) -> None:
    ids = list(range(length))
    mask = noise_mask(length, 0.3, 2.0, seed).tolist()
    made = corrupted(ids, mask, SENTINELS)
    assert made.encoder == published_encoder(ids, mask)
    assert made.decoder == published_decoder(ids, mask)
    assert restored(made.encoder, made.decoder) == ids


def test_all_masks_are_equally_likely() -> None:
    """Six tokens, three masked in two spans: 2 ways to cut the masked ones and 2 to cut the kept ones."""
    masks = Counter(tuple(noise_mask(6, 0.5, 1.5, seed).tolist()) for seed in range(4000))
    assert len(masks) == 4
    assert all(count / 4000 == pytest.approx(1 / 4, abs=0.03) for count in masks.values())


def test_a_mask_that_ends_with_kept_text_ends_with_one_more_sentinel() -> None:
    made = corrupted([1, 2, 3, 4], [False, True, True, False], SENTINELS)
    assert (made.encoder, made.decoder) == ([1, 1000, 4], [1000, 2, 3, 1001])
    assert corrupted_runs([(True, []), (False, [7])], SENTINELS).encoder == [1000, 7]


def test_too_short_and_too_many() -> None:
    with pytest.raises(ValueError, match="fewer than two"):
        noise_mask(1, 0.5, 1.0, 0)
    with pytest.raises(ValueError, match="more masked spans than the 1 sentinels"):
        corrupted([1, 2, 3, 4], [False, True, False, True], SENTINELS[:1])


# -- the objective ---------------------------------------------------------------------------------------------------


@cache
def tokenizer(family: Family = MARKED) -> PreTrainedTokenizerFast:
    made = make_tokenizer(family)
    made.chat_template = None
    made.pad_token = "<pad>"
    return made


def config(size: int) -> T5Config:
    return T5Config(
        vocab_size=size, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, dropout_rate=0.0, pad_token_id=0,
        eos_token_id=tokenizer().eos_token_id, decoder_start_token_id=0,
    )  # fmt: skip


def objective(family: Family = MARKED, max_length: int = 2048, **corruption: float) -> SpanInfill:
    train = TrainSpec(max_length=max_length, corruption=CorruptionSpec(**corruption))
    context = ObjectiveContext(
        Renderer(tokenizer(family)), train=train, architecture="encoder-decoder", config=config(len(tokenizer(family)))
    )
    made = make_objective("infill", context)
    assert isinstance(made, SpanInfill)
    return made


def tiny_t5() -> PreTrainedModel:
    torch.manual_seed(0)
    return T5ForConditionalGeneration(config(len(tokenizer()))).float().eval()


def test_a_text_is_corrupted_as_asked_and_can_be_put_together_again() -> None:
    made = objective(density=0.2, mean_span=2.0)
    encoded = made.encode(Row("1", "t:1", text=TEXT))
    assert encoded.encoder_S is not None
    *source, end = encoded.encoder_S.tolist()
    start, *target, last = encoded.ids_T.tolist()
    assert (start, last, end) == (0, made.end_id, made.end_id)
    assert not encoded.target_T[0] and encoded.target_T[1:].all()
    spans = read_spans(target, made.sentinels)
    ids = [token for mark in source for token in spans.get(mark, [mark])]
    assert made.renderer.tokens.decode(ids) == TEXT
    assert sum(map(len, spans.values())) == round(0.2 * len(ids))


def test_a_given_gap_is_the_only_span_and_is_asked_for_alike() -> None:
    made = objective()
    row = Row("1", "t:1", text=TEXT, gap=(4, 13))
    encoded = made.encode(row)
    assert encoded.encoder_S is not None
    assert made.ask(row) == encoded.encoder_S.tolist()
    assert made.renderer.tokens.decode(encoded.ids_T[1:].tolist()) == "<extra_id_0>assistant<extra_id_1></s>"
    assert made.sentinels[1] in made.renderer.end_ids and made.sentinels[0] not in made.renderer.end_ids


def test_several_gaps_have_a_sentinel_each() -> None:
    made = objective()
    ids = made.prompt("one two three", [(0, 3), (8, 13)])
    assert made.renderer.tokens.decode(ids) == "<extra_id_0> two <extra_id_1></s>"
    with pytest.raises(BadInput, match="there are 21 gaps, and the tokenizer has marks for 20"):
        made.prompt("x" * 50, [(n, n) for n in range(1, 22)])


def test_long_texts_come_in_pieces_that_fit() -> None:
    made = objective(max_length=40)
    pieces = made.encode_all(Row("1", "t:1", text=TEXT * 5))
    assert len(pieces) > 2 and max(map(len, pieces)) <= 40
    assert [len(one.ids_T) for one in pieces] == [
        len(one.ids_T) for one in made.encode_all(Row("1", "t:9", text=TEXT * 5))
    ]


def test_a_piece_never_needs_more_sentinels_than_there_are() -> None:
    pieces = objective(density=0.5, mean_span=1.0).encode_all(Row("1", "t:1", text=TEXT * 5))
    assert len(pieces) > 3


def test_a_text_of_one_token_is_refused() -> None:
    with pytest.raises(RowRefused, match="t:1: the text has too few tokens"):
        objective().encode(Row("1", "t:1", text="a"))


def test_a_tokenizer_without_sentinels_gets_them() -> None:
    made = objective(PLAIN)
    assert len(made.extensions) == 1 and len(made.sentinels) == 100
    assert made.sentinels[0] == len(tokenizer(PLAIN))
    assert made.renderer.tokens.decode(made.prompt("ab", [(1, 2)])) == "a<extra_id_0></s>"


def test_added_sentinels_are_trained_in_an_encoder_decoder() -> None:
    made = objective(PLAIN)
    (extension,) = made.extensions
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config(len(tokenizer(PLAIN)))).float().eval().requires_grad_(False)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trained = extension.apply(model, seed=0)
    total, _ = made.loss(model, one_pack([made.encode(Row("1", "t:1", text=TEXT, gap=(4, 13)))]))
    total.backward()
    (vectors,) = trained.values()
    assert vectors.grad is not None and vectors.grad[:2].abs().sum() > 0
    extension.remove(model)
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())


def test_a_config_without_a_start_token_is_told() -> None:
    bare = BartConfig(decoder_start_token_id=None)
    context = ObjectiveContext(Renderer(tokenizer()), architecture="encoder-decoder", config=bare)
    with pytest.raises(BadInput, match="decoder_start_token_id"):
        make_objective("infill", context)


def test_the_loss_is_transformers_own() -> None:
    model, made = tiny_t5(), objective()
    encoded = [made.encode(Row(str(n), "t:1", text=TEXT[n : n + 40])) for n in range(5)]
    total, count = made.loss(model, one_pack(encoded))
    expected = 0.0
    for one in encoded:
        labels = torch.from_numpy(one.ids_T[1:])[None]
        with torch.no_grad():
            expected += (
                float(model(input_ids=torch.from_numpy(one.encoder_S)[None], labels=labels).loss) * labels.numel()
            )
    assert count == sum(one.target_tokens for one in encoded)
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5)


def test_the_loss_adds_up_over_packs_and_weights() -> None:
    model, made = tiny_t5(), objective()
    rows = [Row(str(n), "t:1", text=TEXT[n : n + 30], weight=weight) for n, weight in enumerate((1.0, 2.0, 0.5))]
    encoded = [made.encode(row) for row in rows]
    total, count = made.loss(model, one_pack(encoded))
    single = [made.loss(model, one_pack([one])) for one in encoded]
    assert float(total.detach()) == pytest.approx(sum(float(loss.detach()) for loss, _ in single), rel=1e-5)
    assert count == pytest.approx(sum(weight for _, weight in single))
    assert count == pytest.approx(sum(one.target_tokens * row.weight for one, row in zip(encoded, rows, strict=True)))


def test_span_corruption_is_refused_for_a_decoder() -> None:
    decoder = ObjectiveContext(Renderer(tokenizer()), train=TrainSpec(corruption=CorruptionSpec(density=0.3)))
    with pytest.raises(BadInput, match=r"train\.corruption: the model is a decoder, and span corruption is for"):
        make_objective("infill", decoder)
    written_out = TrainSpec.model_validate(TrainSpec(seed=1).model_dump())
    assert make_objective("infill", replace(decoder, train=written_out)).name == "infill"
