"""Conversations as encoder-decoder models take them: a source text for the encoder, the answer for the decoder.

Such models have no chat template. A question is its texts, one below the other: the instruction (or system text), then
what the user wrote. Where there were earlier turns, each turn has its speaker's name before it. Source and answer are
encoded as the tokenizer encodes text of its own, with the special tokens that it puts around it. The decoder reads its
start token and the answer, and must predict the answer and the end token.

    renderer = SourceRenderer(tokenizer, start_ids=[0])
    encoded = renderer.encode_row(row); encoded.encoder_S, encoded.ids_T
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from luthier.ground.errors import BadInput
from luthier.ground.hashes import key_of
from luthier.rows.template import Renderer, RowRefused
from luthier.rows.tokens import Tokens
from luthier.rows.types import Encoded, Message, Row

SPEAKERS = {"user": "User: ", "assistant": "Assistant: ", "tool": "Tool: "}


class SourceRenderer(Renderer):
    """A tokenizer, and what the decoder begins with.

    Args:
        start_ids: what the decoder reads before the first token that it writes.

    Raises:
        BadInput: the tokenizer is not a fast one, or has no end-of-text token.
    """

    def __init__(self, tokenizer: Any, *, start_ids: Sequence[int], stop_ids: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.tokens = Tokens(tokenizer)
        self.warnings: list[str] = []
        self._warned = False
        self.template, self.chat_template = "source text: the instruction, then the input", ""
        self.start_ids = tuple(start_ids)
        if self.tokens.eos_id is None:
            raise BadInput("this tokenizer has no end-of-text token", fix="choose another model")
        self.key = key_of(["source-1", self.start_ids, self.tokens.names, self.tokens.controls])
        self.end_token = self.tokens.names["eos_token"]
        self.end_ids = frozenset({self.tokens.eos_id, *stop_ids})

    def with_tokenizer(self, tokenizer: Any) -> SourceRenderer:
        """Return the same over a tokenizer that knows more tokens."""
        other = SourceRenderer(tokenizer, start_ids=self.start_ids, stop_ids=self.end_ids)
        other.key = self.key
        return other

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = False, tools: str | None = None  # noqa: ARG002
    ) -> str:  # fmt: skip
        """Return the text that the encoder reads."""
        return source_text(messages)

    def encode_prompt(self, messages: Sequence[Message], tools: str | None = None) -> list[int]:
        """Return the tokens that the encoder reads to ask for the next answer."""
        if not messages or messages[-1].role == "assistant":
            raise BadInput("a prompt must end with a user's turn", fix="leave the answer out")
        if tools:
            raise BadInput("an encoder-decoder model calls no tools", fix="choose a decoder-only model")
        return self._encode(source_text(messages))

    def encode_row(
        self, row: Row, *, train: Literal["all", "last"] = "last", prompt_weight: float = 0.0  # noqa: ARG002
    ) -> Encoded:  # fmt: skip
        """Return the tokens of both sides; the last answer and its end token are the targets, each by its weight.

        Raises:
            RowRefused: the row has no answer, calls tools, or is raw text.
        """
        if row.messages is None:
            raise _refused(row, "raw text has no answer for the decoder", "train it with train.objective: infill")
        if row.messages[-1].role != "assistant" or len(row.messages) < 2:
            raise _refused(row, "the row has no question with an answer after it", "give it both, or delete it")
        if row.tools or any(message.tool_calls for message in row.messages):
            raise _refused(row, "an encoder-decoder model calls no tools", "choose a decoder-only model")
        answer = row.messages[-1]
        self._warn_of_unknown(row, answer.content)
        return self.encode_pair(row, source_text(row.messages[:-1]), answer.content, trained=answer.train)

    def encode_pair(self, row: Row, source: str, target: str, *, trained: bool = True) -> Encoded:
        """Return a source and a target text as the tokens of both sides."""
        written = self._encode(target)
        ids_T = np.array([*self.start_ids[:1], *written], dtype=np.int64)
        target_T = np.full(len(ids_T), trained)
        target_T[0] = False
        weight_T = None if row.weight == 1.0 else np.full(len(ids_T), row.weight, dtype=np.float32)
        encoder_S = np.array(self._encode(source), dtype=np.int64)
        return Encoded(ids_T, target_T, row.place, weight_T=weight_T, encoder_S=encoder_S)

    def _warn_of_unknown(self, row: Row, answer: str) -> None:
        """Say once that answers have what the tokenizer cannot write: T5's has no braces and no line breaks."""
        unknown = self.tokenizer.unk_token_id
        if not self._warned and unknown is not None and unknown in self._encode(answer):
            self._warned = True
            self.warnings.append(
                f"the tokenizer has no tokens for some characters of the answers (first: {row.place}), "
                "so the model cannot write them"
            )

    def _encode(self, text: str) -> list[int]:
        """Return the tokens of a text with what the tokenizer puts around it; an empty one has the end token."""
        assert self.tokens.eos_id is not None
        return self.tokens.encode_document(text) or [self.tokens.eos_id]


def source_text(messages: Sequence[Message]) -> str:
    """Return the text that stands for the messages before an answer."""
    texts = [message for message in messages if message.content]
    spoken = [message for message in texts if message.role != "system"]
    if len(spoken) <= 1:
        return "\n".join(message.content for message in texts)
    return "\n".join(SPEAKERS.get(message.role, "") + message.content for message in texts)


def _refused(row: Row, what: str, fix: str) -> RowRefused:
    return RowRefused("template_refused", what, where=row.place, fix=fix)
