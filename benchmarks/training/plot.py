"""Loss curves of all peers on one picture, as SVG written by hand.

Path("losses.svg").write_text(loss_plot(summarise(result), "lora"))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_COLOURS = (
    "#111111",
    "#d1495b",
    "#2e86ab",
    "#3c8d53",
    "#b8860b",
    "#7b4fa3",
    "#e07a1f",
    "#5f6b73",
    "#9c2f6f",
    "#0f8b8d",
)
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 400, 52, 34, 230, 40


def loss_plot(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Return the picture; Luthier's curve is the thick one."""
    drawn = [row for row in rows if "failed" not in row]
    losses = [loss for row in drawn for loss in row["losses"]]
    low, high = (min(losses), max(losses)) if losses else (0.0, 1.0)
    high = high if high > low else low + 1.0
    steps = max((len(row["losses"]) for row in drawn), default=1)
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(step: int) -> float:
        return LEFT + across * (step / max(1, steps - 1))

    def y(loss: float) -> float:
        return TOP + down * (high - loss) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}: loss per step</text>',
    ]
    for tick in range(5):
        loss = low + (high - low) * tick / 4
        parts.append(f'<path d="M{LEFT} {y(loss):.1f}H{LEFT + across}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.2f}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 14}">step 1</text>')
    parts.append(f'<text x="{LEFT + across}" y="{HEIGHT - 14}" text-anchor="end">step {steps}</text>')
    for number, row in enumerate(drawn):
        colour, own = _COLOURS[number % len(_COLOURS)], row["peer"] == "luthier"
        points = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in enumerate(row["losses"]))
        style = (
            f'fill="none" stroke="{colour}" stroke-width="{4 if own else 1.5}" stroke-opacity="{0.45 if own else 1}"'
        )
        parts.append(f'<polyline points="{points}" {style}/>')
        height = TOP + 16 * number + 6
        parts.append(
            f'<path d="M{WIDTH - RIGHT + 14} {height}h18" stroke="{colour}" stroke-width="{4 if own else 2}"/>'
        )
        off = f" ({row['deviation']:.1%} off)" if row.get("deviation") and not own else ""
        parts.append(f'<text x="{WIDTH - RIGHT + 38}" y="{height + 4}">{escape(row["peer"] + off)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
