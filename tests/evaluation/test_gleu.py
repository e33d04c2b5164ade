"""GLEU against references of its own: n-grams listed one by one, and cases worked by hand."""

from __future__ import annotations

import math
from itertools import product

import pytest

from luthier.evaluation.metrics.base import MetricContext
from luthier.evaluation.metrics.gleu import gec_gleu, gleu, words

SENTENCES = [
    "the cat sat on the mat .",
    "the cat sits on the mat .",
    "cat the the",
    "on",
    "the the the the",
    "He 's 9.",
]


def listed(text: str) -> list[tuple[str, ...]]:
    of = words(text)
    return [tuple(of[a:b]) for a in range(len(of)) for b in range(a + 1, min(a + 4, len(of)) + 1)]


def plain_gleu(output: str, reference: str) -> float:
    own, left = listed(output), listed(reference)
    total = max(len(own), len(left))
    matched = 0
    for gram in own:
        if gram in left:
            left.remove(gram)
            matched += 1
    return matched / total


@pytest.mark.parametrize(("output", "reference"), product(SENTENCES, SENTENCES))
def test_gleu_is_the_smaller_of_precision_and_recall(output: str, reference: str) -> None:
    assert gleu.score(output, reference, MetricContext()).value == pytest.approx(plain_gleu(output, reference))


def plain_gec_gleu(source: str, output: str, reference: str) -> float:
    logs = 0.0
    for size in (1, 2, 3, 4):
        own, right, of_source = ([g for g in listed(text) if len(g) == size] for text in (output, reference, source))
        rewards = sum(min(own.count(gram), right.count(gram)) for gram in set(own))
        penalties = sum(min(own.count(gram), of_source.count(gram)) for gram in set(own) if gram not in right)
        logs += math.log((max(rewards - penalties, 0) or 1) / (len(own) or 1))
    ratio = len(words(reference)) / len(words(output))
    return min(1.0, math.exp(min(0.0, 1 - ratio)) * math.exp(logs / 4))


@pytest.mark.parametrize(("source", "output", "reference"), product(SENTENCES[:4], SENTENCES, SENTENCES))
def test_gec_gleu_takes_away_what_should_have_been_changed(source: str, output: str, reference: str) -> None:
    found = gec_gleu.score(output, reference, MetricContext(source=source)).value
    assert found == pytest.approx(plain_gec_gleu(source, output, reference))


def test_a_sentence_left_as_it_was_scores_less_than_another_mistake_would_hide() -> None:
    source, reference = "She go to school every day .", "She goes to school every day ."
    context = MetricContext(source=source)
    left = gec_gleu.score(source, reference, context).value
    assert left < gleu.score(source, reference, context).value
    assert gec_gleu.score(reference, reference, context).value == 1.0
    assert gec_gleu.score("She went to school every day .", reference, context).value > left


def test_texts_without_words() -> None:
    for score in (gleu, gec_gleu):
        assert score.score("", "", MetricContext()).value == 1.0
        assert score.score("", "a", MetricContext()).value == 0.0
        assert score.score("a", "", MetricContext()).value == 0.0
