"""`luthier infill`: write what is missing in a text.

By an adapter that was trained with the objective `infill`, or by a base model that knows sentinel tokens. Decoders fill
one gap at a time, encoder-decoders several at once. The text is cut far from the gap where the window is too short.

    infill("def double(x):\\n    return <gap>\\n", adapter="runs/train-001").fillings[0].text
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from luthier.generation.engine import Generation
from luthier.generation.seq2seq import generator_for
from luthier.generation.settings import Settings
from luthier.ground.errors import BadInput, Refused
from luthier.ground.events import Tell, silent
from luthier.ground.infill_result import Filling, InfillResult
from luthier.ground.task import Task
from luthier.models.load import LoadedModel
from luthier.objectives.fim import encode_parts, filling_text
from luthier.objectives.infill import FillInTheMiddle
from luthier.objectives.span_corruption import read_spans
from luthier.objectives.span_infill import SpanInfill
from luthier.rows.places import Gap, at_places, line_and_column, marked
from luthier.verbs.trained import trained_in
from luthier.verbs.trained_infill import Infiller, find_infiller

LONGEST = 128  # tokens of a filling, if nothing else is asked for


def infill(
    text: str = "",
    *,
    prefix: str | None = None,
    suffix: str | None = None,
    at: Sequence[str] = (),
    adapter: str | Path | None = None,
    task: Task | str | Path | None = None,
    model: str | None = None,
    precision: Literal["bf16", "fp32"] = "bf16",
    max_new_tokens: int = LONGEST,
    temperature: float = 0.0,
    seed: int = 0,
    name: str = "the text",
    tell: Tell = silent,
) -> InfillResult:
    """Fill the gaps of a text: those marked `<gap>`, those at places, or the one between `prefix` and `suffix`.

    Args:
        at: places such as "12", "12:5" or "12:5-13:1"; what stands there now is replaced.
        adapter: a training run, or the folder of its adapter.
        task: instead of `adapter`: the task whose newest training is taken.
        model: the base model (default: the one that the adapter was trained on); alone, one that knows sentinels.
        name: what the text is called in messages.

    Raises:
        BadInput: there is no gap, or a place is not in the text; nothing is named that could fill it; or the adapter
            lacks a part.
        Refused: the model was never trained to fill gaps.
    """
    began = time.perf_counter()
    bare, gaps = _gaps(text, prefix, suffix, at, name)
    infiller = find_infiller(adapter=adapter, task=task, model=model, precision=precision, tell=tell)
    settings = Settings(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    with _ready(infiller) as loaded:
        tell({"kind": "stage", "text": f"filling {len(gaps)} gap{'s' if len(gaps) > 1 else ''}"})
        filled = _fill(infiller, loaded, bare, gaps, settings)
    if filled.cut_tokens:
        told = f"{filled.cut_tokens} tokens of {name}, far from the gap, did not fit the window"
        tell({"kind": "warning", "text": told})
    return InfillResult(
        text=_put_in(bare, gaps, [filling.text for filling in filled.fillings]),
        fillings=filled.fillings,
        method="fill in the middle" if isinstance(infiller.objective, FillInTheMiddle) else "span corruption",
        adapter=None if infiller.folder is None else str(infiller.folder),
        prompt_tokens=filled.prompt_tokens,
        cut_tokens=filled.cut_tokens,
        provenance=loaded.provenance,
        seconds=time.perf_counter() - began,
    )


@dataclass(frozen=True)
class _Filled:
    fillings: list[Filling]
    prompt_tokens: int
    cut_tokens: int = 0


def _gaps(text: str, prefix: str | None, suffix: str | None, at: Sequence[str], name: str) -> tuple[str, list[Gap]]:
    if prefix is not None or suffix is not None:
        if text or at:
            raise BadInput("a text with places and a prefix with a suffix were both given", fix="give one of them")
        before, after = prefix or "", suffix or ""
        place = "{}:{}".format(*line_and_column(before + after, len(before)))
        if not (before + after).strip():
            return at_places(before + after, [place], where=name)
        return before + after, [(len(before), len(before))]
    if not text.strip():
        raise BadInput("the text is empty", where=name, fix="give one with a gap")
    return at_places(text, at, where=name) if at else marked(text, where=name)


@contextlib.contextmanager
def _ready(infiller: Infiller) -> Iterator[LoadedModel]:
    """Yield the model with all that was trained in it."""
    loaded = infiller.load()
    if infiller.folder is None:
        yield loaded
        return
    with trained_in(loaded.model, infiller.objective.extensions, infiller.folder):
        yield loaded


def _fill(infiller: Infiller, loaded: LoadedModel, text: str, gaps: Sequence[Gap], settings: Settings) -> _Filled:
    if isinstance(infiller.objective, SpanInfill):
        return _fill_spans(infiller.objective, loaded, text, gaps, settings)
    return _fill_middle(infiller.objective, loaded, text, gaps, settings)


def _fill_middle(
    objective: FillInTheMiddle, loaded: LoadedModel, text: str, gaps: Sequence[Gap], settings: Settings
) -> _Filled:
    if len(gaps) > 1:
        raise BadInput(
            f"there are {len(gaps)} gaps, and a decoder fills one at a time",
            fix="fill one after the other, or use an encoder-decoder",
        )
    renderer, (gap,) = objective.renderer, gaps
    generator = generator_for(loaded.model, renderer.tokenizer, renderer.end_ids)
    window = min(objective.context.train.max_length, generator.context or objective.context.train.max_length)
    bare = text[: gap[0]] + text[gap[1] :]
    prompt, before = objective.prompt(bare, (gap[0], gap[0]), window - min(settings.max_new_tokens, window // 4))
    whole = encode_parts(renderer.tokens, bare, (gap[0], gap[0]))
    said = _written(generator.generate([prompt], settings)[0])
    filling = _filling(text, gap, filling_text(renderer.tokens, before, said.ids), said)
    return _Filled([filling], len(prompt), max(0, len(whole) + 3 - len(prompt)))


def _fill_spans(
    objective: SpanInfill, loaded: LoadedModel, text: str, gaps: Sequence[Gap], settings: Settings
) -> _Filled:
    renderer, tokens = objective.renderer, objective.renderer.tokens
    prompt = objective.prompt(text, gaps)
    ends = {objective.end_id, *objective.sentinels[len(gaps) : len(gaps) + 1]}
    said = _written(generator_for(loaded.model, renderer.tokenizer, ends).generate([prompt], settings)[0])
    spans = read_spans(said.ids, objective.sentinels)
    fillings = []
    for number, gap in enumerate(gaps):
        ids = spans.get(objective.sentinels[number], [])
        before = tokens.encode(text[: gap[0]], [(0, gap[0])]) if gap[0] else []
        fillings.append(_filling(text, gap, filling_text(tokens, before, ids), said, len(ids)))
    return _Filled(fillings, len(prompt))


def _written(said: Generation) -> Generation:
    if said.text is None:
        raise Refused(f"the gap could not be filled: {said.cause}", fix="name another model, or shorten the text")
    return said


def _filling(text: str, gap: Gap, filling: str, said: Generation, tokens: int | None = None) -> Filling:
    line, column = line_and_column(text, gap[0])
    return Filling(
        line=line,
        column=column,
        replaced=text[gap[0] : gap[1]],
        text=filling,
        tokens=said.output_tokens if tokens is None else tokens,
        seconds=said.seconds,
        finish=said.finish,
    )


def _put_in(text: str, gaps: Sequence[Gap], fillings: Sequence[str]) -> str:
    parts, at = [], 0
    for (first, end), filling in zip(gaps, fillings, strict=True):
        parts += [text[at:first], filling]
        at = end
    return "".join([*parts, text[at:]])
