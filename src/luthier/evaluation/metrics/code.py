"""Metrics of code: `parses` and `executes`, for Python. The filling of a gap is judged in the text around it.

`executes` runs what a model wrote. It does so in another process with limits (see `code_runner`), which is protection
against accidents, not against an attacker: run it on data and models of your own.

What an answer means is tried in two ways, and one that is right is enough: as it is, and without the white space at its
ends (models that are asked in words do not know how far a line is indented). A Markdown code fence around all of it is
taken off.

>>> parses.score("a + b", "a - b", MetricContext(before="def f(a, b):\\n    return ", after="\\n")).value
1.0
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache

from luthier.evaluation.metrics.base import MetricContext, Part, Score, metric
from luthier.evaluation.metrics.code_runner import run_python
from luthier.evaluation.metrics.edit_similarity import similarity
from luthier.ground.errors import BadInput

_FENCE = re.compile(r"\s*```[A-Za-z0-9]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)


@metric("parses", binary=True)
def parses(output: str, reference: str, context: MetricContext) -> Score:
    """1 if the text with the filling put into it is Python."""
    _refuse(any(is_python(text) for text in _texts(reference, context)), "is not Python")
    return Score(float(any(is_python(text) for text in _texts(output, context))))


@metric("executes", binary=True, parts=(Part("parse"), Part("verbatim"), Part("similarity", binary=False)))
def executes(output: str, reference: str, context: MetricContext) -> Score:
    """1 if the text with the filling put into it runs to its end: its assertions hold.

    Parts:
        parse: it is Python.
        verbatim: the filling is the reference, white space at the ends aside.
        similarity: as the metric `edit_similarity`.
    """
    _refuse(any(_runs(text) for text in _texts(reference, context)), "does not run to its end")
    said, wanted = _unfenced(output).strip(), reference.strip()
    texts = [text for text in _texts(output, context) if is_python(text)]
    runs = any(_runs(text) for text in texts)
    close = similarity(said, wanted)
    parts = {"parse": float(bool(texts)), "verbatim": float(said == wanted), "similarity": close}
    return Score(float(runs), parts, graded=1.0 if runs else (parts["parse"] + close) / 4)


def is_python(text: str) -> bool:
    """Tell whether a text is Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings and the like
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _refuse(good: bool, fault: str) -> None:
    if not good:
        raise BadInput(f"the text with the reference in its gap {fault}", fix="mend the row, or choose another metric")


def _texts(output: str, context: MetricContext) -> Iterator[str]:
    filling = _unfenced(output)
    for text in dict.fromkeys((filling, filling.strip())):
        yield context.before + text + context.after


def _unfenced(output: str) -> str:
    fenced = _FENCE.fullmatch(output)
    return fenced[1] if fenced else output


@lru_cache(maxsize=4096)
def _runs(text: str) -> bool:
    return is_python(text) and run_python(text).passed
