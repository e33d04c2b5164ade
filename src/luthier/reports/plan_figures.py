"""The pictures of a plan: the bytes of the peak side by side, memory against time, predicted against measured.

Everything drawn stands in the results; nothing is computed but positions.

    memory_bar(result, width=880)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from markupsafe import Markup

from luthier.ground.plan_result import FrontierPoint, PlanResult
from luthier.ground.results import TrainResult
from luthier.ground.words import change, exact_size, percent
from luthier.reports.figures import WIDE
from luthier.reports.plan_words import (
    Term,
    bar_scale,
    limit_words,
    memory_words,
    parts_of,
    prediction_error,
    step_time,
    terms_of,
)
from luthier.reports.svg import Axis, Box, Canvas, log_ticks, place_labels, shortened, text_width, ticks

_LEAST = 2.5  # width of the smallest term
_LOG_FROM = 12.0  # an axis becomes logarithmic when its largest value is this many times its smallest
_LABEL = 320.0  # widest label of a point
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def memory_bar(result: PlanResult, width: float = WIDE) -> Markup:
    """Return the terms of the peak as one stacked bar to scale, with a legend and the limit as a line.

    A term that is wide enough is named above itself; the others are named in the legend, with their bytes.
    """
    canvas = Canvas("plan-memory" if width >= 600 else "plan-memory-narrow", width)
    terms = terms_of(result)
    scale, limit = bar_scale(result)
    across = Axis(0.0, float(scale), 1.0, width - 1)
    widths = parts_of([term.number_bytes for term in terms], across(result.terms.total) - 1.0, _LEAST)
    top, height = (44.0 if any(map(_named, terms, widths)) else 6.0), 46.0
    unnamed = _segments(canvas, terms, widths, top, height)
    lines = [across(result.terms.total)] + ([] if limit is None else [across(limit)])
    _bytes_axis(canvas, scale, top + height, across, lines)
    below = _marks(canvas, result, across, limit, top, height)
    canvas.height = _legend(canvas, unnamed, below + 30) if unnamed else below + 8
    told = ", ".join(f"{term.name} {exact_size(term.number_bytes)} ({percent(term.share)})" for term in terms)
    marked = f"; {limit_words(result)}" if result.limit_bytes is not None else ""
    return canvas.svg(f"Memory at the peak: {exact_size(result.terms.total)}", f"{told}{marked}.", label="plan")


def _segments(canvas: Canvas, terms: Sequence[Term], widths: Sequence[float], top: float, height: float) -> list[Term]:
    """Draw the terms and name those that are wide enough; return the others."""
    x, unnamed = 1.0, []
    for term, width in zip(terms, widths, strict=True):
        gap = 1.5 if width > 4 else 0.5
        canvas.add("rect", class_=f"term {term.key}", x=x, y=top, width=width - gap, height=height)
        number = exact_size(term.number_bytes)
        if _named(term, width):
            canvas.text(x, top - 26, term.name, "label strong")
            canvas.text(x, top - 9, number, "small")
        else:
            unnamed.append(term)
        x += width
    return unnamed


def _named(term: Term, width: float) -> bool:
    return width >= max(text_width(term.name, 14), text_width(exact_size(term.number_bytes), 12.5)) + 6


def _bytes_axis(canvas: Canvas, scale: int, y: float, across: Axis, lines: Sequence[float]) -> None:
    """Write bytes under the bar, but not where the line of peak or limit would run through a number."""
    unit, name = unit_of(scale)
    for value in ticks(0.0, scale / unit, 3 if canvas.narrow else 6):
        x, words = across(value * unit), f"{value:g} {name}"
        start = x if value == 0 else x - text_width(words, 11.5) / 2
        covered = Box(start - 4, 0, text_width(words, 11.5) + 8, 1)
        if value * unit > scale or any(covered.x < line < covered.x + covered.width for line in lines):
            continue
        canvas.line(x, y + 3, x, y + 8, "axis")
        canvas.text(x, y + 22, words, "tick", "start" if value == 0 else "middle")


def _marks(canvas: Canvas, result: PlanResult, across: Axis, limit: int | None, top: float, height: float) -> float:
    """Mark peak and limit under the bar; return where the lower one's words stand."""
    y = top + height + 46
    _mark(canvas, across(result.terms.total), top, y, f"peak {exact_size(result.terms.total)}", "peak")
    if result.limit_bytes is None:
        return y
    if limit is not None:
        _mark(canvas, across(limit), top, y + 20, limit_words(result), "target")
        return y + 20
    times = result.limit_bytes / max(result.terms.total, 1)
    canvas.text(canvas.width, y + 20, f"{limit_words(result)}: {times:.1f} times the bar", "target-label", "end")
    return y + 20


def _mark(canvas: Canvas, x: float, top: float, y: float, words: str, class_: str) -> None:
    canvas.line(x, top - 4, x, y, class_)
    left = x > canvas.width / 2
    canvas.text(x + (-7 if left else 7), y, words, f"{class_}-label", "end" if left else "start")


def _legend(canvas: Canvas, terms: Sequence[Term], y: float) -> float:
    """Name the small terms: in two columns on a phone, in as many lines as they need elsewhere; return the end."""
    x = 1.0
    for place, term in enumerate(terms):
        words = f"{term.name} {exact_size(term.number_bytes)}"
        room = canvas.width / 2 if canvas.narrow else 18 + text_width(words, 12) + 20
        wrap = place % 2 == 0 if canvas.narrow else x + room - 20 > canvas.width
        if place and wrap:
            x, y = 1.0, y + 22
        canvas.add("rect", class_=f"term {term.key}", x=x, y=y - 10, width=12, height=12)
        canvas.text(x + 18, y, words, "small")
        x += room
    return y + 10


def frontier_figure(result: PlanResult, width: float = WIDE) -> Markup:
    """Return memory against seconds a step: the frontier as a line, the limit across, the chosen point marked."""
    canvas = Canvas("plan-frontier" if width >= 600 else "plan-frontier-narrow", width)
    area = Box(44, 44, width - 44 - 14, 250 if canvas.narrow else 290)
    canvas.height = area.y + area.height + 52
    points = sorted(result.frontier, key=lambda point: (point.peak_bytes, point.step_s))
    across, up = _frontier_axes(canvas, result, points, area)
    line = [(across(point.peak_bytes), up(point.step_s)) for point in points if point.on_frontier]
    if len(line) > 1:
        canvas.add("path", class_="curve frontier", d="M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in line))
    limits = [] if result.limit_bytes is None else [Box(across(result.limit_bytes) - 3, area.y, 6, area.height)]
    _points(canvas, points, across, up, area, [*_along(line), *limits])
    told = "; ".join(
        f"{point.label}: {exact_size(point.peak_bytes)}, {step_time(point.step_s)} a step"
        + (" (chosen)" if point.chosen else "")
        for point in points
    )
    return canvas.svg("Memory against time of the configurations that were tried", f"{told}.", label="plan")


def _frontier_axes(canvas: Canvas, result: PlanResult, points: Sequence[FrontierPoint], area: Box) -> tuple[Axis, Axis]:
    limit = result.limit_bytes
    sizes = [float(point.peak_bytes) for point in points]
    near = limit is not None and min(sizes) / 3 <= limit <= 3 * max(sizes)
    unit, name = unit_of(max(sizes))
    across, marks = _axis([value / unit for value in sizes + ([float(limit)] if limit and near else [])], area, False)
    up, heights = _axis([point.step_s for point in points], area, True)
    for value in heights:
        canvas.line(area.x, up(value), area.x + area.width, up(value), "grid")
        canvas.text(area.x - 9, up(value) + 4, f"{value:g}", "tick", "end")
    for value in marks:
        canvas.text(across(value), area.y + area.height + 20, f"{value:g}", "tick", "middle")
    canvas.text(0, 12, "seconds a step" + (", log scale" if up.log else ""), "small")
    caption = f"peak memory, {name}" + (", log scale" if across.log else "")
    canvas.text(area.x + area.width / 2, area.y + area.height + 44, caption, "small", "middle")
    scaled = Axis(across.low * unit, across.high * unit, across.start, across.end, across.log)
    if limit and near:
        x = scaled(limit)
        canvas.line(x, area.y - 20, x, area.y + area.height, "target")
        left = x > canvas.width / 2
        canvas.text(
            x + (-6 if left else 6), area.y - 10, limit_words(result), "target-label", "end" if left else "start"
        )
    return scaled, up


def _axis(values: Sequence[float], area: Box, upright: bool) -> tuple[Axis, list[float]]:
    """Return an axis around the values with its ticks; logarithmic when the values lie far apart."""
    start, end = (area.y + area.height, area.y) if upright else (area.x, area.x + area.width)
    low, high = min(values), max(values)
    if low > 0 and high / low >= _LOG_FROM:
        low, high = low / 1.3, high * 1.3
        return Axis(low, high, start, end, log=True), log_ticks(low, high)
    marks = ticks(low - 0.05 * (high - low), high + 0.05 * (high - low), 5)
    marks = marks if low >= 0 and marks[0] >= 0 else [value for value in marks if value >= 0]
    return Axis(marks[0], marks[-1], start, end), marks


def _along(line: Sequence[tuple[float, float]]) -> list[Box]:
    """Return small boxes that cover a line, so that no name is written over it."""
    return [
        Box(x0 + (x1 - x0) * place / 40 - 2, y0 + (y1 - y0) * place / 40 - 2, 4, 4)
        for (x0, y0), (x1, y1) in pairwise(line)
        for place in range(41)
    ]


def _points(
    canvas: Canvas, points: Sequence[FrontierPoint], across: Axis, up: Axis, area: Box, lines: Sequence[Box]
) -> None:
    """Draw all points; name the chosen one, and of the others those whose names keep clear of everything."""
    order = sorted(points, key=lambda point: (not point.chosen, not point.on_frontier))
    places = [(across(point.peak_bytes), up(point.step_s)) for point in order]
    names = [shortened(point.label, min(_LABEL, 0.6 * area.width), 12) for point in order]
    bounds = Box(area.x + 2, area.y + 2, area.width + 8, area.height - 4)
    boxes = place_labels(places, [text_width(name, 12) for name in names], 14, bounds, lines)
    taken = [*lines, *(Box(x - 7, y - 7, 14, 14) for x, y in places)]
    for point, name, box, (_, y) in zip(order, names, boxes, places, strict=True):
        beside = box.y < y + 14 and box.y + box.height > y - 14
        if beside and box.inside(bounds) and not any(box.meets(other) for other in taken):
            taken.append(box)
            canvas.text(box.x, box.y + 12, name, "small best" if point.chosen else "small")
    for point, (x, y) in zip(reversed(order), reversed(places), strict=True):
        state = "best" if point.chosen else "open" if point.fits is False else ""
        canvas.add("circle", class_=f"dot {state}".strip(), cx=x, cy=y, r=7 if point.chosen else 5)
        if point.chosen:
            canvas.add("circle", class_="ring", cx=x, cy=y, r=11)


def predicted_measured(trainings: Mapping[str, TrainResult], width: float = WIDE) -> Markup:
    """Return predicted and measured peaks of trainings, a ring and a dot on one line each; empty if none has both."""
    shown = {name: training for name, training in trainings.items() if prediction_error(training) is not None}
    if not shown:
        return Markup("")
    canvas = Canvas("plan-measured" if width >= 600 else "plan-measured-narrow", width)
    left, right = (8.0, width - 12) if canvas.narrow else (200.0, width - 230)
    both = [float(v) for t in shown.values() for v in (t.peak_bytes, t.predicted_peak_bytes or 0)]
    unit, name = unit_of(max(both))
    marks = ticks(0.0, max(both) / unit, 3 if canvas.narrow else 5)
    across = Axis(0.0, marks[-1] * unit, left, right)
    row = 62 if canvas.narrow else 40
    bottom = 8.0 + row * len(shown)
    for value in marks:
        x = across(value * unit)
        if not canvas.narrow:
            canvas.line(x, 4, x, bottom, "grid")
        anchor = "end" if canvas.narrow and value == marks[-1] else "start" if canvas.narrow and not value else "middle"
        canvas.text(x, bottom + 16, f"{value:g} {name}", "tick", anchor)
    for place, (title, training) in enumerate(shown.items()):
        _dumbbell(canvas, across, title, training, 8.0 + row * place + (44 if canvas.narrow else 20))
    _dumbbell_legend(canvas, left, bottom + 42)
    canvas.height = bottom + 54
    told = "; ".join(f"{title}: {memory_words(training)}" for title, training in shown.items())
    return canvas.svg("Peak memory, predicted and measured", f"{told}.", label="plan")


def _dumbbell(canvas: Canvas, across: Axis, title: str, training: TrainResult, y: float) -> None:
    predicted, measured = training.predicted_peak_bytes or 0, training.peak_bytes
    error = prediction_error(training)
    told = "" if error is None else change(error)
    numbers = f"{exact_size(predicted)} → {exact_size(measured)}"
    if canvas.narrow:
        canvas.line(across.start, y, across.end, y, "axis")
        canvas.text(0, y - 19, shortened(title, canvas.width - 190, 14), "label strong")
        canvas.text(canvas.width, y - 19, told, "value", "end")
        canvas.text(canvas.width - 66, y - 19, numbers, "small", "end")
    else:
        canvas.text(0, y + 5, shortened(title, 184, 14), "label strong")
        canvas.text(canvas.width - 80, y + 5, numbers, "small", "end")
        canvas.text(canvas.width, y + 5.5, told, "value", "end")
    canvas.line(across(predicted), y, across(measured), y, "whisker best")
    canvas.add("circle", class_="dot best", cx=across(measured), cy=y, r=6)
    canvas.add("circle", class_="ring predicted", cx=across(predicted), cy=y, r=6)


def _dumbbell_legend(canvas: Canvas, x: float, y: float) -> None:
    canvas.add("circle", class_="ring predicted", cx=x + 6, cy=y - 4, r=6)
    canvas.text(x + 19, y, "predicted", "small")
    canvas.add("circle", class_="dot best", cx=x + 100, cy=y - 4, r=6)
    canvas.text(
        x + 113, y, "measured, and how far the prediction was off" if not canvas.narrow else "measured", "small"
    )


def unit_of(number_bytes: float) -> tuple[float, str]:
    """Return the decimal unit in which an axis up to so many bytes is labelled."""
    return next(((unit, name) for unit, name in _UNITS if number_bytes >= unit), (1.0, "B"))
