"""What went wrong with an answer, in one of a few words that can be counted.

The cause is derived from the parts of the metric, from how the answer ended, and from whether the retrieved passages
held the facts. It looks at one answer and explains no model.

    >>> cause_of(Score(0.0, {"parse": 0.0}), Answer("oops", 0.1, 9, 4), binary=True, facts_in_passages=None)
    'does not parse'
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from luthier.evaluation.metrics.appears import appears
from luthier.evaluation.metrics.base import Metric, MetricContext, Score
from luthier.evaluation.metrics.json_match import reference_facts
from luthier.evaluation.systems import Answer, Item
from luthier.ground.errors import BadInput
from luthier.ground.results import Passage

FAILED = "generation failed"
CUT = "cut off at the length limit"
NO_PARSE = "does not parse"
OFF_SCHEMA = "off schema"
UNKNOWN_LABEL = "unknown label"
NOT_RETRIEVED = "facts missing, and not in the passages"
NOT_USED = "facts missing, though in the passages"
NO_FACTS = "facts missing"
OTHER_VALUES = "other values wrong"
NOTHING_RIGHT = "nothing right"
WRONG = "wrong"

_QUESTIONS = ("exact_match", "contains", "token_f1")  # metrics whose whole reference is the fact


def cause_of(score: Score, answer: Answer, *, binary: bool, facts_in_passages: bool | None) -> str | None:
    """Return why an answer is not right, or None when it is right (for a continuous metric: when it got anything)."""
    if answer.text is None:
        return FAILED
    if score.value >= 1.0 or (score.value > 0.0 and not binary):
        return None
    formal = _formal_cause(score, answer)
    if formal:
        return formal
    if score.parts.get("facts", 1.0) < 1.0 or ("facts" not in score.parts and facts_in_passages is not None):
        return {True: NOT_USED, False: NOT_RETRIEVED, None: NO_FACTS}[facts_in_passages]
    if "exact" in score.parts:
        return OTHER_VALUES
    return WRONG if binary else NOTHING_RIGHT


def facts_in(item: Item, passages: Sequence[Passage], metric: Metric, context: MetricContext) -> bool | None:
    """Say whether the passages hold every fact of the reference; None without passages or facts."""
    if not passages:
        return None
    facts = _facts(item, metric, context)
    text = "\n".join(passage.text for passage in passages)
    return all(appears(fact, text) for fact in facts) if facts else None


def count_causes(causes: Iterable[str | None]) -> dict[str, int]:
    """Return how many items each cause has, the commonest first."""
    return dict(Counter(cause.partition(":")[0] for cause in causes if cause).most_common())


def _formal_cause(score: Score, answer: Answer) -> str | None:
    for part, cause in (("parse", NO_PARSE), ("valid", OFF_SCHEMA), ("known", UNKNOWN_LABEL)):
        if score.parts.get(part, 1.0) < 1.0:
            return CUT if answer.finish == "length" and part != "valid" else cause
    return CUT if answer.finish == "length" and not score.parts else None


def _facts(item: Item, metric: Metric, context: MetricContext) -> list[str]:
    if context.facts:
        try:
            return reference_facts(item.reference, context.facts)
        except BadInput:  # a user's metric may have references that are not JSON
            return []
    return [item.reference] if metric.name in _QUESTIONS and item.reference.strip() else []
