"""Let a system answer, score its answers, and write them down. A failed answer is a wrong answer.

The number of scores is the number of items, always: nothing is dropped. It compares no systems.

    run = run_system(system, items, metric, context)
    write_items(run_folder / "items.jsonl", [run])
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from luthier.evaluation.metrics.base import Metric, MetricContext, score_item
from luthier.evaluation.systems import Answer, Item, System
from luthier.evaluation.triage import FAILED, cause_of, facts_in
from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.ground.files import write_whole
from luthier.ground.strict_json import dump_json
from luthier.machine.memory import PeakMemory


@dataclass(frozen=True)
class ItemScore:
    """One answer and what it is worth.

    Attributes:
        cause: why it is not right; for a failed answer, "generation failed: " and the reason.
        facts_in_passages: whether the passages held every fact of the reference; None without passages or facts.
    """

    item: Item
    answer: Answer
    score: float
    graded: float
    parts: Mapping[str, float]
    failed: bool
    cause: str | None
    facts_in_passages: bool | None

    @property
    def id(self) -> str:
        return self.item.id


@dataclass(frozen=True)
class SystemRun:
    """All answers of one system, and what they took.

    Attributes:
        total_seconds: wall time of all answers together.
        peak_bytes: highest memory while it answered.
        dev_score: its mean score on dev, on which choices are made.
    """

    name: str
    title: str
    scores: tuple[ItemScore, ...]
    total_seconds: float = 0.0
    peak_bytes: int = 0
    train_seconds: float | None = None
    cost: float | None = None
    dev_score: float | None = None

    @property
    def mean(self) -> float:
        return mean_score(self.scores)


def run_system(
    system: System,
    items: Sequence[Item],
    metric: Metric,
    context: MetricContext,
    *,
    train_seconds: float | None = None,
    dev_score: float | None = None,
    tell: Tell = silent,
) -> SystemRun:
    """Let a system answer all items, measuring time and memory, and score the answers."""
    started = time.perf_counter()
    with PeakMemory() as peak:
        answers = system.answer(items, tell)
    seconds = time.perf_counter() - started
    return SystemRun(
        name=system.name,
        title=system.title,
        scores=tuple(score_answers(items, answers, metric, context)),
        total_seconds=seconds,
        peak_bytes=peak.bytes,
        train_seconds=train_seconds,
        cost=system.cost(answers),
        dev_score=dev_score,
    )


def score_answers(
    items: Sequence[Item], answers: Sequence[Answer], metric: Metric, context: MetricContext
) -> list[ItemScore]:
    """Score each answer against its item's reference; a failed one gets 0 in everything.

    Raises:
        BadInput: there are not as many answers as items, or the metric cannot use a reference.
    """
    if len(answers) != len(items):
        raise BadInput(f"the system gave {len(answers)} answers to {len(items)} items", fix="mend the system")
    return [_score(item, answer, metric, context) for item, answer in zip(items, answers, strict=True)]


def context_of(item: Item, context: MetricContext) -> MetricContext:
    """Return what the metric is told of this item: its input, and for a text with a gap what stands around it."""
    gap, text = item.row.gap, item.row.text
    context = replace(context, source=item.row.input)
    return context if gap is None or text is None else replace(context, before=text[: gap[0]], after=text[gap[1] :])


def mean_score(scores: Sequence[ItemScore]) -> float:
    """Return the mean score of all items; 0 without items."""
    return sum(score.score for score in scores) / len(scores) if scores else 0.0


def write_items(path: Path, runs: Sequence[SystemRun]) -> None:
    """Write one line of JSON per item and system."""
    lines = [dump_json(_line(run.name, score)) for run in runs for score in run.scores]
    write_whole(path, "".join(line + "\n" for line in lines))


def _score(item: Item, answer: Answer, metric: Metric, context: MetricContext) -> ItemScore:
    score = score_item(metric, item.id, answer.text, item.reference, context_of(item, context))
    held = facts_in(item, answer.passages, metric, context)
    cause = cause_of(score, answer, binary=metric.binary, facts_in_passages=held)
    failed = answer.text is None
    return ItemScore(
        item=item,
        answer=answer,
        score=float(score.value),
        graded=float(score.graded),
        parts=dict(score.parts),
        failed=failed,
        cause=f"{FAILED}: {answer.cause or 'no reason given'}" if failed else cause,
        facts_in_passages=held,
    )


def _line(system: str, score: ItemScore) -> dict[str, object]:
    answer = score.answer
    chances = {} if answer.probabilities is None else {"probabilities": dict(answer.probabilities)}
    return {
        "id": score.id,
        "system": system,
        "output": answer.text,
        "score": score.score,
        "failed": score.failed,
        "cause": score.cause,
        "seconds": round(answer.seconds, 4),
        "prompt_tokens": answer.prompt_tokens,
        "output_tokens": answer.output_tokens,
        "parts": dict(score.parts),
        "passages": [passage.id for passage in answer.passages],
        "facts_in_passages": score.facts_in_passages,
        **chances,
    }
