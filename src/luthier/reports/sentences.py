"""The sentences of a report that say what the numbers beside them are: what was measured, on how much, and how.

Judges nothing; the verdicts stand in the results.

    method_sentences(result)
"""

from __future__ import annotations

from luthier.ground.results import CheckResult, CompareResult, PromptResult
from luthier.ground.words import count, many, seconds

_METRICS = {
    "json_match": "A right answer is the whole reference object: the same fields with the same values.",
    "exact_match": "A right answer is the reference, letter for letter but for blanks at its ends.",
    "label": "A right answer is the right label.",
    "contains": "A right answer contains the reference.",
    "token_f1": "An answer scores the F1 of the words that it shares with the reference.",
    "chrf": "An answer scores its chrF, the overlap of character sequences with the reference.",
}


def metric_sentence(result: CompareResult) -> str:
    """Say what a score is, and what dot and bar mean."""
    kind = _METRICS.get(result.metric, f"Answers are scored by {result.metric}, from 0% to 100%.")
    return (
        f"{kind} All systems answered the same {many(result.n_test, 'test item')};"
        f" the bars are {100 * result.confidence:g}% intervals, and a failed answer counts as wrong."
    )


def contrasts_sentence(result: CompareResult) -> str:
    """Say what a contrast is and how many were declared."""
    number = many(len(result.contrasts), "difference was", "differences were")
    return (
        f"{number} declared before measuring, on the same items for both systems."
        " No evidence does not mean equal: it means that these items could not tell."
    )


def examples_sentence(result: CompareResult) -> str:
    """Say which items are shown."""
    shown = len(result.examples)
    return (
        f"{many(shown, 'test item')} of {count(result.n_test)} on which the systems disagree."
        f" All answers stand in {result.items}."
    )


def check_sentence(check: CheckResult) -> str:
    """Say how much was read and refused."""
    read = sum(rows.read for rows in check.rows.values())
    refused = sum(rows.refused for rows in check.rows.values())
    return f"{many(read, 'row')} in {many(len(check.rows), 'split')} were read and {count(refused)} of them refused."


def prompt_sentence(prompt: PromptResult) -> str:
    """Say how many prompts were tried, and on what."""
    return (
        f"{many(len(prompt.arms), 'prompt was', 'prompts were')} tried on {many(prompt.dev_items, 'dev item')}"
        f" in {seconds(prompt.seconds)}, and the best was frozen before any test item was read."
    )


def method_sentences(result: CompareResult) -> list[str]:
    """Say how the comparison was made: items, choices, intervals, tests, samples."""
    told = [
        f"Every system answered the same {many(result.n_test, 'test item')}, scored by {result.metric};"
        " failed and missing answers count as wrong and stay in the denominator.",
        f"What had to be chosen was chosen on {many(result.n_dev, 'dev item')}; the test items were read once.",
        f"Intervals are at {100 * result.confidence:g}%; a difference within {100 * result.margin:g} points"
        " counts as no worse (non-inferior) when its interval shows it.",
    ]
    methods = list(dict.fromkeys(contrast.method for contrast in result.contrasts))
    if methods:
        told.append(
            f"Contrasts: {'; '.join(methods)}. Holm's correction over {many(len(result.contrasts), 'contrast')}."
        )
    if result.sampled:
        told.append(result.sampled if result.sampled.endswith(".") else f"{result.sampled}.")
    if result.target is not None:
        told.append(f"The task asks for a score of at least {100 * result.target:g}%.")
    return told
