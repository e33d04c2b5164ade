"""Bits per byte against an independent reference of a few lines: one document, one window, transformers' own logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from luthier.evaluation import bits
from luthier.evaluation.bits import Text, ids_of, score_texts, windows
from luthier.models.packed import install_packed_attention
from luthier.objectives.added_tokens import with_tokens
from models.tiny_models import FAMILIES, tiny_model
from rows.conftest import make_renderer

TEXTS = [
    Text("1", "The warranty of the wheel lasts 24 months."),
    Text("2", "Grüße, naïve café 日本語: many bytes in few tokens."),
    Text("3", "x"),
    Text("4", "What is the capital of France? Paris is the capital of France. " * 6),
]


def model_of(tokens: int) -> PreTrainedModel:
    torch.manual_seed(0)
    config = FAMILIES["llama"]()
    config.vocab_size = tokens
    model = type(tiny_model("llama"))(config).float().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def bits_in_a_few_lines(model: PreTrainedModel, ids: list[int], window: int, stride: int) -> float:
    """Sum of −log₂ p of all tokens but the first; windows begin `stride` apart, and none is counted twice."""
    total, counted = 0.0, 1
    for begin in range(0, len(ids), stride):
        part = ids[begin : begin + window]
        logits = model(input_ids=torch.tensor([part])).logits[0].double()
        log_p = torch.log_softmax(logits, -1)
        for place in range(counted, begin + len(part)):
            total -= log_p[place - begin - 1, ids[place]].item() / math.log(2)
        counted = max(counted, begin + len(part))
        if begin + window >= len(ids):
            break
    return total


@pytest.mark.parametrize(("window", "stride"), [(400, None), (16, 8), (16, 15), (9, 2)])
def test_bits_are_those_of_the_reference(window: int, stride: int | None) -> None:
    renderer = make_renderer("chatml")
    model = model_of(len(renderer.tokenizer))
    ids = [ids_of(renderer.tokens, text.text) for text in TEXTS]
    with torch.no_grad():
        expected = [bits_in_a_few_lines(model, one, window, stride or window // 2) for one in ids]
    install_packed_attention(model)
    found = score_texts(model, renderer.tokens, TEXTS, window=window, stride=stride)
    assert [score.bits for score in found] == pytest.approx(expected, rel=1e-4)
    assert [score.bytes for score in found] == [len(text.text.encode()) for text in TEXTS]
    assert [score.tokens for score in found] == [len(one) - 1 for one in ids]


def test_packing_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = make_renderer("chatml")
    model = model_of(len(renderer.tokenizer))
    together = score_texts(model, renderer.tokens, TEXTS, window=32)
    monkeypatch.setattr(bits, "PACK_TOKENS", 1)
    alone = score_texts(model, renderer.tokens, TEXTS, window=32)
    assert [score.bits for score in together] == pytest.approx([score.bits for score in alone], rel=1e-5)


@given(tokens=st.integers(2, 200), window=st.integers(2, 50), data=st.data())
def test_windows_count_each_token_once_with_enough_before_it(tokens: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window - 1))
    seen: list[int] = []
    for row in windows(range(tokens), window, stride):
        targets = row.ids_T[row.target_T]
        seen += targets.tolist()
        assert len(row) <= window
        context = targets - row.ids_T[0]
        assert (context >= np.minimum(targets, window - stride)).all()
    assert seen == list(range(1, tokens))


def test_new_tokens_leave_the_bytes_as_they_are() -> None:
    """Fewer tokens for the same text: bits per byte stay comparable."""
    renderer = make_renderer("chatml")
    longer, extension = with_tokens(renderer, [" warranty", " capital"])
    model = model_of(len(renderer.tokenizer))
    before = score_texts(model, renderer.tokens, TEXTS, window=400)
    extension.apply(model, seed=0)
    after = score_texts(model, longer.tokens, TEXTS, window=400)
    assert [score.bytes for score in after] == [score.bytes for score in before]
    assert after[0].tokens < before[0].tokens
    assert after[2].bits == pytest.approx(before[2].bits, rel=0.05)


def test_a_document_begins_behind_what_ends_documents_or_begins_them() -> None:
    plain, begins = make_renderer("chatml").tokens, make_renderer("llama3").tokens
    assert ids_of(plain, "x")[0] == plain.eos_id
    if begins.adds_bos:
        assert ids_of(begins, "x")[0] == begins.bos_id
    assert ids_of(plain, "x")[-1] != plain.eos_id
