"""The metric of wording: `chrf`, the character n-gram F-score of one sentence (Popović 2015), by sacrebleu.

>>> chrf.score("a cat", "a cat", MetricContext()).value
1.0
"""

from __future__ import annotations

from luthier.evaluation.metrics.base import MetricContext, Score, metric


@metric("chrf", binary=False)
def chrf(output: str, reference: str, _context: MetricContext) -> Score:
    """Sentence chrF2 (character 6-grams, beta 2) from 0 to 1; two texts without characters agree."""
    if not output.split() or not reference.split():
        return Score(float(output.split() == reference.split()))
    from sacrebleu import sentence_chrf  # here, because no other metric should pay for its import

    return Score(min(1.0, max(0.0, sentence_chrf(output, [reference]).score / 100)))
