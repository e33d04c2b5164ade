"""Metrics of plain text: `exact_match`, `contains` and `token_f1`. They know nothing of meaning.

>>> exact_match.score("the  answer ", "the answer", MetricContext()).value
1.0
"""

from __future__ import annotations

import re
import string
from collections import Counter

from luthier.evaluation.metrics.appears import appears, squeeze
from luthier.evaluation.metrics.base import MetricContext, Score, metric

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@metric("exact_match", binary=True)
def exact_match(output: str, reference: str, _context: MetricContext) -> Score:
    """1 if the texts are equal, white space aside (runs count as one space, the ends do not count)."""
    value = float(output.split() == reference.split())
    return Score(value, graded=(value + token_overlap(output, reference)) / 2)


@metric("contains", binary=True)
def contains(output: str, reference: str, _context: MetricContext) -> Score:
    """1 if the reference appears in the answer as itself (36 not within 365), whatever its case and white space.

    An empty reference ("there is no answer") is matched by an empty answer alone.
    """
    if not squeeze(reference):
        return Score(float(not squeeze(output)))
    value = float(appears(reference, output))
    return Score(value, graded=max(value, token_overlap(output, reference) / 2))


@metric("token_f1", binary=False)
def token_f1(output: str, reference: str, _context: MetricContext) -> Score:
    """F1 of the bags of words, as in SQuAD (Rajpurkar et al. 2016): lower case, without punctuation and articles."""
    return Score(token_overlap(output, reference))


def token_overlap(output: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall of the words; two texts without words agree."""
    said, wanted = Counter(_tokens(output)), Counter(_tokens(reference))
    if not said or not wanted:
        return float(said == wanted)
    return 2 * (said & wanted).total() / (said.total() + wanted.total())


def _tokens(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
