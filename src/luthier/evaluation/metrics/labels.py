"""The metrics of classification: `label`, and `multi_label_f1` for several. Nothing is guessed here.

The closed set of labels comes from the task.

>>> label.score("Positive.", "positive", MetricContext(labels=("positive", "negative"))).value
1.0
>>> multi_label_f1.score('["late"]', '["late", "damaged"]', MetricContext()).value
0.6666666666666666
"""

from __future__ import annotations

import json

from luthier.evaluation.metrics.appears import appears, squeeze
from luthier.evaluation.metrics.base import MetricContext, Part, Score, metric
from luthier.ground.errors import BadInput

_DECORATION = " \"'`*.“”‘’"


@metric("label", binary=True, parts=(Part("known", needs="labels"),))
def label(output: str, reference: str, context: MetricContext) -> Score:
    """1 if the answer is the right label and nothing else, whatever its case, white space, quotes and final stop.

    Part `known`: the answer is one of the labels at all (1 minus the invalid-label rate).
    """
    said, wanted = normal(output), normal(reference)
    value = float(said == wanted)
    known = float(said in {normal(name) for name in context.labels})
    graded = max(value, 0.25 * known, 0.5 * appears(reference, output))
    return Score(value, {"known": known} if context.labels else {}, graded)


@metric("multi_label_f1", binary=False, parts=(Part("all_right"), Part("known", needs="labels")))
def multi_label_f1(output: str, reference: str, context: MetricContext) -> Score:
    """F1 between the labels of the answer and those of the reference, 2 |A ∩ B| / (|A| + |B|); 1 if both are empty.

    The answer is a JSON list of names; names between commas or on lines of their own are read too. Part `all_right`:
    the two sets are equal. Part `known`: nothing but labels of the task is named.

    Raises:
        BadInput: the reference is not a JSON list of names.
    """
    wanted = _reference(reference)
    said = label_list(output)
    value = 2 * len(said & wanted) / (len(said) + len(wanted)) if said or wanted else 1.0
    parts = {"all_right": float(said == wanted)}
    if context.labels:
        parts["known"] = float(said <= {normal(name) for name in context.labels})
    return Score(value, parts)


def label_list(text: str) -> set[str]:
    """Return the labels that an answer names, in the form in which they are compared."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        found = text.strip().strip("[]").replace("\n", ",").replace(";", ",").split(",")
    return {name for part in found if isinstance(part, str) and (name := normal(part))}


def normal(text: str) -> str:
    """Return a label in the form in which it is compared: without case, decoration and needless white space."""
    plain = squeeze(text)
    return squeeze(plain.strip(_DECORATION) or plain).casefold()


def _reference(text: str) -> set[str]:
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput("the reference is not a JSON list of labels", fix='write it as ["late", "damaged"]')
    return {normal(name) for name in names}
