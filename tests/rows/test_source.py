"""Conversations as source and answer: what the encoder reads, what the decoder must write, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from luthier.ground.errors import BadInput
from luthier.rows.source import SourceRenderer, source_text
from luthier.rows.template import RowRefused
from luthier.rows.types import Message, Row, ToolCall

USER, ANSWER = Message("user", "the cat"), Message("assistant", "le chat")


def t5_like() -> PreTrainedTokenizerFast:
    """Letters as pieces, the end token after each text, and no braces, as T5's tokenizer is."""
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.?:"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -3.0) for letter in letters)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )  # fmt: skip


@pytest.fixture(scope="module")
def renderer() -> SourceRenderer:
    return SourceRenderer(t5_like(), start_ids=[0])


def row(*messages: Message, **more: object) -> Row:
    return Row("1", "train.jsonl:3", messages, **more)  # type: ignore[arg-type]


def test_a_single_question_is_its_texts() -> None:
    assert source_text([Message("system", "Translate."), USER]) == "Translate.\nthe cat"
    assert source_text([USER]) == "the cat"


def test_earlier_turns_have_their_speakers() -> None:
    turns = [Message("system", "Be short."), USER, ANSWER, Message("user", "and two?")]
    assert source_text(turns) == "Be short.\nUser: the cat\nAssistant: le chat\nUser: and two?"


def test_the_answer_and_its_end_are_the_targets(renderer: SourceRenderer) -> None:
    encoded = renderer.encode_row(row(USER, ANSWER))
    assert encoded.encoder_S is not None and encoded.encoder_S.tolist() == renderer.encode_prompt([USER])
    assert encoded.ids_T[0] == 0 and encoded.ids_T[-1] == renderer.tokens.eos_id
    assert encoded.target_T.tolist() == [False] + [True] * (len(encoded.ids_T) - 1)
    assert renderer.tokens.decode(encoded.ids_T[1:-1].tolist()).split()[-2:] == ["le", "chat"]
    assert encoded.weight_T is None and len(encoded) == len(encoded.ids_T) + len(encoded.encoder_S)


def test_an_empty_answer_is_the_end_token(renderer: SourceRenderer) -> None:
    assert renderer.encode_row(row(USER, Message("assistant", ""))).ids_T.tolist() == [0, renderer.tokens.eos_id]


def test_a_weight_is_that_of_every_target(renderer: SourceRenderer) -> None:
    weights_T = renderer.encode_row(row(USER, ANSWER, weight=2.5)).weight_T
    assert weights_T is not None and weights_T.dtype == np.float32 and set(weights_T.tolist()) == {2.5}


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (Row("1", "t:3", text="raw"), "raw text has no answer for the decoder"),
        (row(USER), "no question with an answer"),
        (row(ANSWER), "no question with an answer"),
        (row(USER, Message("assistant", "", tool_calls=(ToolCall("f", "{}"),))), "calls no tools"),
    ],
)
def test_what_has_no_source_or_no_answer_is_refused(renderer: SourceRenderer, bad: Row, what: str) -> None:
    with pytest.raises(RowRefused, match=what):
        renderer.encode_row(bad)


def test_a_prompt_ends_with_a_question(renderer: SourceRenderer) -> None:
    with pytest.raises(BadInput, match="must end with a user's turn"):
        renderer.encode_prompt([USER, ANSWER])


def test_the_key_knows_the_start_token(renderer: SourceRenderer) -> None:
    assert SourceRenderer(t5_like(), start_ids=[1]).key != renderer.key


def test_characters_that_cannot_be_written_are_told_once() -> None:
    found = SourceRenderer(t5_like(), start_ids=[0])
    found.encode_row(row(Message("user", "{"), ANSWER))
    assert not found.warnings
    for _ in range(2):
        found.encode_row(row(USER, Message("assistant", "{}")))
    (warning,) = found.warnings
    assert "(first: train.jsonl:3), so the model cannot write them" in warning
