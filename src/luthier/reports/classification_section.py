"""Systems as classifiers: F1 by label, who is taken for whom, and whether probabilities mean what they say.

Everything drawn stands in the result; nothing is computed.

    classification_section(result)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from markupsafe import Markup
from rich.console import Group, RenderableType

from luthier.ground.label_results import ClassifyResult
from luthier.ground.objective_results import ClassificationResult, ClassResult
from luthier.ground.results import CompareResult
from luthier.ground.words import count, percent, span
from luthier.reports.figures import HALF, title_of
from luthier.reports.section import KindSection
from luthier.reports.svg import Axis, Box, Canvas, element, shortened
from luthier.reports.terminal_parts import plain_table, text
from luthier.reports.text import first_line

_AREA = Box(46, 14, 300, 300)
_MOST_LABELS = 12  # rows of a confusion table; the JSON has all
_NUMBERS = (
    ("mean_absolute_error", "mean absolute error"),
    ("root_mean_squared_error", "root mean squared error"),
    ("pearson", "Pearson"),
    ("spearman", "Spearman"),
)


def classification_section(result: CompareResult) -> KindSection | None:
    """Return the section of a comparison of classifiers, or of systems that name numbers."""
    found = result.classification
    if found is None or not found.systems:
        return None
    title = partial(title_of, result)
    body = element("p", found.sentence, class_="lead")
    if found.kind == "regression":
        return KindSection("classification", "As a measuring instrument", body + _numbers_table(found, title))
    body += _summary_table(found, title)
    sure = [one for one in found.systems if one.bins]
    for one in sure:
        body += element("h3", f"Is it as sure as it is right? {title(one.system)}")
        note = "Bars: share of right answers by stated probability; the line is where both agree."
        body += element("figure", reliability_figure(one)) + element("p", note, class_="note")
    for one in [one for one in found.systems if one.confusion]:
        table = _confusion_table(found, one)
        body += element("details", element("summary", f"Who is taken for whom: {title(one.system)}") + table)
    for one in found.systems:
        body += element("details", element("summary", f"By label: {title(one.system)}") + _labels_table(one))
    return KindSection("classification", "As a classifier", body)


def reliability_figure(one: ClassResult) -> Markup:
    """Return the share of right answers in each bin of stated probability, and how many answers it holds."""
    canvas = Canvas(f"reliability-{one.system.replace('+', '-')}", HALF, 372.0)
    across = Axis(0.0, 1.0, _AREA.x, _AREA.x + _AREA.width)
    up = Axis(0.0, 1.0, _AREA.y + _AREA.height, _AREA.y)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        canvas.line(_AREA.x, up(share), across.end, up(share), "grid")
        canvas.text(_AREA.x - 8, up(share) + 4, percent(share), "tick", "end")
        canvas.text(across(share), up(0) + 19, percent(share), "tick", "middle")
    most = max(part.n for part in one.bins)
    for part in one.bins:
        x, width = across(part.low) + 1, across(part.high) - across(part.low) - 2
        canvas.add("rect", class_="bar", x=x, y=up(part.accuracy), width=width, height=up(0) - up(part.accuracy))
        canvas.add(
            "circle", class_="dot best", cx=across(part.confidence), cy=up(part.accuracy), r=3 + 4 * part.n / most
        )
    canvas.line(across(0), up(0), across(1), up(1), "target")
    canvas.text((across.start + across.end) / 2, up(0) + 44, "stated probability", "small", "middle")
    canvas.text(across.end + 18, up(1) + 10, f"error {percent(one.ece or 0.0)}", "label strong")
    canvas.text(across.end + 18, up(1) + 28, f"{count(sum(part.n for part in one.bins))} answers", "small")
    told = (f"{percent(part.confidence)} stated, {percent(part.accuracy)} right ({part.n})" for part in one.bins)
    return canvas.svg(f"Reliability of {one.system}", "; ".join(told) + ".")


def classification_view(found: ClassificationResult) -> RenderableType:
    """Return the sentence and a line for each system, for the terminal."""
    if found.kind == "regression":
        table = plain_table("as numbers", *(name for _, name in _NUMBERS))
        for one in found.systems:
            table.add_row(text(one.system), *(text(_number(getattr(one, key))) for key, _ in _NUMBERS))
    else:
        table = plain_table("as classifiers", "accuracy", "macro-F1", "interval", "calibration error")
        for one in found.systems:
            table.add_row(text(one.system), *(text(cell) for cell in _summary(one)))
    return Group(text(found.sentence, "bold"), table)


def classify_view(result: ClassifyResult) -> RenderableType:
    """Return what `classify` says of each text: its label and the likeliest ones."""
    table = plain_table("label", "probability", "text")
    for answer in result.answers:
        chance = answer.probabilities.get(answer.label or "")
        likeliest = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])[:3]
        shown = percent(chance) if chance is not None else ", ".join(f"{name} {percent(p)}" for name, p in likeliest)
        table.add_row(text(answer.label or f"({answer.cause})"), text(shown or "–"), text(first_line(answer.text)))
    return table


def _summary(one: ClassResult) -> list[str]:
    interval = span(*one.macro_f1_interval) if one.macro_f1_interval else "–"
    error = percent(one.ece) if one.ece is not None else "–"
    return [percent(one.accuracy or 0.0), percent(one.macro_f1 or 0.0), interval, error]


def _summary_table(found: ClassificationResult, title: partial[str]) -> Markup:
    heads = ["system", "all right" if found.kind == "multi" else "accuracy", "macro-F1", "micro-F1"]
    heads += ["calibration error", "in equal bins"]
    rows = []
    for one in found.systems:
        accuracy, f1, interval, error = _summary(one)
        adaptive = percent(one.adaptive_ece) if one.adaptive_ece is not None else "–"
        rows.append([title(one.system), accuracy, f"{f1} ({interval})", percent(one.micro_f1 or 0.0), error, adaptive])
    return _table("Systems as classifiers", heads, rows)


def _labels_table(one: ClassResult) -> Markup:
    rows = [[of.label, percent(of.precision), percent(of.recall), percent(of.f1), count(of.n)] for of in one.labels]
    return _table(f"By label, {one.system}", ["label", "precision", "recall", "F1", "items"], rows)


def _confusion_table(found: ClassificationResult, one: ClassResult) -> Markup:
    shown = range(min(len(found.labels), _MOST_LABELS))
    heads = ["is, called", *(shortened(found.labels[n], 90, 13) for n in shown), "none of them"]
    rows = [
        [found.labels[row], *(_cell(one.confusion[row][n]) for n in shown), _cell(one.confusion[row][-1])]
        for row in shown
    ]
    more = len(found.labels) - len(shown)
    note = element("p", f"{more} more labels stand in the JSON.", class_="note") if more else Markup("")
    return _table(f"Confusion, {one.system}", heads, rows) + note


def _numbers_table(found: ClassificationResult, title: partial[str]) -> Markup:
    rows = []
    for one in found.systems:
        cells = []
        for key, _ in _NUMBERS:
            low, high = one.intervals.get(key, (0.0, 0.0))
            cells.append(f"{_number(getattr(one, key))} ({low:.3g} to {high:.3g})")
        rows.append([title(one.system), *cells, count(one.unreadable)])
    heads = ["system", *(name for _, name in _NUMBERS), "no number"]
    return _table("Systems as measuring instruments", heads, rows)


def _table(label: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    head = Markup("").join(
        element("th", name, scope="col", class_="n" if place else None) for place, name in enumerate(heads)
    )
    lines = Markup("")
    for row in rows:
        cells = element("th", row[0], scope="row")
        for name, value in zip(heads[1:], row[1:], strict=True):
            cells += element("td", element("span", value), class_="n", data_head=name)
        lines += element("tr", cells)
    table = element("table", element("thead", element("tr", head)) + element("tbody", lines), aria_label=label)
    return element("div", table, class_="scroll")


def _cell(number: int) -> str:
    return count(number) if number else "·"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
