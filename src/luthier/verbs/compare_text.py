"""`luthier compare` for raw text: bits per byte of held-out domain text and general text, before and after training.

result = compare_text(bench, run, started)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from luthier.evaluation.bits import Text, TextScore, score_texts
from luthier.evaluation.language import (
    BASE,
    BYTE_BITS,
    DOMAIN,
    FINETUNED,
    GENERAL,
    changes_of,
    contrast_of,
    language_result,
    loss_of,
)
from luthier.ground.errors import BadInput
from luthier.ground.files import write_whole
from luthier.ground.objective_results import TextLoss
from luthier.ground.results import CompareResult, Latency, Measure, SystemResult, TrainResult
from luthier.ground.strict_json import dump_json
from luthier.machine.describe import environment
from luthier.machine.memory import PeakMemory
from luthier.rows.template import Renderer
from luthier.rows.types import Row
from luthier.verbs.compare_context import context_result
from luthier.verbs.corpora import corpora
from luthier.verbs.runs import Run
from luthier.verbs.train import train_system, trained
from luthier.verbs.trained import trained_in
from luthier.verbs.workbench import Workbench

TITLES = {BASE: "base model", FINETUNED: "trained on the text"}


def compare_text(bench: Workbench, run: Run) -> CompareResult:
    """Return what the systems need for the task's texts, and what training changed.

    Raises:
        BadInput: there is no test text, or a named system writes answers.
        Refused: the model must be trained and the data check says that it would be meaningless.
    """
    started = time.perf_counter()
    names = text_systems(bench)
    texts = _texts(bench)
    training = _training(bench) if FINETUNED in names else None
    asked = [_Asked(bench, name, training).ask(texts, run) for name in names]
    scores = {system.name: system.scores for system in asked}
    compare = bench.spec.compare
    language = language_result(scores, level=compare.confidence, seed=compare.seed)
    _write_items(run.path / "items.jsonl", asked)
    contrasts = [
        contrast_of(found, documents=len(texts[DOMAIN]), level=compare.confidence, margin=compare.margin)
        for found in changes_of(scores, level=compare.confidence, seed=compare.seed)
        if found.text == DOMAIN
    ]
    return CompareResult(
        task=bench.spec.name,
        run=str(run.path),
        metric="bits saved",
        model=bench.spec.model,
        n_test=len(texts[DOMAIN]),
        n_dev=_documents(bench, "dev"),
        n_train=_documents(bench, "train"),
        sampled=_sampled(bench, texts),
        verdict=language.sentence,
        systems=[system.result(training) for system in asked],
        contrasts=contrasts,
        items=str(run.path / "items.jsonl"),
        examples=[],
        target=compare.target,
        margin=compare.margin,
        confidence=compare.confidence,
        has_documents=False,
        prompt=None,
        training={} if training is None else {FINETUNED: training},
        index=None,
        check=bench.sheet,
        language=language,
        context=context_result(bench, training, run.tell),
        provenance=bench.model(bench.spec.generation.precision).provenance,
        environment=environment(compare.seed),
        seconds=time.perf_counter() - started,
    )


def text_systems(bench: Workbench) -> list[str]:
    """Return the systems to ask: those that the task names, or the base model and the trained one.

    Raises:
        BadInput: a named system writes answers, which raw text has not.
    """
    named = list(dict.fromkeys(bench.spec.compare.systems))
    wrong = [name for name in named if name not in TITLES]
    if wrong:
        raise BadInput(
            f"the system {wrong[0]} writes answers, and raw text is only predicted",
            where=f"{bench.task.path} (compare.systems)",
            fix="name base and finetuned",
        )
    if FINETUNED in named and not bench.spec.data.train:
        raise BadInput("the system finetuned needs data.train", where=str(bench.task.path), fix="set data.train")
    return named or [BASE, *([FINETUNED] if bench.spec.data.train else [])]


class _Asked:
    """One system, the texts that it was asked for, and what that took."""

    def __init__(self, bench: Workbench, name: str, training: TrainResult | None) -> None:
        self.name = name
        self._bench, self._training = bench, training
        self.scores: dict[str, list[TextScore]] = {}
        self.seconds = 0.0
        self._peak_bytes = 0

    def ask(self, texts: dict[str, list[Text]], run: Run) -> _Asked:
        """Score all texts."""
        began = time.perf_counter()
        with PeakMemory() as peak, self._ready() as renderer:
            for what, of_kind in texts.items():
                run.tell({"kind": "stage", "text": f"{TITLES[self.name]}: reading {len(of_kind)} {what} texts"})
                model = self._bench.model(self._bench.spec.generation.precision).model
                window = self._bench.max_length
                self.scores[what] = score_texts(model, renderer.tokens, of_kind, window=window, tell=run.tell)
        self.seconds, self._peak_bytes = time.perf_counter() - began, peak.bytes
        return self

    @contextlib.contextmanager
    def _ready(self) -> Iterator[Renderer]:
        """Put what was trained into the model for the length of the block; yield what it is rendered with."""
        if self.name == BASE or self._training is None:
            yield self._bench.renderer
            return
        model = self._bench.model(self._bench.spec.generation.precision).model
        objective = self._bench.objective
        with trained_in(model, objective.extensions, Path(self._training.adapter)):
            yield objective.renderer

    def result(self, training: TrainResult | None) -> SystemResult:
        """Return the system as a row of the table of scores: the share of the bits that it saves."""
        compare, domain = self._bench.spec.compare, self.scores[DOMAIN]
        losses = {
            what: loss_of(self.name, what, of_kind, level=compare.confidence, seed=compare.seed)
            for what, of_kind in self.scores.items()
        }
        whole = sum(len(of_kind) for of_kind in self.scores.values())
        saved = _saved(losses[DOMAIN])
        return SystemResult(
            name=self.name,
            title=TITLES[self.name],
            n_total=len(domain),
            n_failed=0,
            score=saved.score,
            interval=saved.interval,
            metrics={"general": _saved(losses[GENERAL])} if GENERAL in losses else {},
            latency_s=Latency(p50=self.seconds / whole, p95=self.seconds / whole),
            prompt_tokens=sum(score.tokens for score in domain) / len(domain),
            output_tokens=0.0,
            total_seconds=self.seconds,
            peak_bytes=self._peak_bytes,
            train_seconds=training.seconds if training is not None and self.name == FINETUNED else None,
        )

    def lines(self) -> Iterator[dict[str, object]]:
        """Yield one line for each text."""
        for what, of_kind in self.scores.items():
            for score in of_kind:
                yield {
                    "id": score.id,
                    "system": self.name,
                    "text": what,
                    "output": "",
                    "score": _clipped(score.bits / max(1, score.bytes)),
                    "failed": False,
                    "cause": None,
                    "seconds": round(self.seconds * score.tokens / self._tokens, 4),
                    "prompt_tokens": score.tokens,
                    "output_tokens": 0,
                    "bits": score.bits,
                    "bytes": score.bytes,
                }

    @property
    def _tokens(self) -> int:
        return sum(score.tokens for of_kind in self.scores.values() for score in of_kind)


def _saved(loss: TextLoss) -> Measure:
    low, high = loss.interval
    return Measure(score=_clipped(loss.bits_per_byte), interval=(_clipped(high), _clipped(low)))


def _clipped(bits_per_byte: float) -> float:
    """Return the share of the bits that is saved; 0 for a model that needs more bits than the text has."""
    return min(1.0, max(0.0, 1.0 - bits_per_byte / BYTE_BITS))


def _texts(bench: Workbench) -> dict[str, list[Text]]:
    """Return the held-out texts by kind."""
    if bench.spec.data.test is None:
        raise BadInput(
            "the task names no test text, so nothing can be compared",
            where=str(bench.task.path),
            fix="set data.test to text that nothing is trained or chosen on",
        )
    texts = {DOMAIN: [_text(row) for row in bench.rows("test") if _said(row)]}
    if bench.spec.data.general is not None:
        texts[GENERAL] = [_text(row) for row in bench.general_rows() if _said(row)]
    for what, of_kind in texts.items():
        if not of_kind:
            raise BadInput(f"there are no {what} texts to read", where=str(bench.task.path), fix="give some documents")
    return texts


def _text(row: Row) -> Text:
    return Text(row.id, _said(row), row.group)


def _said(row: Row) -> str:
    return (row.text or "") if row.messages is None else "\n\n".join(message.content for message in row.messages)


def _training(bench: Workbench) -> TrainResult:
    return trained(bench, 0) or train_system(bench, 0)


def _documents(bench: Workbench, split: Literal["train", "dev"]) -> int:
    return sum(int(corpus.open(bench.tell).facts["documents"]) for corpus in corpora(bench, split))


def _sampled(bench: Workbench, texts: dict[str, list[Text]]) -> str | None:
    read = bench.read("test")
    if read is None or len(texts[DOMAIN]) >= len(read.rows):
        return None
    return f"A sample was used: {len(texts[DOMAIN])} of {len(read.rows)} test documents."


def _write_items(path: Path, asked: Sequence[_Asked]) -> None:
    write_whole(path, "".join(dump_json(line) + "\n" for system in asked for line in system.lines()))
