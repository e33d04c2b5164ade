"""The metrics of rewriting: `gleu` against the reference alone, and `gec_gleu`, which knows what was to be corrected.

`gleu` is Google's (Wu et al. 2016, arXiv:1609.08144, section 6): of all n-grams of one to four words, those that answer
and reference share, over those of the longer of the two: the smaller of precision and recall. A sentence that was left
as it was may score high, since most of its words were right. `gec_gleu` is that of grammatical error correction
(Napoles et al. 2015, and 2016, arXiv:1605.02592): n-grams that the answer kept from the source where the reference has
others count against it.

>>> round(gleu.score("a cat sat here", "a cat sat there", MetricContext()).value, 2)
0.6
"""

from __future__ import annotations

import math
import re
from collections import Counter

from luthier.evaluation.metrics.base import MetricContext, Score, metric

LONGEST = 4
_WORDS = re.compile(r"\w+|[^\w\s]")
Grams = Counter[tuple[str, ...]]


@metric("gleu", binary=False)
def gleu(output: str, reference: str, _context: MetricContext) -> Score:
    """Sentence GLEU of Wu et al. from 0 to 1; words and punctuation marks are the units."""
    wrote, right = words(output), words(reference)
    if not wrote or not right:
        return Score(float(wrote == right and output.split() == reference.split()))
    shared = all_wrote = all_right = 0
    for size in range(1, LONGEST + 1):
        own, wanted = grams(wrote, size), grams(right, size)
        shared += (own & wanted).total()
        all_wrote, all_right = all_wrote + own.total(), all_right + wanted.total()
    return Score(shared / max(all_wrote, all_right))


@metric("gec_gleu", binary=False)
def gec_gleu(output: str, reference: str, context: MetricContext) -> Score:
    """Sentence GLEU of Napoles et al. (2016, one reference, counts of 0 smoothed to 1) from 0 to 1.

    The source is the item's input: the sentence to correct must be all of it.
    """
    wrote, right, source = words(output), words(reference), words(context.source)
    if not wrote or not right:
        return Score(float(wrote == right and output.split() == reference.split()))
    logs = 0.0
    for size in range(1, LONGEST + 1):
        own, wanted = grams(wrote, size), grams(right, size)
        kept = Counter({gram: count for gram, count in grams(source, size).items() if gram not in wanted})
        good = max(0, (own & wanted).total() - (own & kept).total())
        logs += math.log((good or 1) / (own.total() or 1))
    brevity = min(0.0, 1 - len(right) / len(wrote))
    return Score(min(1.0, math.exp(brevity + logs / LONGEST)))


def words(text: str) -> list[str]:
    """Return words and punctuation marks."""
    return _WORDS.findall(text)


def grams(of: list[str], size: int) -> Grams:
    """Return how often each run of so many words occurs."""
    return Counter(tuple(of[n : n + size]) for n in range(len(of) - size + 1))
