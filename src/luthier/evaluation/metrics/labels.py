"""The metric of classification: `label`. The closed set of labels comes from the task; nothing is guessed here.

>>> label.score("Positive.", "positive", MetricContext(labels=("positive", "negative"))).value
1.0
"""

from __future__ import annotations

from luthier.evaluation.metrics.appears import appears, squeeze
from luthier.evaluation.metrics.base import MetricContext, Part, Score, metric

_DECORATION = " \"'`*.“”‘’"


@metric("label", binary=True, parts=(Part("known", needs="labels"),))
def label(output: str, reference: str, context: MetricContext) -> Score:
    """1 if the answer is the right label and nothing else, whatever its case, white space, quotes and final stop.

    Part `known`: the answer is one of the labels at all (1 minus the invalid-label rate).
    """
    said, wanted = _normal(output), _normal(reference)
    value = float(said == wanted)
    known = float(said in {_normal(name) for name in context.labels})
    graded = max(value, 0.25 * known, 0.5 * appears(reference, output))
    return Score(value, {"known": known} if context.labels else {}, graded)


def _normal(text: str) -> str:
    plain = squeeze(text)
    return squeeze(plain.strip(_DECORATION) or plain).casefold()
