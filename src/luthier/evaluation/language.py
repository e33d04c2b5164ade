"""What was learned of a domain's text and what was forgotten of general text, in bits per byte, with intervals.

Bits per byte are a ratio of sums over documents, so documents (or groups of them) are what is resampled; two systems
are compared on the same documents. The score of a system is 1 − bits/8: the share of a text's bits that its
predictions save, so that higher is better. No model is asked here.

    result = language_result({"base": {"domain": scores}, "finetuned": {"domain": others}}, level=0.95, seed=0)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from luthier.evaluation.bits import TextScore
from luthier.evaluation.intervals import Interval, bootstrap_interval, standard_error
from luthier.evaluation.multiplicity import verdict
from luthier.evaluation.paired import RESAMPLES
from luthier.evaluation.units import Units
from luthier.ground.objective_results import LanguageResult, TextChange, TextLoss
from luthier.ground.results import Contrast
from luthier.ground.words import change, many, points_span, probability, signed

DOMAIN, GENERAL = "domain", "general"
BASE, FINETUNED = "base", "finetuned"
BYTE_BITS = 8.0
_MOST_BITS = 64.0  # of a byte: bounds intervals of few documents
_POWER_Z = 2.8016  # 80 % power at the 5 % level: 1.96 + 0.84

Scores = Mapping[str, Mapping[str, Sequence[TextScore]]]
"""System → text (domain, general) → documents, the same for every system."""


@dataclass(frozen=True)
class Change:
    """The difference a − b in bits per byte on the same documents."""

    text: str
    a: str
    b: str
    difference: float
    interval: Interval
    p: float
    standard_error: float
    relative: float  # of b's bits per byte


def language_result(scores: Scores, *, level: float, seed: int) -> LanguageResult:
    """Return losses with intervals, and what training changed of each text, with the sentence that says it."""
    changes = changes_of(scores, level=level, seed=seed)
    return LanguageResult(
        losses=[
            loss_of(system, text, documents, level=level, seed=seed)
            for system, texts in scores.items()
            for text, documents in texts.items()
        ],
        changes=[
            TextChange(
                text=found.text,
                a=found.a,
                b=found.b,
                difference=found.difference,
                interval=tuple(found.interval),
                sentence=change_sentence(found, scores, level),
            )
            for found in changes
        ],
        sentence=_sentence(scores, changes),
    )


def loss_of(system: str, text: str, documents: Sequence[TextScore], *, level: float, seed: int) -> TextLoss:
    """Return the bits per byte of one system on one set of documents."""
    units = units_of(documents, [score.bits for score in documents])
    interval = bootstrap_interval(units, 0.0, _MOST_BITS, level=level, resamples=RESAMPLES, seed=seed)
    return TextLoss(
        system=system,
        text=text,
        bits_per_byte=units.mean,
        interval=tuple(interval),
        bytes=units.n,
        tokens=sum(score.tokens for score in documents),
    )


def changes_of(scores: Scores, *, level: float, seed: int) -> list[Change]:
    """Return what training changed of each text: finetuned − base; nothing if one of them was not asked."""
    if BASE not in scores or FINETUNED not in scores:
        return []
    return [
        change_of(text, FINETUNED, BASE, scores[FINETUNED][text], scores[BASE][text], level=level, seed=seed)
        for text in scores[BASE]
    ]


def change_of(
    text: str, a: str, b: str, of_a: Sequence[TextScore], of_b: Sequence[TextScore], *, level: float, seed: int
) -> Change:
    """Return the paired difference a − b, with a bootstrap interval over documents and a p by their jackknife error."""
    if [score.id for score in of_a] != [score.id for score in of_b]:
        raise ValueError("the systems were not asked for the same documents")
    units = units_of(of_a, [one.bits - other.bits for one, other in zip(of_a, of_b, strict=True)])
    interval = bootstrap_interval(units, -_MOST_BITS, _MOST_BITS, level=level, resamples=RESAMPLES, seed=seed)
    error = standard_error(units)
    before = sum(score.bits for score in of_b) / max(1, units.n)
    p = _p_value(units.mean, error, len(units))
    return Change(text, a, b, units.mean, interval, p, error, units.mean / before if before else 0.0)


def units_of(documents: Sequence[TextScore], sums: Sequence[float]) -> Units:
    """Return documents, or groups of them, as units whose sizes are bytes: their mean is a ratio of sums."""
    names = [score.id if score.group is None else f"group {score.group}" for score in documents]
    order = {name: n for n, name in enumerate(dict.fromkeys(names))}
    totals, sizes = np.zeros(len(order)), np.zeros(len(order))
    for name, score, value in zip(names, documents, sums, strict=True):
        totals[order[name]] += value
        sizes[order[name]] += score.bytes
    by = np.lexsort((sizes, totals))
    return Units(totals[by], sizes[by], clustered=True)


def contrast_of(found: Change, *, documents: int, level: float, margin: float) -> Contrast:
    """Return a change as a contrast of scores, in which higher is better."""
    interval = Interval(-found.interval.high / BYTE_BITS, -found.interval.low / BYTE_BITS)
    difference = -found.difference / BYTE_BITS
    judged = verdict(difference, interval, found.p, margin, alpha=1 - level)
    return Contrast(
        a=found.a,
        b=found.b,
        difference=difference,
        interval=tuple(interval),
        p=found.p,
        p_holm=found.p,
        verdict=judged,
        detectable=min(1.0, _POWER_Z * found.standard_error / BYTE_BITS),
        more_items=None,
        method="bootstrap over documents, ratio of sums",
        sentence=f"{found.a} − {found.b} on {many(documents, 'document')} of {found.text} text: "
        f"{change(-found.relative)} of the bits saved ({100 * level:g}% interval {points_span(*interval)} of all bits, "
        f"p {_p_words(found.p)}): {judged}",
    )


def change_sentence(found: Change, scores: Scores, level: float) -> str:
    """Return what training changed of one text, with its numbers."""
    before, after = (_bits(scores[system][found.text]) for system in (found.b, found.a))
    low, high = found.interval
    shown = low > 0 or high < 0
    if not shown:
        what = "no change was shown"
    elif found.text == DOMAIN:
        what = "learned" if high < 0 else "predicted worse than before"
    else:
        what = "forgotten" if low > 0 else "predicted better than before"
    return (
        f"{found.text} text: {before:.3f} bits per byte before, {after:.3f} after "
        f"({change(found.relative)}; difference {signed(found.difference, 3)}, "
        f"{100 * level:g}% interval {signed(low, 3)} to {signed(high, 3)}): {what}"
    )


def _sentence(scores: Scores, changes: Sequence[Change]) -> str:
    """Return learned and forgotten, side by side."""
    of_text = {found.text: found for found in changes}
    if DOMAIN not in of_text:
        parts = [f"{system}: {_bits(texts[DOMAIN]):.3f} bits per byte" for system, texts in scores.items()]
        return f"Domain text, {'; '.join(parts)}."
    learned = _said("Learned", of_text[DOMAIN], scores)
    if GENERAL not in of_text:
        return f"{learned}. What was forgotten was not measured: data.general names no text."
    return f"{learned}. {_said('Forgotten', of_text[GENERAL], scores)}."


def _said(what: str, found: Change, scores: Scores) -> str:
    before, after = (_bits(scores[system][found.text]) for system in (found.b, found.a))
    low, high = found.interval
    wanted = found.difference < 0 if what == "Learned" else found.difference > 0
    if low <= 0 <= high:
        what = f"{what}: nothing that can be seen"
    elif not wanted:
        what = f"{what}: nothing, rather the opposite"
    return (
        f"{what}: {found.text} text takes {after:.3f} bits per byte instead of {before:.3f} "
        f"({change(found.relative)}, interval {signed(low, 3)} to {signed(high, 3)})"
    )


def _bits(documents: Sequence[TextScore]) -> float:
    return math.fsum(score.bits for score in documents) / max(1, sum(score.bytes for score in documents))


def _p_value(difference: float, error: float, units: int) -> float:
    if units < 2 or error == 0.0:
        return 1.0 if difference == 0.0 or units < 2 else 0.0
    return float(2 * student_t.sf(abs(difference) / error, units - 1))


def _p_words(p: float) -> str:
    words = probability(p)
    return words if words.startswith("<") else f"= {words}"
