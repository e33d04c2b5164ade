"""The pictures that are not of a comparison: token lengths, losses of a training, and score by number of examples.

Everything drawn stands in the results; nothing is computed.

    loss_figure(result.training["finetuned"])
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from luthier.ground.results import CompareResult, TokenCounts, TrainResult
from luthier.ground.words import count, percent
from luthier.reports.figures import HALF, title_of
from luthier.reports.svg import Axis, Box, Canvas, shortened, spread, ticks

_AREA = Box(46, 14, HALF - 60, 220)
_HEIGHT = 300.0


def length_figure(split: str, tokens: TokenCounts, max_length: int) -> Markup:
    """Return how many rows have how many tokens, with a line at the longest allowed length where it comes into view."""
    canvas = Canvas(f"lengths-{split}", HALF, _HEIGHT)
    bins = tokens.histogram
    low, high = min(start for start, _, _ in bins), max(end for _, end, _ in bins)
    near = max_length <= 1.25 * high
    across = Axis(low, max(high, max_length if near else high), _AREA.x, _AREA.x + _AREA.width)
    up = _counts_axis(canvas, max(rows for _, _, rows in bins))
    for start, end, rows in bins:
        x = across(start)
        width = max(across(end) - x - 1.5, 1.0)
        canvas.add("rect", class_="bar", x=x, y=up(rows), width=width, height=up(0) - up(rows))
    _bottom_ticks(canvas, across, [value for value in ticks(low, high, 5) if low <= value <= high], "tokens a row")
    if near:
        canvas.line(across(max_length), _AREA.y, across(max_length), up(0), "target")
        canvas.text(across(max_length) - 6, _AREA.y + 10, f"limit {count(max_length)}", "target-label", "end")
    quantiles = ", ".join(f"{name} {count(value)}" for name, value in tokens.quantiles.items())
    return canvas.svg(f"Tokens a row in {split}", f"Quantiles: {quantiles}.")


def loss_figure(training: TrainResult) -> Markup:
    """Return the loss of each step and of each dev evaluation; a ring marks the checkpoint that was kept."""
    canvas = Canvas(f"loss-{training.name.replace('+', '-')}", HALF, _HEIGHT)
    train = _finite((record.step, record.loss) for record in training.history)
    dev = _finite((record.step, record.dev_loss) for record in training.evals)
    last = max([x for x, _ in train + dev], default=1.0)
    marks = ticks(0.0, max([y for _, y in train + dev], default=1.0), 4)
    across = Axis(0.0, last, _AREA.x, _AREA.x + _AREA.width - 62)
    up = Axis(0.0, marks[-1], _AREA.y + _AREA.height, _AREA.y)
    for value in marks:
        canvas.line(_AREA.x, up(value), across.end, up(value), "grid")
        canvas.text(_AREA.x - 8, up(value) + 4, f"{value:g}", "tick", "end")
    _bottom_ticks(canvas, across, [value for value in ticks(0.0, last, 4) if value <= last], "step")
    _curve(canvas, [(across(x), up(y)) for x, y in train], "train")
    _curve(canvas, [(across(x), up(y)) for x, y in dev], "dev")
    for x, y in dev:
        canvas.add("circle", class_="dot dev", cx=across(x), cy=up(y), r=4)
        if x == training.best_step:
            canvas.add("circle", class_="ring", cx=across(x), cy=up(y), r=8)
    ends = [(f"train {train[-1][1]:.3f}", up(train[-1][1]), "small")] if train else []
    ends += [(f"dev {dev[-1][1]:.3f}", up(dev[-1][1]), "small best")] if dev else []
    _end_labels(canvas, across.end + 12, ends)
    return canvas.svg(f"Loss of {training.name}", _loss_words(training))


def learning_figure(result: CompareResult) -> Markup:
    """Return the score by number of training examples, with the systems that need none as lines across."""
    canvas = Canvas("learning", HALF, _HEIGHT)
    rows = [point[0] for point in result.curve]
    across = Axis(float(min(rows)), float(max(rows)), _AREA.x + 12, _AREA.x + _AREA.width - 112, log=min(rows) > 0)
    up = Axis(0.0, 1.0, _AREA.y + _AREA.height, _AREA.y)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        canvas.line(_AREA.x, up(share), across.end + 8, up(share), "grid")
        canvas.text(_AREA.x - 8, up(share) + 4, f"{100 * share:.0f}%", "tick", "end")
    upper = [(across(n), up(high)) for n, _, _, high in result.curve]
    lower = [(across(n), up(low)) for n, _, low, _ in reversed(result.curve)]
    canvas.add("path", class_="area", d=_path(upper + lower) + "Z")
    _curve(canvas, [(across(n), up(score)) for n, score, _, _ in result.curve], "dev")
    for n, score, _, _ in result.curve:
        canvas.add("circle", class_="dot dev", cx=across(n), cy=up(score), r=4.5)
    ends = []
    for system in result.systems:
        if system.name in ("prompt", "rag"):
            canvas.line(_AREA.x, up(system.score), across.end + 8, up(system.score), "reference")
            ends.append((shortened(title_of(result, system.name), 116, 12), up(system.score), "small"))
    ends.append((percent(result.curve[-1][1]), up(result.curve[-1][1]), "small best"))
    _end_labels(canvas, across.end + 12, ends)
    _bottom_ticks(canvas, across, [float(n) for n in rows], "training examples")
    told = "; ".join(f"{count(n)} rows: {percent(score)}" for n, score, _, _ in result.curve)
    return canvas.svg("Score by number of training examples", f"{told}.")


def _counts_axis(canvas: Canvas, most: int) -> Axis:
    marks = ticks(0.0, float(max(most, 1)), 4)
    up = Axis(0.0, marks[-1], _AREA.y + _AREA.height, _AREA.y)
    for value in marks:
        canvas.line(_AREA.x, up(value), _AREA.x + _AREA.width, up(value), "grid")
        canvas.text(_AREA.x - 8, up(value) + 4, f"{value:g}", "tick", "end")
    return up


def _bottom_ticks(canvas: Canvas, across: Axis, values: Sequence[float], caption: str) -> None:
    bottom = _AREA.y + _AREA.height
    for value in values:
        canvas.text(across(value), bottom + 19, count(value), "tick", "middle")
    canvas.text((across.start + across.end) / 2, bottom + 42, caption, "small", "middle")


def _curve(canvas: Canvas, points: Sequence[tuple[float, float]], state: str) -> None:
    if len(points) > 1:
        canvas.add("path", class_=f"curve {state}", d=_path(points))


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points)


def _end_labels(canvas: Canvas, x: float, labels: Sequence[tuple[str, float, str]]) -> None:
    heights = spread([y for _, y, _ in labels], 15, _AREA.y, _AREA.y + _AREA.height)
    for (words, _, class_), y in zip(labels, heights, strict=True):
        canvas.text(x, y + 4, words, class_)


def _finite(records: Iterable[tuple[int, float | None]]) -> list[tuple[float, float]]:
    return [(float(step), loss) for step, loss in records if loss is not None and math.isfinite(loss)]


def _loss_words(training: TrainResult) -> str:
    dev = "" if training.dev_loss is None else f", dev loss {training.dev_loss:.3f}"
    return f"{count(training.steps)} steps; train loss {training.train_loss:.3f}{dev}; best step {training.best_step}."
