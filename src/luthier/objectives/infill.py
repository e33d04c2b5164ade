"""Infilling: write what is missing in the middle of a text. `infill` chooses by the model's kind.

Decoders learn it by fill in the middle (`luthier.objectives.fim`), encoder-decoders by span corruption
(`luthier.objectives.span_corruption`). Rows are texts, of which the objective takes a span away, or texts with a gap
(`Row.gap`), which is used as it is. A longer text than `max_length` is cut into pieces first and each piece is
transformed by itself, so that no part of it is torn off from the others ("context level" in Bavarian et al. 2022). What
is drawn for a piece depends on the seed, the row's id and the piece's number alone: a resumed run draws the same.

    objective = make_objective("infill", context)
    encoded = objective.encode_all(row); prompt = objective.ask(row_with_a_gap)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from luthier.ground.errors import BadInput
from luthier.ground.seeds import derived_seed
from luthier.ground.spec import CorruptionSpec
from luthier.objectives.added_tokens import with_tokens
from luthier.objectives.base import OBJECTIVES, Objective, ObjectiveContext
from luthier.objectives.fim import Ordered, encode_parts, psm, spm, trimmed
from luthier.objectives.gaps import Gap, draw_gap
from luthier.objectives.pieces import cut_text
from luthier.objectives.sentinels import ADDED, Sentinels, find_sentinels
from luthier.objectives.sft import next_token_loss
from luthier.rows.template import Renderer, RowRefused
from luthier.rows.types import Encoded, Pack, Row

MARKS = 3  # sentinels of a row
SPARE = 16  # tokens of a piece's length left for sentinels, the end token and the tokens that a cut may add


@OBJECTIVES.register("infill")
def make_infill(context: ObjectiveContext) -> Objective:
    """Return fill in the middle for a decoder, span corruption for an encoder-decoder."""
    if context.architecture == "encoder-decoder":
        from luthier.objectives.span_infill import SpanInfill  # here, since it is a sibling that builds on this module

        return SpanInfill(context)
    if context.train.corruption != CorruptionSpec():
        raise BadInput(
            "the model is a decoder, and span corruption is for encoder-decoders",
            where="train.corruption",
            fix="leave it out (train.infill is for this model), or choose another model",
        )
    return FillInTheMiddle(context)


class FillInTheMiddle(Objective):
    """Fill in the middle for a decoder: next-token cross entropy on texts of which a part was moved to the end.

    The model's own sentinel tokens are used where it has them; others are added, with trained vectors. Of the texts
    without a gap `infill.rate` are transformed, `infill.spm_rate` of them in the order suffix, prefix, middle. The
    middle ends with the end token, and so does a text that stays as it is.
    """

    name = "infill"

    def __init__(self, context: ObjectiveContext) -> None:
        super().__init__(context)
        renderer, found = self.renderer, find_sentinels(self.renderer.tokenizer)
        if found is None:
            marks, resized = (ADDED.prefix, ADDED.suffix, ADDED.middle), context.train.adapter.kind == "full"
            renderer, extension = with_tokens(renderer, marks, special=True, resized=resized)
            self.extensions = (*self.extensions, extension)
            found = find_sentinels(renderer.tokenizer)
        assert found is not None
        self.sentinels: Sentinels = found
        self._renderer = ending_at(renderer, found.stop_ids)
        self.end_id = end_id_of(renderer) if found.end is None else found.end
        self.spec = context.train.infill

    def encode(self, row: Row) -> Encoded:
        """Return the row as one piece, however long it is."""
        return self._gap_row(row, row.gap) if row.gap else self._piece(row, text_of(row), 0)

    def encode_all(self, row: Row) -> list[Encoded]:
        """Return the row in pieces of at most `max_length` tokens; a row with a gap is one."""
        if row.gap:
            return [self.encode(row)]
        longest = max(2, self.context.train.max_length - SPARE)
        pieces = cut_text(self.renderer.tokens, text_of(row), longest, by_lines=self.spec.spans == "line")
        return [self._piece(row, text, number) for number, text in enumerate(pieces)]

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, float]:
        """Return (summed cross entropy of the pack's target tokens, the sum of their weights)."""
        return next_token_loss(model, pack)

    def ask(self, row: Row) -> list[int]:
        """Return the prompt for a text with a gap; three quarters of `max_length` may be what stands around it."""
        if row.gap is None or row.text is None:
            raise BadInput("infill asks for what is missing in a text, and this row has no gap", where=row.place)
        prompt, _ = self.prompt(row.text, row.gap, self.context.train.max_length * 3 // 4)
        return prompt

    def prompt(self, text: str, gap: Gap, longest: int) -> tuple[list[int], list[int]]:
        """Return the prompt of at most `longest` tokens, and the tokens that stand before the gap in it."""
        parts = encode_parts(self.renderer.tokens, text[: gap[0]] + text[gap[1] :], (gap[0], gap[0]))
        parts = trimmed(parts, max(2, longest - len(self._start()) - MARKS))
        asked = (spm if self.spec.spm_rate == 1.0 else psm)(self.sentinels, parts)
        return [*self._start(), *asked.ids], parts.prefix

    def _piece(self, row: Row, text: str, number: int) -> Encoded:
        """Return a piece of text, transformed or not as its seed decides."""
        chance = np.random.default_rng(self._seed(row, number, "whether"))
        if chance.random() < self.spec.rate:
            gap = draw_gap(text, self.spec.spans, self._seed(row, number, "where"))
            order = self._ordered(text, gap, chance)
            if len(self._start()) + len(order.ids) + 1 <= self.context.train.max_length:
                return self._encoded(row, order)
        ids = self.renderer.tokens.encode_document(text)
        if not ids:
            raise RowRefused("empty_row", "the text has no tokens", where=row.place, fix="delete the row")
        return encoded_of(row, ids, [True] * len(ids))

    def _gap_row(self, row: Row, gap: Gap) -> Encoded:
        """Return a text with a given gap; `on_long: cut_prompt` takes context off at the far ends."""
        chance = np.random.default_rng(self._seed(row, 0, "order"))
        parts = encode_parts(self.renderer.tokens, text_of(row), gap)
        kept = parts
        if self.context.train.on_long == "cut_prompt":
            room = self.context.train.max_length - len(parts.middle) - len(self._start()) - MARKS - 1
            kept = trimmed(parts, max(2, room))
        order = spm if chance.random() < self.spec.spm_rate else psm
        return self._encoded(row, order(self.sentinels, kept), cut=len(parts) - len(kept))

    def _ordered(self, text: str, gap: Gap, chance: np.random.Generator) -> Ordered:
        order = spm if chance.random() < self.spec.spm_rate else psm
        return order(self.sentinels, encode_parts(self.renderer.tokens, text, gap))

    def _encoded(self, row: Row, order: Ordered, cut: int = 0) -> Encoded:
        start = self._start()
        ids = [*start, *order.ids, self.end_id]
        before = len(start) + order.asked
        trained = [self.spec.loss == "all"] * before + [True] * (len(ids) - before)
        return encoded_of(row, ids, trained, cut=cut)

    def _start(self) -> list[int]:
        tokens = self.renderer.tokens
        return [tokens.bos_id] if tokens.adds_bos and tokens.bos_id is not None else []

    def _seed(self, row: Row, number: int, what: str) -> int:
        return derived_seed(self.context.train.seed, "infill", what, row.id, number)


def text_of(row: Row) -> str:
    """Return the row's text.

    Raises:
        RowRefused: it is a conversation.
    """
    if row.text is None:
        raise RowRefused(
            "not_text",
            "infill trains on text, or text with a gap, and this row is a conversation",
            where=row.place,
            fix="give it the field text (and gap), or choose train.objective: sft",
        )
    return row.text


def encoded_of(
    row: Row, ids: Sequence[int], trained: Sequence[bool], *, cut: int = 0, encoder: Sequence[int] | None = None
) -> Encoded:
    """Return tokens with their mask and the row's weight; the first token is never a target."""
    target_T = np.array(trained, dtype=np.bool_)
    target_T[:1] = False
    return Encoded(
        np.array(ids, dtype=np.int64),
        target_T,
        row.place,
        cut=cut,
        weight_T=None if row.weight == 1.0 else np.full(len(ids), row.weight, dtype=np.float32),
        encoder_S=None if encoder is None else np.array(encoder, dtype=np.int64),
    )


def ending_at(renderer: Renderer, stop_ids: frozenset[int]) -> Renderer:
    """Return the renderer with more tokens at which an answer ends."""
    other = copy.copy(renderer)
    other.end_ids = renderer.end_ids | stop_ids
    return other


def end_id_of(renderer: Renderer) -> int:
    """Return the token that ends a text.

    Raises:
        BadInput: the tokenizer has none.
    """
    if renderer.tokens.eos_id is None:
        raise BadInput("this tokenizer has no end-of-text token, so no filling could end", fix="choose another model")
    return renderer.tokens.eos_id
