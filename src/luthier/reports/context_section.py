"""What a longer window brought: passkeys and needles found by depth and length, and the loss by position.

Everything drawn stands in the result; nothing is computed.

    context_section(result)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from markupsafe import Markup
from rich.console import Group, RenderableType

from luthier.ground.objective_results import ContextResult, PositionLoss, RetrievalCell
from luthier.ground.results import CompareResult
from luthier.ground.words import count, percent
from luthier.reports.figures import HALF, both_widths
from luthier.reports.section import KindSection
from luthier.reports.svg import Axis, Box, Canvas, element, shortened, spread, ticks
from luthier.reports.terminal_parts import plain_table, text

_ROW, _HEAD = 26.0, 44.0
_AREA = Box(46, 14, HALF - 60, 220)
_CURVES = ("train", "reference", "dev")  # the base, the base with scaled positions, the finetuned model


def context_section(result: CompareResult) -> KindSection | None:
    """Return the section of a comparison with a longer window."""
    found = result.context
    if found is None:
        return None
    body = element("p", found.sentence, class_="lead")
    for test in dict.fromkeys(cell.test for cell in found.cells):
        body += element("h3", {"passkey": "Passkeys found", "needle": "Needles found"}[test])
        body += element("figure", both_widths(partial(heat_figure, found, test)))
    if any(position.loss for position in found.positions):
        body += element("h3", "Loss by position")
        body += element("div", element("figure", position_figure(found)), class_="halves")
    return KindSection("context", f"A window {found.new_window / found.old_window:g} times as long", body)


def heat_figure(found: ContextResult, test: str, width: float) -> Markup:
    """Return the share of trials in which each system found what it was asked for: depth down, length across."""
    cells = [cell for cell in found.cells if cell.test == test]
    systems = list(dict.fromkeys(cell.system for cell in cells))
    canvas = Canvas(f"{test}-{'narrow' if width < 600 else 'wide'}", width)
    across = 1 if canvas.narrow else len(systems)
    gap = 40.0
    block = (width - gap * (across - 1)) / across
    depths = len({cell.depth for cell in cells})
    height = _HEAD + _ROW * depths + 46
    for number, system in enumerate(systems):
        column, row = number % across, number // across
        own = [cell for cell in cells if cell.system == system]
        _heat(canvas, own, Box(column * (block + gap), row * height, block, height), found.old_window)
    canvas.height = height * math.ceil(len(systems) / across)
    told = [f"{system}: {_found_beyond(cells, system, found.old_window)} beyond the old window" for system in systems]
    return canvas.svg(f"{test} found by depth and length", "; ".join(told) + ".", label="heat")


def position_figure(found: ContextResult) -> Markup:
    """Return the loss of each system by position, with a line at the old window."""
    canvas = Canvas("positions", HALF, 300.0)
    drawn = [position for position in found.positions if position.loss]
    highest = max(loss for position in drawn for loss in position.loss)
    marks = ticks(0.0, highest, 4)
    last = max(position.edges[-1] for position in drawn)
    across = Axis(0.0, float(last), _AREA.x, _AREA.x + _AREA.width - 62)
    up = Axis(0.0, marks[-1], _AREA.y + _AREA.height, _AREA.y)
    for value in marks:
        canvas.line(_AREA.x, up(value), across.end, up(value), "grid")
        canvas.text(_AREA.x - 8, up(value) + 4, f"{value:g}", "tick", "end")
    canvas.line(across(found.old_window), _AREA.y, across(found.old_window), up(0), "target")
    for value in [mark for mark in ticks(0.0, float(last), 4) if mark <= last]:
        canvas.text(across(value), up(0) + 19, count(value), "tick", "middle")
    canvas.text((across.start + across.end) / 2, up(0) + 42, "position in the text, in tokens", "small", "middle")
    _curves(canvas, drawn, across, up)
    told = (
        f"{position.system}: {position.loss[0]:.3f} at the beginning, {position.loss[-1]:.3f}" for position in drawn
    )
    return canvas.svg("Loss by position, in nats per token", "; ".join(told) + " at the end.")


def context_view(found: ContextResult) -> RenderableType:
    """Return the sentence and, by length, what each system found, for the terminal."""
    systems = list(dict.fromkeys(cell.system for cell in found.cells))
    lengths = sorted({cell.length for cell in found.cells})
    table = plain_table("found", *(count(length) for length in lengths))
    for test in dict.fromkeys(cell.test for cell in found.cells):
        for system in systems:
            shares = [
                _share([c for c in found.cells if (c.test, c.system, c.length) == (test, system, length)])
                for length in lengths
            ]
            table.add_row(text(f"{test}s, {system}"), *(text(share) for share in shares))
    return Group(text(found.sentence, "bold"), table) if systems else text(found.sentence, "bold")


def _heat(canvas: Canvas, cells: Sequence[RetrievalCell], box: Box, old_window: int) -> None:
    lengths, depths = sorted({cell.length for cell in cells}), sorted({cell.depth for cell in cells})
    left = box.x + 44
    width = (box.width - 44) / len(lengths)
    canvas.text(left, box.y + 14, shortened(cells[0].system, box.width - 44, 14), "label strong")
    for row, depth in enumerate(depths):
        canvas.text(left - 8, box.y + _HEAD + _ROW * row + 16, f"{100 * depth:.0f}%", "tick", "end")
    for column, length in enumerate(lengths):
        middle = left + width * (column + 0.5)
        state = "tick" if length <= old_window else "tick strong"
        canvas.text(middle, box.y + _HEAD - 8, count(length), state, "middle")
    for cell in cells:
        x = left + width * lengths.index(cell.length)
        y = box.y + _HEAD + _ROW * depths.index(cell.depth)
        share = cell.right / max(1, cell.n)
        canvas.add("rect", class_="heat-cell", x=x + 1, y=y, width=width - 2, height=_ROW - 2)
        canvas.add("rect", class_="heat", x=x + 1, y=y, width=width - 2, height=_ROW - 2, fill_opacity=0.75 * share)
        canvas.text(x + width / 2, y + 16, f"{cell.right}/{cell.n}", "tick", "middle")
    canvas.text(left, box.y + _HEAD + _ROW * len(depths) + 16, "depth down, tokens across", "small")


def _curves(canvas: Canvas, drawn: Sequence[PositionLoss], across: Axis, up: Axis) -> None:
    ends = []
    for position, state in zip(drawn, _CURVES, strict=False):
        points = [
            (across((first + end) / 2), up(loss))
            for first, end, loss in zip(position.edges, position.edges[1:], position.loss, strict=False)
        ]
        path = "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points)
        canvas.add("path", class_=f"curve {state}", d=path)
        ends.append((f"{position.system.split(',')[-1].strip()} {position.loss[-1]:.2f}", points[-1][1]))
    heights = spread([y for _, y in ends], 15, _AREA.y, _AREA.y + _AREA.height)
    for (words, _), y in zip(ends, heights, strict=True):
        canvas.text(_AREA.x + _AREA.width + 8, y + 4, shortened(words, 130, 12), "small", "end")


def _found_beyond(cells: Sequence[RetrievalCell], system: str, old_window: int) -> str:
    return _share([cell for cell in cells if cell.system == system and cell.length > old_window])


def _share(cells: Sequence[RetrievalCell]) -> str:
    n = sum(cell.n for cell in cells)
    return percent(sum(cell.right for cell in cells) / n) if n else "–"
