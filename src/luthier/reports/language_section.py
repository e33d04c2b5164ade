"""What was learned of the domain's text and forgotten of general text: bits per byte before and after, side by side.

Everything drawn stands in the result; nothing is computed.

    language_section(result)
"""

from __future__ import annotations

from functools import partial

from markupsafe import Markup
from rich.console import Group, RenderableType

from luthier.ground.objective_results import LanguageResult, TextLoss
from luthier.ground.results import CompareResult
from luthier.ground.words import count, size
from luthier.reports.figures import both_widths
from luthier.reports.section import KindSection
from luthier.reports.svg import Axis, Canvas, element, ticks
from luthier.reports.terminal_parts import plain_table, text

_ROW = 34.0
_HEAD = 26.0


def language_section(result: CompareResult) -> KindSection | None:
    """Return the section of a comparison on raw text."""
    found = result.language
    if found is None:
        return None
    body = element("p", found.sentence, class_="lead")
    body += element("figure", both_widths(partial(bits_figure, found)))
    for change in found.changes:
        body += element("p", f"{change.sentence[:1].upper()}{change.sentence[1:]}.")
    body += element("p", _how(found), class_="small")
    return KindSection("language", "Learned and forgotten", body)


def bits_figure(found: LanguageResult, width: float) -> Markup:
    """Return bits per byte with their intervals, one row for each system and text; fewer are better."""
    canvas = Canvas(f"bits-{'narrow' if width < 600 else 'wide'}", width)
    label = min(230.0, width * 0.42)
    highest = max(loss.interval[1] for loss in found.losses)
    marks = ticks(0.0, highest, 4)
    across = Axis(0.0, marks[-1], label, width - 64)
    texts = list(dict.fromkeys(loss.text for loss in found.losses))
    y = 0.0
    for what in texts:
        canvas.text(0, y + 16, f"{what} text", "label strong")
        y += _HEAD
        for loss in (one for one in found.losses if one.text == what):
            _row(canvas, loss, across, y)
            y += _ROW
        y += 8
    for value in marks:
        canvas.line(across(value), 0, across(value), y - 6, "grid")
        canvas.text(across(value), y + 12, f"{value:g}", "tick", "middle")
    canvas.text((across.start + across.end) / 2, y + 34, "bits per byte; fewer are better", "small", "middle")
    canvas.height = y + 44
    told = "; ".join(f"{loss.system}, {loss.text} text: {loss.bits_per_byte:.3f}" for loss in found.losses)
    return canvas.svg("Bits per byte before and after training", f"{told}.")


def language_view(found: LanguageResult) -> RenderableType:
    """Return bits per byte of each system and text, for the terminal."""
    table = plain_table("system", "text", "bits per byte", "interval", "bytes")
    for loss in found.losses:
        low, high = loss.interval
        table.add_row(
            text(loss.system),
            text(loss.text),
            text(f"{loss.bits_per_byte:.3f}"),
            text(f"{low:.3f} to {high:.3f}"),
            text(count(loss.bytes)),
        )
    return Group(table)


def _row(canvas: Canvas, loss: TextLoss, across: Axis, y: float) -> None:
    low, high = loss.interval
    middle = y + 12
    canvas.text(14, middle + 4, loss.system, "label")
    state = " best" if loss.system == "finetuned" else ""
    wide = max(2.0, across(high) - across(low))
    canvas.add("rect", class_=f"interval{state}", x=across(low), y=middle - 6, width=wide, height=12, rx=6)
    canvas.add("circle", class_=f"dot{state}", cx=across(loss.bits_per_byte), cy=middle, r=5)
    canvas.text(across.end + 8, middle + 4, f"{loss.bits_per_byte:.3f}", "small")


def _how(found: LanguageResult) -> str:
    bytes_of = {loss.text: loss.bytes for loss in found.losses}
    told = ", ".join(f"{size(number)} of {what} text" for what, number in bytes_of.items())
    return (
        f"Measured on {told} that was not trained on. A text's bits are the sum of −log₂ p over its tokens; dividing "
        "by its bytes makes models with different tokens comparable. Intervals come from resampling documents; changes "
        "are of the same documents. The score of a system is 1 − bits/8, the share of the bits that it saves."
    )
