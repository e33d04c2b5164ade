"""Systems that name a label without writing: a trained classification head, and the majority.

A label's probability is kept beside each answer, so that calibration can be looked at. Metrics and statistics are those
of every other system: a label is a text, several are a JSON list, a value is a number.

    system = ClassifierSystem("finetuned", lambda rows: predict(model, objective, rows), objective, Prompt(), None)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from transformers import PreTrainedModel

from luthier.evaluation.systems import TITLES, Answer, Item, Passages
from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.objectives.classify import Classification
from luthier.rows.compose import Prompt, compose
from luthier.rows.lengths import fit_length
from luthier.rows.packing import pack_rows
from luthier.rows.types import Encoded, FloatArray
from luthier.training.engine.body import fast_body
from luthier.training.engine.families import why_not

PACK_TOKENS = 1536

Predict = Callable[[Sequence[Encoded]], FloatArray]
"""Gives the probabilities [R, L] of rows without labels, in their order."""


class ClassifierSystem:
    """A trained head, asked as it was trained.

    Args:
        predict: what the model says about encoded rows.
        passages: finds passages for the items; None: closed book.
        prepare: makes the context in which the model answers, such as one that has put adapter and head in.
    """

    def __init__(
        self,
        name: str,
        predict: Predict,
        objective: Classification,
        prompt: Prompt,
        passages: Passages | None,
        *,
        prepare: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.name = name
        self.title = TITLES.get(name, name)
        self.predict = predict
        self.objective = objective
        self.prompt = prompt
        self.passages = passages
        self.prepare = prepare

    def answer(self, items: Sequence[Item], tell: Tell = silent) -> list[Answer]:
        """Answer all items; one that cannot be read fails alone."""
        found = self.passages(items) if self.passages else [[] for _ in items]
        asked = [
            self._encode(item, [passage.text for passage in passages])
            for item, passages in zip(items, found, strict=True)
        ]
        rows = [one for one in asked if isinstance(one, Encoded)]
        cut = sum(1 for row in rows if row.cut)
        if cut:
            tell({"kind": "warning", "text": f"{cut} items were cut to the model's window"})
        with self.prepare():
            started = time.perf_counter()
            numbers_RL = self.predict(rows) if rows else np.zeros((0, 0), dtype=np.float32)
            seconds = (time.perf_counter() - started) / max(1, len(rows))
        said = iter(zip(rows, numbers_RL, strict=True))
        answers = []
        for one, passages in zip(asked, found, strict=True):
            answer = _failed(one) if isinstance(one, str) else _answer(self.objective, *next(said), seconds)
            answers.append(replace(answer, passages=tuple(passages)))
        return answers

    def cost(self, answers: Sequence[Answer]) -> float | None:  # noqa: ARG002  # the machine's own time has no price here
        return None

    def _encode(self, item: Item, passages: Sequence[str]) -> Encoded | str:
        """Return the item's tokens, cut to the model's window if need be, or why there are none."""
        try:
            encoded = self.objective.question(compose(item.row, self.prompt, passages, with_answer=False))
        except BadInput as error:
            return error.what
        limit = self.objective.window
        fitted = fit_length(encoded, limit, "cut_prompt") if limit else encoded
        return fitted if fitted is not None else f"the item is longer than the model's window ({limit:,} tokens)"


class MajoritySystem:
    """What needs no model: the commonest label of the training rows, always (of numbers: their mean)."""

    name = "majority"
    title = TITLES["majority"]

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def answer(self, items: Sequence[Item], tell: Tell = silent) -> list[Answer]:  # noqa: ARG002  # the protocol's
        """Give the same answer to all items."""
        return [Answer(self._answer, 0.0, 0, 0) for _ in items]

    def cost(self, answers: Sequence[Answer]) -> float | None:  # noqa: ARG002  # it costs nothing that has a price
        return None


def predict(model: PreTrainedModel, objective: Classification, rows: Sequence[Encoded]) -> FloatArray:
    """Return the probabilities [R, L] that a trained head gives (of regression: the trained numbers), in rows' order.

    Decoders run by the fast body where they can have it, and what rows have in common at their beginning runs once.
    """
    named = [replace(row, place=str(number)) for number, row in enumerate(rows)]
    numbers_RL: FloatArray = np.zeros((len(rows), objective.head.facts.outputs), dtype=np.float32)
    is_fast = objective.context.architecture == "decoder" and why_not(model) is None
    with torch.no_grad(), fast_body(model) if is_fast else nullcontext() as engine:
        shares = engine is not None and engine.shares
        for pack in pack_rows(named, PACK_TOKENS, share=shares):
            places = [int(place) for place in pack.places if place]
            numbers_RL[places] = objective.probabilities(objective.logits(model, pack))
    return numbers_RL


def _answer(objective: Classification, row: Encoded, numbers_L: FloatArray, seconds: float) -> Answer:
    labels = objective.labels
    chances = None if labels.kind == "regression" else dict(zip(labels.labels, map(float, numbers_L), strict=True))
    text = labels.answer_of([float(number) for number in numbers_L])
    return Answer(text, seconds, len(row), 0, probabilities=chances)


def _failed(why: str) -> Answer:
    return Answer(None, 0.0, 0, 0, cause=why)
