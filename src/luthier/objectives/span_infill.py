"""Infilling for encoder-decoder models: span corruption of texts, and gaps that are given.

The encoder reads the text with a sentinel in the place of each gap, and the decoder writes the sentinels, each with
what was there. T5's own sentinels are used where the tokenizer has them; others are added, with trained vectors. How
spans are drawn stands in `luthier.objectives.span_corruption`.

    objective = make_objective("infill", context)      # of an encoder-decoder model
    encoded = objective.encode_all(row)
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from luthier.ground.errors import BadInput
from luthier.ground.seeds import derived_seed
from luthier.models.seq2seq import start_ids
from luthier.objectives.added_tokens import with_tokens
from luthier.objectives.base import Objective, ObjectiveContext
from luthier.objectives.gaps import Gap
from luthier.objectives.infill import encoded_of, end_id_of, ending_at, text_of
from luthier.objectives.pieces import cut_text
from luthier.objectives.sentinels import find_span_sentinels
from luthier.objectives.sft_seq2seq import seq2seq_loss
from luthier.objectives.span_corruption import corrupted, corrupted_runs, noise_counts, noise_mask
from luthier.rows.template import RowRefused
from luthier.rows.tokens import Tokens
from luthier.rows.types import Encoded, Pack, Row

ADDED_SPANS = 100  # as many as T5 has
SPARE = 5  # start and end tokens of both sides


class SpanInfill(Objective):
    """Span corruption for an encoder-decoder: `corruption.density` of the tokens, in spans of `corruption.mean_span`.

    The loss is on all that the decoder writes: sentinels, spans and the end token.
    """

    name = "infill"

    def __init__(self, context: ObjectiveContext) -> None:
        super().__init__(context)
        renderer, found = self.renderer, find_span_sentinels(self.renderer.tokenizer)
        if not found:
            marks, resized = [f"<extra_id_{n}>" for n in range(ADDED_SPANS)], context.train.adapter.kind == "full"
            renderer, extension = with_tokens(renderer, marks, special=True, resized=resized)
            self.extensions = (*self.extensions, extension)
            found = find_span_sentinels(renderer.tokenizer)
        self.sentinels = found
        self._renderer = ending_at(renderer, frozenset(found[1:2]))  # one gap is asked for; the next mark ends it
        self.end_id = end_id_of(renderer)
        begins = [renderer.tokens.bos_id] if renderer.tokens.adds_bos and renderer.tokens.bos_id is not None else []
        self.begins: list[int] = begins  # what the tokenizer puts before a text
        assert context.config is not None
        self.start_ids = start_ids(context.config)
        self.spec = context.train.corruption

    def encode(self, row: Row) -> Encoded:
        """Return the row as one piece, however long it is."""
        if row.gap:
            return self._gap_row(row, row.gap)
        return self._piece(row, text_of(row), 0)

    def encode_all(self, row: Row) -> list[Encoded]:
        """Return the row in pieces of at most `max_length` tokens, encoder and decoder together."""
        if row.gap:
            return [self.encode(row)]
        pieces = cut_text(self.renderer.tokens, text_of(row), self._longest())
        return [self._piece(row, text, number) for number, text in enumerate(pieces)]

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, float]:
        """Return (summed cross entropy of the decoder's targets, the sum of their weights)."""
        return seq2seq_loss(model, pack)

    def ask(self, row: Row) -> list[int]:
        """Return what the encoder reads of a text with a gap."""
        if row.gap is None or row.text is None:
            raise BadInput("infill asks for what is missing in a text, and this row has no gap", where=row.place)
        return self.prompt(row.text, [row.gap])

    def prompt(self, text: str, gaps: Sequence[Gap]) -> list[int]:
        """Return what the encoder reads of a text with gaps, which come in order and do not overlap.

        Raises:
            BadInput: there are more gaps than sentinels.
        """
        if len(gaps) > len(self.sentinels):
            raise BadInput(f"there are {len(gaps)} gaps, and the tokenizer has marks for {len(self.sentinels)}")
        runs = [(noise, [] if noise else ids) for noise, ids in runs_of(self.renderer.tokens, text, gaps)]
        return [*self.begins, *corrupted_runs(runs, self.sentinels).encoder, self.end_id]

    def _piece(self, row: Row, text: str, number: int) -> Encoded:
        ids = self.renderer.tokens.encode(text, [(0, len(text))])
        if len(ids) < 2:
            raise RowRefused(
                "empty_row", "the text has too few tokens to take any away", where=row.place, fix="delete the row"
            )
        seed = derived_seed(self.context.train.seed, "infill", row.id, number)
        mask = noise_mask(len(ids), self.spec.density, self.spec.mean_span, seed)
        if noise_counts(len(ids), self.spec.density, self.spec.mean_span)[1] > len(self.sentinels):
            raise RowRefused(
                "too_many_spans",
                f"the text needs more than the {len(self.sentinels)} marks that the tokenizer has",
                where=row.place,
                fix="lower train.max_length or train.corruption.density",
            )
        made = corrupted(ids, mask, self.sentinels)
        return self._encoded(row, made.encoder, made.decoder)

    def _gap_row(self, row: Row, gap: Gap) -> Encoded:
        made = corrupted_runs(runs_of(self.renderer.tokens, text_of(row), [gap]), self.sentinels)
        return self._encoded(row, made.encoder, made.decoder)

    def _encoded(self, row: Row, encoder: list[int], decoder: list[int]) -> Encoded:
        return encoded_of(
            row,
            [*self.start_ids, *self.begins, *decoder, self.end_id],
            [False] * len(self.start_ids) + [True] * (len(self.begins) + len(decoder) + 1),
            encoder=[*self.begins, *encoder, self.end_id],
        )

    def _longest(self) -> int:
        """Return the most tokens of a piece: with sentinels, start and end tokens it must fit, and have its marks."""
        longest = max(2, self.context.train.max_length - SPARE)
        while longest > 2:
            spans = noise_counts(longest, self.spec.density, self.spec.mean_span)[1]
            if longest + 2 * spans + SPARE <= self.context.train.max_length and spans < len(self.sentinels):
                break
            longest -= 1
        return longest


def runs_of(tokens: Tokens, text: str, gaps: Sequence[Gap]) -> list[tuple[bool, list[int]]]:
    """Return the stretches of a text in order: (in a gap, tokens); empty text around gaps is left out."""
    literals = [(0, len(text))]
    runs: list[tuple[bool, list[int]]] = []
    at = 0
    for first, end in gaps:
        if first > at:
            runs.append((False, tokens.encode(text, literals, at, first)))
        runs.append((True, tokens.encode(text, literals, first, end) if first < end else []))
        at = end
    return [*runs, (False, tokens.encode(text, literals, at, len(text)))] if at < len(text) else runs
