"""Compare systems on the same items: a score with its interval each, and four contrasts that were declared beforehand.

The contrasts are fixed (`declared_pairs`), so that nobody picks the flattering one afterwards; the choice that the last
one needs is made on dev. Verdicts are the statistics' own; the words for them stand in `luthier.evaluation.sentences`.

    comparison = compare_systems(runs, metric, context, confidence=0.95, margin=0.03, seed=0)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from luthier.evaluation.metrics.base import Metric, MetricContext
from luthier.evaluation.scoring import ItemScore, SystemRun
from luthier.evaluation.sentences import contrast_sentence
from luthier.evaluation.statistics import contrast, finish, summarise
from luthier.evaluation.triage import count_causes
from luthier.ground.errors import BadInput
from luthier.ground.results import Contrast, ItemExample, Latency, Measure, SystemResult

EXAMPLES = 6


@dataclass(frozen=True)
class Comparison:
    """What `compare` found, in result types."""

    systems: tuple[SystemResult, ...]
    contrasts: tuple[Contrast, ...]
    examples: tuple[ItemExample, ...]


def compare_systems(
    runs: Sequence[SystemRun],
    metric: Metric,
    context: MetricContext,
    *,
    confidence: float = 0.95,
    margin: float = 0.03,
    seed: int = 0,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> Comparison:
    """Summarise each system and make the declared contrasts between those that ran.

    Args:
        pairs: contrasts (a, b) to make instead of the four of `declared_pairs`.

    Raises:
        BadInput: two systems have one name, or did not answer the same items in the same order.
    """
    _refuse_unpaired(runs)
    by_name = {run.name: run for run in runs}
    if pairs is None:
        pairs = declared_pairs({run.name: run.dev_score for run in runs})
    chosen = [(a, b) for a, b in pairs if a in by_name and b in by_name]
    return Comparison(
        systems=tuple(_summarise(run, metric, context, confidence, seed) for run in runs),
        contrasts=tuple(_contrasts(by_name, chosen, metric, confidence, margin, seed)),
        examples=tuple(choose_examples(runs)),
    )


def declared_pairs(dev_scores: Mapping[str, float | None]) -> list[tuple[str, str]]:
    """Return the contrasts (a, b), read a − b, between the systems that are there.

    prompt − base, rag − prompt, finetuned − prompt, and finetuned+rag − the better of rag and finetuned on dev (rag
    when dev does not say, since it needs no training).
    """
    pairs = [("prompt", "base"), ("rag", "prompt"), ("finetuned", "prompt"), ("finetuned", "majority")]
    rivals = [name for name in ("rag", "finetuned") if name in dev_scores]
    if rivals:
        pairs.append(("finetuned+rag", max(rivals, key=lambda name: dev_scores[name] or 0.0)))
    return [(a, b) for a, b in pairs if a in dev_scores and b in dev_scores]


def choose_examples(runs: Sequence[SystemRun], most: int = EXAMPLES) -> list[ItemExample]:
    """Return items on which systems differ, spread over the patterns of who is right, the commonest pattern first."""
    places: dict[tuple[bool, ...], list[int]] = {}
    for place in range(len(runs[0].scores) if runs else 0):
        scores = [run.scores[place].score for run in runs]
        if max(scores) - min(scores) > 1e-9:
            places.setdefault(tuple(score >= 0.5 for score in scores), []).append(place)
    queues = sorted(places.values(), key=lambda queue: (-len(queue), queue))
    longest = max(map(len, queues), default=0)
    in_turn = [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
    return [_example(runs, place) for place in in_turn[:most]]


def _summarise(run: SystemRun, metric: Metric, context: MetricContext, confidence: float, seed: int) -> SystemResult:
    scores = run.scores
    clusters = clusters_of(scores)

    def measure(values: Sequence[float], *, binary: bool) -> Measure:
        summary = summarise(values, binary=binary, clusters=clusters, level=confidence, seed=seed)
        return Measure(score=summary.mean, interval=(summary.interval.low, summary.interval.high))

    whole = measure([score.score for score in scores], binary=metric.binary)
    parts = {
        part.name: measure([score.parts.get(part.name, 0.0) for score in scores], binary=part.binary)
        for part in metric.parts
        if part.applies(context)
    }
    answers = [score.answer for score in scores]
    return SystemResult(
        name=run.name,
        title=run.title,
        n_total=len(scores),
        n_failed=sum(score.failed for score in scores),
        score=whole.score,
        interval=whole.interval,
        metrics=parts,
        latency_s=_latency([answer.seconds for answer in answers]),
        prompt_tokens=_mean([answer.prompt_tokens for answer in answers]),
        output_tokens=_mean([answer.output_tokens for answer in answers]),
        total_seconds=run.total_seconds,
        peak_bytes=run.peak_bytes,
        train_seconds=run.train_seconds,
        cost=run.cost,
        dev_score=run.dev_score,
        causes=count_causes(score.cause for score in scores),
    )


def _contrasts(
    runs: Mapping[str, SystemRun],
    pairs: Sequence[tuple[str, str]],
    metric: Metric,
    confidence: float,
    margin: float,
    seed: int,
) -> list[Contrast]:
    results = [
        contrast(
            [score.score for score in runs[a].scores],
            [score.score for score in runs[b].scores],
            binary=metric.binary,
            clusters=clusters_of(runs[a].scores),
            seed=seed,
            level=confidence,
        )
        for a, b in pairs
    ]
    finished = finish(results, margin, alpha=1.0 - confidence)
    return [
        Contrast(
            a=a,
            b=b,
            difference=done.result.difference,
            interval=(done.result.interval.low, done.result.interval.high),
            p=done.result.p,
            p_holm=done.p_holm,
            verdict=done.verdict,
            detectable=done.detectable,
            more_items=done.more_items,
            method=done.result.method,
            sentence=contrast_sentence(runs[a].title, runs[b].title, done, confidence=confidence, margin=margin),
        )
        for (a, b), done in zip(pairs, finished, strict=True)
    ]


def clusters_of(scores: Sequence[ItemScore]) -> list[str] | None:
    """Return each item's cluster: its group, or itself; None when no group repeats."""
    groups = [score.item.group for score in scores if score.item.group is not None]
    if len(set(groups)) == len(groups):
        return None
    return [
        f"item {place}" if score.item.group is None else f"group {score.item.group}"
        for place, score in enumerate(scores)
    ]


def _refuse_unpaired(runs: Sequence[SystemRun]) -> None:
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise BadInput(f"a system runs twice among {', '.join(names)}", fix="name each system once")
    for run in runs[1:]:
        if [score.id for score in run.scores] != [score.id for score in runs[0].scores]:
            raise BadInput(f"the systems {runs[0].name} and {run.name} did not answer the same items")


def _example(runs: Sequence[SystemRun], place: int) -> ItemExample:
    item = runs[0].scores[place].item
    passages: dict[str, None] = {}
    for run in runs:
        passages.update((passage.text, None) for passage in run.scores[place].answer.passages)
    return ItemExample(
        id=item.id,
        input=item.row.input,
        reference=item.reference,
        outputs={run.name: _output(run.scores[place]) for run in runs},
        scores={run.name: run.scores[place].score for run in runs},
        passages=list(passages),
    )


def _output(score: ItemScore) -> str:
    return score.answer.text if score.answer.text is not None else f"({score.cause})"


def _latency(seconds: Sequence[float]) -> Latency:
    if not seconds:
        return Latency(p50=0.0, p95=0.0)
    return Latency(p50=float(np.percentile(seconds, 50)), p95=float(np.percentile(seconds, 95)))


def _mean(numbers: Sequence[int]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0
