"""A plan in a terminal: the answer, where the bytes go, how long and at what price, and what else there is.

Prints nothing and computes nothing but shares. Bars carry letters, so that they read without colour.

    rich.console.Console().print(plan_view(result))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from luthier.ground.plan_result import PlanResult
from luthier.ground.words import exact_size, percent, seconds
from luthier.reports.plan_words import (
    Term,
    against,
    bar_scale,
    change_words,
    choice_words,
    fits_sign,
    limit_words,
    measured_facts,
    pace_facts,
    parallel_facts,
    parts_of,
    rules_of,
    same_words,
    shown_points,
    sources_of,
    step_time,
    terms_of,
    what_facts,
)
from luthier.reports.terminal_parts import BAR, facts, plain_table, spaced, text

_WIDEST = 78  # of the stacked bar
_STYLES = {
    "weights": "blue", "adapters": "green", "gradients": "cyan", "optimizer": "bright_blue", "activations": "yellow",
    "attention": "bright_magenta", "loss": "magenta", "kv_cache": "green", "temporary": "bright_yellow",
    "overhead": "bright_black",
}  # fmt: skip
_FITS = {True: "green", False: "red", None: ""}


def plan_view(result: PlanResult) -> RenderableType:
    """Return the whole plan; parts that the result does not have are left out."""
    terms = terms_of(result)
    blocks: list[RenderableType] = [text(result.sentence, f"bold {_FITS[result.fits]}".strip())]
    blocks += [Group(*(text(f"! {warning}", "yellow") for warning in result.warnings))] if result.warnings else []
    blocks += [facts(what_facts(result))]
    blocks += [StackedBar(result), _terms(terms)] if terms else []
    blocks += [_moments(result)] if result.moments else []
    blocks += [_titled("Time and money", facts(pace_facts(result) + parallel_facts(result)))]
    blocks += _choices(result)
    blocks += [_titled("Predicted and measured", facts(measured_facts(result)))] if result.measured else []
    blocks += [_rules(result)] if rules_of(result) else []
    return spaced([*blocks, text(_made(result), "dim")])


@dataclass(frozen=True)
class StackedBar:
    """The terms of the peak side by side and to scale, with the limit marked; as wide as the terminal allows."""

    result: PlanResult

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.lines(min(options.max_width, _WIDEST))

    def lines(self, width: int) -> list[Text]:
        """Return the bar and the lines that name its peak and its limit."""
        result, terms = self.result, terms_of(self.result)
        scale, limit = bar_scale(result)
        filled = min(width, max(len(terms), round(width * result.terms.total / scale)))
        bar = Text("", no_wrap=True)
        for term, cells in zip(terms, whole_parts([t.number_bytes for t in terms], filled), strict=True):
            colour = _STYLES[term.key]
            bar.append(term.letter, f"bold {'white' if colour == 'bright_black' else 'black'} on {colour}")
            bar.append("█" * (cells - 1), colour)
        bar.append("·" * (width - filled), "dim")
        marks = [_mark(filled - 1, f"peak {exact_size(result.terms.total)}", width)]
        if limit is not None:
            place = min(width - 1, max(0, math.floor(width * limit / scale)))
            marks.append(_mark(place, limit_words(result), width))
        lines = [bar, *_lines_of(marks)]
        if limit is None and result.limit_bytes is not None:
            times = result.limit_bytes / max(result.terms.total, 1)
            lines.append(text(f"{limit_words(result)}: {times:.1f} times the bar", "blue"))
        return lines


def whole_parts(values: Sequence[int], cells: int) -> list[int]:
    """Return how many cells each positive value gets: at least one, in proportion, and `cells` together."""
    edges, at = [0], 0.0
    for part in parts_of(values, float(max(cells, len(values))), 1.0):
        at += part
        edges.append(math.floor(at + 0.5))
    return [end - start for start, end in pairwise(edges)]


def _mark(cell: int, words: str, width: int) -> tuple[int, str]:
    """Return where the words of a mark begin, with an arrow that stands under its cell."""
    if cell + 2 + len(words) <= width:
        return cell, f"▲ {words}"
    if cell + 1 >= len(words) + 2:
        return cell - len(words) - 1, f"{words} ▲"
    return 0, " " * cell + "▲ " + words


def _lines_of(marks: Sequence[tuple[int, str]]) -> list[Text]:
    """Put marks on one line where they keep apart, on two otherwise; the second mark is the limit."""
    styles = ("bold", "blue")
    made: list[Text] = []
    for (start, words), style in zip(marks, styles, strict=False):
        line = Text(" " * start, no_wrap=False)
        line.append_text(text(words, style))
        made.append(line)
    if len(marks) == 2:
        (a, first), (b, second) = marks
        left, right = (0, 1) if a < b else (1, 0)
        end = marks[left][0] + len(marks[left][1])
        if end + 2 <= marks[right][0]:
            joined = made[left].copy()
            joined.append(" " * (marks[right][0] - end))
            return [joined.append_text(text((first, second)[right], styles[right]))]
    return made


def _terms(terms: Sequence[Term]) -> RenderableType:
    table = plain_table("", "term", "bytes", "share", "how it comes about")
    for place in (1, 4):
        table.columns[place].justify = "left"
    for place in (0, 1, 2, 3):
        table.columns[place].no_wrap = True
    for term in terms:
        table.add_row(
            text(term.letter, f"bold {_STYLES[term.key]}"),
            text(term.name),
            text(exact_size(term.number_bytes)),
            text(percent(term.share)),
            text(term.formula, "dim"),
        )
    sources = [text(f"{names}: {source}", "dim") for names, source in sources_of(terms)]
    return Group(table, Text(""), *sources) if sources else table


def _moments(result: PlanResult) -> RenderableType:
    table = _bars("the most bytes in", "", "")
    most = max(moment.peak_bytes for moment in result.moments)
    for moment in result.moments:
        style = "bold yellow" if moment.peak_bytes == most else ""
        peak = text(exact_size(moment.peak_bytes), style)
        table.add_row(text(moment.stage, style), peak, _bar(moment.peak_bytes, most))
    return table


def _choices(result: PlanResult) -> list[RenderableType]:
    blocks: list[RenderableType] = [text(choice_words(result), "bold")] if choice_words(result) else []
    if result.smallest_bytes is not None and result.fits is False:
        blocks.append(text(f"The smallest of all that was tried needs {exact_size(result.smallest_bytes)}.", "red"))
    blocks += [_concessions(result)] if result.concessions else []
    blocks += [_frontier(result)] if shown_points(result) else []
    return blocks


def _concessions(result: PlanResult) -> Table:
    table = plain_table("what a change would do", "peak", "memory", "time", "fits", "result")
    table.columns[-1].justify = "left"
    for place in (1, 2, 3, 4):
        table.columns[place].no_wrap = True
    for option in result.concessions:
        memory, time = change_words(option.bytes_change, option.step_change)
        table.add_row(
            text(option.option),
            text(exact_size(option.peak_bytes)),
            text(memory),
            text(time),
            text(fits_sign(option.fits), _FITS[option.fits]),
            text(same_words(option), "dim"),
        )
    return table


def _frontier(result: PlanResult) -> RenderableType:
    points = shown_points(result)
    table = _bars("frontier: less memory costs more time", "peak", "", "a step", "fits")
    most = max(point.peak_bytes for point in points)
    for point in points:
        style = "bold yellow" if point.chosen else ""
        table.add_row(
            text(point.label + (" (chosen)" if point.chosen else ""), style),
            text(exact_size(point.peak_bytes), style),
            _bar(point.peak_bytes, most, BAR // 2),
            text(step_time(point.step_s), style),
            text(fits_sign(point.fits), _FITS[point.fits]),
        )
    return table


def _rules(result: PlanResult) -> Table:
    table = plain_table("for comparison, rules of thumb", "bytes", "against this plan")
    for name, number in rules_of(result):
        table.add_row(text(name), text(exact_size(number)), text(against(number, result)))
    return table


def _bars(*heads: str) -> Table:
    """Return a table whose third column holds bars."""
    table = plain_table(*heads)
    table.columns[2].justify = "left"
    for column in table.columns[1:]:
        column.no_wrap = True
    return table


def _bar(number: int, most: int, width: int = BAR) -> Text:
    return Text("█" * max(1, round(width * number / max(most, 1))), "cyan")


def _titled(title: str, shown: RenderableType) -> Group:
    return Group(text(title, "bold"), shown)


def _made(result: PlanResult) -> str:
    made: Iterable[str] = (f"Planned in {seconds(result.seconds)}", f"written to {result.run}" if result.run else "")
    return ", ".join(part for part in made if part) + "."
