"""The words for what the statistics say: one sentence per contrast, and one for the top of the page.

Never "equal": a difference that could not be seen is told together with what could have been seen. Numbers come in;
none are computed.

    sentence = contrast_sentence("finetuned", "prompt", finished, confidence=0.95, margin=0.03)
    verdict = headline(comparison.systems, comparison.contrasts, binary=True, target=0.8)
"""

from __future__ import annotations

from collections.abc import Sequence

from luthier.evaluation.statistics import Finished
from luthier.ground.results import Contrast, SystemResult
from luthier.ground.words import count, distance, many, percent, points, points_span, probability, span


def contrast_sentence(a: str, b: str, done: Finished, *, confidence: float, margin: float) -> str:
    """Return what a contrast between the systems titled `a` and `b` shows, with its numbers."""
    result = done.result
    interval = f"{100 * confidence:g}% interval {points_span(*result.interval)}"
    p = probability(done.p_holm)
    statistics = f"({interval}, p {p})" if p.startswith("<") else f"({interval}, p = {p})"
    if done.verdict in ("better", "worse"):
        return f"{a} is {done.verdict} than {b} by {distance(result.difference)} {statistics}"
    if done.verdict == "non-inferior":
        seen = f"difference {points(result.difference)}, {interval}"
        return f"{a} is not worse than {b} by more than the margin of {distance(margin)} ({seen})"
    return f"no evidence either way between {a} and {b}: {_power(done)}"


def headline(
    systems: Sequence[SystemResult],
    contrasts: Sequence[Contrast],
    *,
    binary: bool,
    target: float | None = None,
) -> str:
    """Return the answer in one sentence: which system is best, how good it is, and what that is worth."""
    if not systems:
        return "No system ran."
    best = max(systems, key=lambda system: system.score)
    if best.score == 0.0:
        return f"No system got any of the {many(best.n_total, 'test item')} right."
    return f"{_level(best, binary)}{_reach(best, target)}{_support(best, contrasts, systems)}."


def _power(done: Finished) -> str:
    n = many(done.result.n, "item")
    if done.detectable >= 1.0:
        clusters = done.result.clusters
        return f"{n} in {many(clusters, 'group')} are too few to claim anything" if clusters else f"{n} are too few"
    could = f"{n} could only have shown {distance(done.detectable)} or more"
    if done.more_items is None:
        return could
    return f"{could}; about {count(done.more_items)} more would show the {distance(done.result.difference)} seen"


def _level(best: SystemResult, binary: bool) -> str:
    right = f"answers {percent(best.score)} of {many(best.n_total, 'test item')} right"
    scored = f"scores {percent(best.score)} on {many(best.n_total, 'test item')}"
    title = best.title[:1].upper() + best.title[1:]
    return f"{title} is best: it {right if binary else scored} ({span(*best.interval)})"


def _reach(best: SystemResult, target: float | None) -> str:
    if target is None:
        return ""
    if best.interval[0] >= target:
        return f", above the target of {percent(target)}"
    if best.interval[1] < target:
        return f", below the target of {percent(target)}"
    return f", which may or may not reach the target of {percent(target)}"


def _support(best: SystemResult, contrasts: Sequence[Contrast], systems: Sequence[SystemResult]) -> str:
    """Say what the best system's own contrast shows, or the one in which it is the rival."""
    titles = {system.name: system.title for system in systems}
    own = next((c for c in contrasts if c.a == best.name), None)
    if own is None:
        rivals = [c for c in contrasts if c.b == best.name]
        if not rivals or len(systems) < 2:
            return ""
        worse = [titles[c.a] for c in rivals if c.verdict == "worse"]
        if len(worse) == len(rivals):
            return f", and {' and '.join(worse)} {'is' if len(worse) == 1 else 'are'} worse"
        return ", and nothing is shown to be better"
    if own.verdict == "better":
        return f", {distance(own.difference)} more than {titles[own.b]}"
    return f", but it is not shown to be better than {titles[own.b]}"
