"""The metric of editing: `edit_similarity`, 1 − Levenshtein distance / length of the longer text (Levenshtein 1966).

>>> edit_similarity.score("return a + b", "return a - b", MetricContext()).value
0.9166666666666666
"""

from __future__ import annotations

import numpy as np

from luthier.evaluation.metrics.base import MetricContext, Part, Score, metric

PARTS = (Part("verbatim"),)


@metric("edit_similarity", binary=False, parts=PARTS)
def edit_similarity(output: str, reference: str, _context: MetricContext) -> Score:
    """1 for equal texts, 0 for texts without a character in common place; white space at the ends does not count.

    Parts:
        verbatim: the texts are equal, white space at the ends aside.
    """
    said, wanted = output.strip(), reference.strip()
    return Score(similarity(said, wanted), {"verbatim": float(said == wanted)})


def similarity(a: str, b: str) -> float:
    """Return 1 − distance / length of the longer text; two empty texts are equal."""
    longer = max(len(a), len(b))
    return 1.0 - distance(a, b) / longer if longer else 1.0


def distance(a: str, b: str) -> int:
    """Return how few characters must be inserted, deleted or replaced to make `b` of `a`.

    One row of the table for each character of the shorter text, the longer text at once: within a row, what comes from
    the left is a running minimum.
    """
    if len(a) > len(b):
        a, b = b, a
    b_M = np.array([ord(character) for character in b], dtype=np.int64)
    places = np.arange(len(b) + 1)
    row = places.copy()
    for number, character in enumerate(a, 1):
        above = np.empty_like(row)
        above[0] = number
        np.minimum(row[1:] + 1, row[:-1] + (b_M != ord(character)), out=above[1:])
        row = np.minimum.accumulate(above - places) + places
    return int(row[-1])
