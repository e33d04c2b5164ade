"""What the terminal views are made of: safe texts, plain tables, grids of facts, and bars drawn in characters.

Knows no results and prints nothing.

    >>> interval_bar(0.0, 1.0, 0.5, width=5).plain
    '━━●━━'
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from luthier.reports.text import visible

BAR = 24  # characters of a bar
_BLOCKS = "▁▂▃▄▅▆▇█"


def text(content: str, style: str = "") -> Text:
    """Return text that is shown as it is: no markup, no control characters."""
    return Text(visible(content), style)


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Return a grid of names and values; rows without a value are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        if value:
            grid.add_row(text(name), text(value))
    return grid


def plain_table(first: str, *heads: str) -> Table:
    """Return a table without frame; the first column is words, the others numbers unless there is only one."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column(first, overflow="fold")
    for head in heads:
        table.add_column(head, justify="left" if len(heads) == 1 else "right", overflow="fold")
    return table


def spaced(blocks: Sequence[RenderableType]) -> Group:
    """Return the blocks with an empty line between them."""
    return Group(*(part for block in blocks for part in (block, Text(""))))


def interval_bar(
    low: float, high: float, score: float, target: float | None = None, style: str = "", width: int = BAR
) -> Text:
    """Return a score on its interval, between 0 and 1, drawn in `width` characters."""
    cells = [("·", "dim")] * width
    first, last = _cell(low, width), _cell(high, width)
    cells[first : last + 1] = [("━", style)] * (last - first + 1)
    if target is not None:
        cells[_cell(target, width)] = ("┊", "blue")
    cells[_cell(score, width)] = ("●", style)
    return Text.assemble(*cells)


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Return the values as blocks of eight heights, at most `width` of them."""
    if len(values) < 2:
        return ""
    chosen = [values[round(place * (len(values) - 1) / (width - 1))] for place in range(width)]
    shown = chosen if len(values) > width else list(values)
    low, high = min(shown), max(shown)
    return "".join(_BLOCKS[round(7 * (value - low) / ((high - low) or 1.0))] for value in shown)


def _cell(share: float, width: int) -> int:
    return min(width - 1, max(0, round(share * (width - 1))))
