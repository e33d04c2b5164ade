"""The pictures of a comparison: scores with intervals, contrasts around zero, and score against cost.

Each takes the result and a width and returns one SVG; `both_widths` draws a picture twice, for a desk and for a phone.
Everything drawn stands in the result; nothing is computed.

    scores_figure(result, width=880)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources

from markupsafe import Markup

from luthier.ground.results import CompareResult, Contrast, Measure, SystemResult
from luthier.ground.words import count, percent, points, points_span, seconds, signed, span
from luthier.reports.svg import Axis, Box, Canvas, log_ticks, place_labels, shortened, text_width, ticks

WIDE, NARROW, HALF = 880.0, 350.0, 430.0
_PARTS = (("form", "valid", "parse", "known"), ("facts",), ("field_f1",))  # at most one of each row is drawn
_ON_WHITE = ":root { --paper: #fff; } @media (prefers-color-scheme: dark) { :root { --paper: #161411; } }"
Lanes = Sequence[tuple[float, float]]  # from which height to which
_LOG_FROM = 12.0  # an axis becomes logarithmic when its largest value is this many times its smallest


def both_widths(draw: Callable[[float], Markup]) -> Markup:
    """Return the picture twice; the style sheet shows the one that fits the screen."""
    wide, narrow = draw(WIDE), draw(NARROW)
    return Markup(f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>')


def scores_figure(result: CompareResult, width: float = WIDE) -> Markup:
    """Return the scores of all systems: a dot on its interval, small marks for the parts, a line for the target."""
    return _scores(result, width)


def scores_svg(result: CompareResult) -> str:
    """Return the scores as a file of its own, with its style inside, light or dark as the reader prefers."""
    style = resources.files("luthier.reports").joinpath("figure.css").read_text(encoding="utf-8")
    return str(_scores(result, WIDE, style + _ON_WHITE)) + "\n"


def shown_parts(systems: Sequence[SystemResult]) -> list[str]:
    """Return the parts of the metric that are drawn beside the score: those that every system has."""
    common = set.intersection(*(set(system.metrics) for system in systems)) if systems else set()
    found = (next((name for name in names if name in common), None) for names in _PARTS)
    parts = [name for name in found if name is not None]
    return parts[:2] if "form" in parts or "facts" in parts else parts


def best_of(systems: Sequence[SystemResult]) -> str | None:
    """Return the name of the system with the highest score."""
    best = max(systems, key=lambda system: system.score, default=None)
    return best.name if best else None


def _scores(result: CompareResult, width: float, style: str | None = None) -> Markup:
    canvas = Canvas("scores" if width >= 600 else "scores-narrow", width)
    parts = shown_parts(result.systems)
    axis = Axis(0.0, 1.0, 8.0, width - 8) if canvas.narrow else Axis(0.0, 1.0, 200.0, width - 210)
    top = _scores_heading(canvas, result, style is not None)
    row = (70 if canvas.narrow else 40) + (16 if parts else 0)
    bottom = top + row * len(result.systems)
    middles = [top + row * place + (44 if canvas.narrow else 22) for place in range(len(result.systems))]
    lanes = [(y - 11, y + 28) for y in middles] if canvas.narrow else [(top - 6, bottom)]
    _percent_grid(canvas, axis, lanes, bottom)
    best = best_of(result.systems)
    for system, y in zip(result.systems, middles, strict=True):
        _score_row(canvas, axis, system, y, "best" if system.name == best else "")
        for number, name in enumerate(parts):
            _mark(canvas, number, axis(system.metrics[name].score), y + 20)
    _target(canvas, axis, result.target, top, lanes)
    _legend(canvas, result, parts, bottom + 44)
    return canvas.svg(
        f"Scores of {len(result.systems)} systems with {100 * result.confidence:g}% intervals",
        "; ".join(f"{s.title}: {percent(s.score)}, interval {span(*s.interval)}" for s in result.systems) + ".",
        style=style,
        label="scores",
    )


def _scores_heading(canvas: Canvas, result: CompareResult, standalone: bool) -> float:
    """Write a heading on a picture that stands alone; return where the rows begin."""
    top = 26.0 if result.target is not None else 10.0
    if not standalone:
        return top
    canvas.text(0, 24, f"{result.task}: {result.metric} on {count(result.n_test)} test items", "title")
    canvas.text(0, 43, f"{result.model}, {result.environment.date[:10]}, {result.environment.machine}", "small")
    return top + 58


def _percent_grid(canvas: Canvas, axis: Axis, lanes: Lanes, bottom: float) -> None:
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = axis(share)
        anchor = "middle" if not canvas.narrow or 0 < share < 1 else "start" if share == 0 else "end"
        edge = {"start": -8, "end": 8}.get(anchor, 0)
        _upright(canvas, x, lanes, "grid")
        canvas.text(x + edge, bottom + 17, f"{100 * share:.0f}%", "tick", anchor)


def _score_row(canvas: Canvas, axis: Axis, system: SystemResult, y: float, state: str) -> None:
    low, high = system.interval
    _interval(canvas, axis, low, high, system.score, y, state)
    interval = span(low, high)
    if canvas.narrow:
        canvas.text(0, y - 19, shortened(system.title, canvas.width - 160, 14), f"label strong {state}".strip())
        canvas.text(canvas.width, y - 19, f"{percent(system.score)}", f"value {state}".strip(), "end")
        canvas.text(canvas.width - 62, y - 19, interval, "small", "end")
        return
    canvas.text(0, y + 5, shortened(system.title, 180, 14), f"label strong {state}".strip())
    canvas.text(canvas.width - 100, y + 5.5, percent(system.score), f"value {state}".strip(), "end")
    canvas.text(canvas.width, y + 5, interval, "small", "end")


def _interval(canvas: Canvas, axis: Axis, low: float, high: float, middle: float, y: float, state: str) -> None:
    start, end = axis(low), axis(high)
    canvas.add("rect", class_=f"interval {state}".strip(), x=start, y=y - 5, width=end - start, height=10, rx=5)
    canvas.add("circle", class_=f"dot {state}".strip(), cx=axis(middle), cy=y, r=6.5)


def _mark(canvas: Canvas, number: int, x: float, y: float) -> None:
    """Draw the mark of a part: a diamond, a square, or a ring."""
    if number == 0:
        canvas.add("path", class_="part-0", d=f"M{x:.2f} {y - 6:.2f}l6 6l-6 6l-6 -6z")
    elif number == 1:
        canvas.add("rect", class_="part-1", x=x - 3, y=y - 3, width=6, height=6)
    else:
        canvas.add("circle", class_="part-2", cx=x, cy=y, r=5)


def _upright(canvas: Canvas, x: float, lanes: Lanes, class_: str) -> None:
    """Draw a vertical line through the lanes only: on a phone, words stand between them."""
    for start, end in lanes:
        canvas.line(x, start, x, end, class_)


def _target(canvas: Canvas, axis: Axis, target: float | None, top: float, lanes: Lanes) -> None:
    if target is None:
        return
    x = axis(target)
    _upright(canvas, x, lanes, "target")
    anchor = "end" if target > 0.85 else "start" if target < 0.15 else "middle"
    canvas.text(x, top - 12, f"target {100 * target:g}%", "target-label", anchor)


def _legend(canvas: Canvas, result: CompareResult, parts: Sequence[str], y: float) -> None:
    """Say what dot, bar and marks mean, in as many lines as the width needs."""
    x = start = 8.0 if canvas.narrow else 200.0
    entries = [f"score and its {100 * result.confidence:g}% interval", *(f"{part_title(name)} alone" for name in parts)]
    for number, words in enumerate(entries):
        room = 40.0 if number == 0 else 22.0
        if x > start and x + room + text_width(words, 12) > canvas.width:
            x, y = start, y + 22
        if number == 0:
            canvas.add("rect", class_="interval", x=x - 8, y=y - 9, width=34, height=10, rx=5)
            canvas.add("circle", class_="dot", cx=x + 9, cy=y - 4, r=6)
        else:
            _mark(canvas, number - 1, x + 4, y - 4)
        canvas.text(x + room - 6, y, words, "small")
        x += room + text_width(words, 12) + 18
    canvas.height = y + 12


def part_title(name: str) -> str:
    """Return a part of a metric as people call it."""
    known = {"field_f1": "fields (F1)", "exact": "whole object", "parse": "parses", "valid": "keeps the schema"}
    return {**known, "known": "known label"}.get(name, name.replace("_", " "))


def contrasts_figure(result: CompareResult, width: float = WIDE) -> Markup:
    """Return the declared contrasts as a forest plot: each difference on its interval, around a line at zero."""
    canvas = Canvas("contrasts" if width >= 600 else "contrasts-narrow", width)
    left, right = (8.0, width - 8) if canvas.narrow else (240.0, width - 210)
    axis, marks = _difference_axis(result, left, right)
    top, row = 8.0, 82 if canvas.narrow else 54
    bottom = top + row * len(result.contrasts)
    middles = [top + row * place + (56 if canvas.narrow else 27) for place in range(len(result.contrasts))]
    lanes = [(y - 12, y + 12) for y in middles] if canvas.narrow else [(top, bottom)]
    band = axis(-result.margin), axis(result.margin)
    for start, end in lanes:
        canvas.add("rect", class_="band", x=band[0], y=start, width=band[1] - band[0], height=end - start)
    for value in marks:
        _upright(canvas, axis(value), lanes, "zero" if value == 0 else "grid")
        canvas.text(axis(value), bottom + 17, signed(100 * value, 0), "tick", "middle")
    for contrast, y in zip(result.contrasts, middles, strict=True):
        _contrast_row(canvas, axis, result, contrast, y)
    note = f"points; shaded: less than the margin of {100 * result.margin:g}"
    canvas.text((left + right) / 2, bottom + 36, note, "small", "middle")
    canvas.height = bottom + 48
    return canvas.svg(
        f"{len(result.contrasts)} declared contrasts with {100 * result.confidence:g}% intervals",
        " ".join(
            f"{c.a} minus {c.b}: {points(c.difference)}, {points_span(*c.interval)}, {c.verdict}."
            for c in result.contrasts
        ),
        label="contrasts",
    )


def _difference_axis(result: CompareResult, start: float, end: float) -> tuple[Axis, list[float]]:
    ends = [value for contrast in result.contrasts for value in (contrast.difference, *contrast.interval)]
    marks = ticks(min([-result.margin, 0.0, *ends]), max([result.margin, 0.0, *ends]), 5)
    return Axis(marks[0], marks[-1], start + 10, end - 10), marks


def _contrast_row(canvas: Canvas, axis: Axis, result: CompareResult, contrast: Contrast, y: float) -> None:
    state = contrast.verdict.replace(" ", "-")
    _interval(canvas, axis, *contrast.interval, contrast.difference, y, state)
    a, b = title_of(result, contrast.a), f"against {title_of(result, contrast.b)}"
    difference, interval = signed(100 * contrast.difference, 1), points_span(*contrast.interval)
    if canvas.narrow:
        canvas.text(0, y - 33, shortened(a, 220, 14), "label strong")
        canvas.text(0, y - 17, shortened(b, 220, 12), "small")
        canvas.text(canvas.width, y - 33, difference, f"value {state}", "end")
        canvas.text(canvas.width, y - 17, contrast.verdict, "small", "end")
        return
    canvas.text(0, y - 2, shortened(a, 226, 14), "label strong")
    canvas.text(0, y + 15, shortened(b, 226, 12), "small")
    canvas.text(canvas.width - 100, y + 3, difference, f"value {state}", "end")
    canvas.text(canvas.width, y - 2, contrast.verdict, "label", "end")
    canvas.text(canvas.width, y + 15, interval, "small", "end")


def title_of(result: CompareResult, name: str) -> str:
    """Return how people call a system."""
    return next((system.title for system in result.systems if system.name == name), name)


def latency_figure(result: CompareResult) -> Markup:
    """Return score against the median seconds of an answer."""
    values = [system.latency_s.p50 for system in result.systems]
    return _against(result, "latency", values, "median seconds an answer", seconds)


def tokens_figure(result: CompareResult) -> Markup:
    """Return score against prompt and output tokens of an answer."""
    values = [system.prompt_tokens + system.output_tokens for system in result.systems]
    return _against(result, "tokens", values, "tokens an answer, prompt and output", count)


def _against(
    result: CompareResult, name: str, values: list[float], caption: str, write: Callable[[float], str]
) -> Markup:
    canvas = Canvas(name, HALF, 330)
    area = Box(46, 14, HALF - 60, 250)
    across, marks = _cost_axis(values, area)
    up = Axis(0.0, 1.0, area.y + area.height, area.y)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        canvas.line(area.x, up(share), area.x + area.width, up(share), "grid")
        canvas.text(area.x - 8, up(share) + 4, f"{100 * share:.0f}%", "tick", "end")
    for value in marks:
        canvas.text(across(value), area.y + area.height + 20, _tick(value), "tick", "middle")
    canvas.text(
        area.x + area.width / 2,
        area.y + area.height + 44,
        caption + (", log scale" if across.log else ""),
        "small",
        "middle",
    )
    if result.target is not None:
        canvas.line(area.x, up(result.target), area.x + area.width, up(result.target), "target")
        near = [across(value) for value, system in zip(values, result.systems, strict=True)
                if abs(system.score - result.target) < 0.15]  # fmt: skip
        left = sum(x < area.x + area.width / 2 for x in near) <= len(near) / 2  # the emptier end
        at, anchor = (area.x + 4, "start") if left else (area.x + area.width - 4, "end")
        canvas.text(at, up(result.target) - 5, f"target {100 * result.target:g}%", "target-label", anchor)
    _points(canvas, result, [across(value) for value in values], up, area)
    told = zip(result.systems, values, strict=True)
    return canvas.svg(
        f"Score against {caption}",
        "; ".join(f"{system.title}: {percent(system.score)} at {write(value)}" for system, value in told) + ".",
    )


def _cost_axis(values: Sequence[float], area: Box) -> tuple[Axis, list[float]]:
    positive = [value for value in values if value > 0]
    if len(positive) == len(values) > 1 and max(values) / min(values) >= _LOG_FROM:
        low, high = min(values) / 1.3, max(values) * 1.3
        return Axis(low, high, area.x, area.x + area.width, log=True), log_ticks(low, high)
    marks = ticks(0.0, 1.08 * max(positive, default=1.0), 5)
    return Axis(0.0, marks[-1], area.x, area.x + area.width), marks


def _tick(value: float) -> str:
    return count(value) if value >= 10 or value == int(value) else f"{value:g}"


def _points(canvas: Canvas, result: CompareResult, across: Sequence[float], up: Axis, area: Box) -> None:
    best = best_of(result.systems)
    places = [(x, up(system.score)) for x, system in zip(across, result.systems, strict=True)]
    widths = [text_width(system.title, 12.5) for system in result.systems]
    bounds = Box(area.x, area.y - 8, area.width + 10, area.height + 8)
    whiskers = [
        Box(x - 3, up(system.interval[1]), 6, up(system.interval[0]) - up(system.interval[1]))
        for x, system in zip(across, result.systems, strict=True)
    ]
    boxes = place_labels(places, widths, 15, bounds, whiskers)
    for (x, y), system, box in zip(places, result.systems, boxes, strict=True):
        state = "best" if system.name == best else ""
        canvas.line(x, up(system.interval[0]), x, up(system.interval[1]), f"whisker {state}".strip())
        if box.y > y + 20 or box.y + box.height < y - 20:
            canvas.line(x, y, box.x + box.width / 2, box.y + (0 if box.y > y else box.height), "lead")
        canvas.add("circle", class_=f"dot {state}".strip(), cx=x, cy=y, r=6)
        canvas.text(box.x, box.y + 12, system.title, f"small {state}".strip())


def measures_of(system: SystemResult) -> dict[str, Measure]:
    """Return the parts of the metric that say something beside the score itself."""
    main = Measure(score=system.score, interval=system.interval)
    return {name: measure for name, measure in system.metrics.items() if not (name == "exact" and measure == main)}
