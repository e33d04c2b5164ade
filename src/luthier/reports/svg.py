"""The few shapes that the figures are made of: elements, axes, ticks and labels that keep out of each other's way.

Knows nothing of results. Everything that goes into an element is escaped; colours are classes of `figure.css`.

    >>> element("text", "a < b", x=1.0, class_="label")
    Markup('<text x="1" class="label">a &lt; b</text>')
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from luthier.reports.text import visible

CHARACTER_EM = 0.53  # mean width of a character of a sans-serif face, in units of its size
_ELLIPSIS = "…"
_MARGIN = 20.0  # around a picture that is a file of its own


def element(name: str, content: str | Markup = "", **attributes: str | float | None) -> Markup:
    """Return one element; `class_` becomes `class`, other underscores become hyphens, None is left out."""
    pairs = [(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None]
    shown = "".join(f' {"viewBox" if key == "viewbox" else key}="{_value(value)}"' for key, value in pairs)
    inside = content if isinstance(content, Markup) else escape(visible(content))
    return Markup(f"<{name}{shown}>{inside}</{name}>")


@dataclass
class Canvas:
    """A picture under construction.

    Args:
        name: unique on its page; the ids of title and description are made from it.
        width: of the view box; a picture narrower than 600 is laid out for a phone.
    """

    name: str
    width: float
    height: float = 0.0
    parts: list[Markup] = field(default_factory=list)

    @property
    def narrow(self) -> bool:
        return self.width < 600

    def add(self, name: str, content: str | Markup = "", **attributes: str | float | None) -> None:
        self.parts.append(element(name, content, **attributes))

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str) -> None:
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)

    def text(self, x: float, y: float, content: str, class_: str, anchor: str = "start") -> None:
        self.add("text", content, x=x, y=y, class_=class_, text_anchor=None if anchor == "start" else anchor)

    def svg(self, title: str, description: str, *, style: str | None = None, label: str = "") -> Markup:
        """Return the whole picture, with a title and a description for those who do not see it.

        With a style it becomes a file of its own, on paper with a margin.
        """
        ids = f"{self.name}-title", f"{self.name}-desc"
        head = element("title", title, id=ids[0]) + element("desc", description, id=ids[1])
        margin = 0.0 if style is None else _MARGIN
        width, height = self.width + 2 * margin, self.height + 2 * margin
        if style is not None:
            head += Markup("<style>{}</style>").format(Markup(style))
            head += element("rect", class_="paper", x=-margin, y=-margin, width=width, height=height)
        return element(
            "svg",
            head + Markup("").join(self.parts),
            xmlns=None if style is None else "http://www.w3.org/2000/svg",
            class_=f"figure {label}".strip(),
            viewbox=f"{_value(-margin)} {_value(-margin)} {_value(width)} {_value(height)}",
            role="img",
            aria_labelledby=" ".join(ids),
        )


@dataclass(frozen=True)
class Axis:
    """A line from a value range to a pixel range; logarithmic if asked."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round values that span [low, high] in about `wanted` steps of 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(nice * power for nice in (1, 2, 2.5, 5, 10) if nice * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten inside [low, high]; the ends themselves if there are fewer than two."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside = [nice * 10.0**power for power in powers for nice in (1, 2, 5) if low <= nice * 10.0**power <= high]
    return inside if len(inside) > 1 else [low, high]


def text_width(text: str, size: float) -> float:
    """Return about how wide `text` is at a font size, in the same units."""
    return CHARACTER_EM * size * len(text)


def shortened(text: str, width: float, size: float) -> str:
    """Return `text`, cut with an ellipsis where it would be wider than `width`."""
    fitting = int(width / (CHARACTER_EM * size))
    return text if len(text) <= fitting else text[: max(1, fitting - 1)].rstrip() + _ELLIPSIS


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return the positions moved as little as needed to be `gap` apart and inside [low, high]; the order is kept."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    moved = [min(max(positions[index], low), high) for index in order]
    for place in range(1, len(moved)):
        moved[place] = max(moved[place], moved[place - 1] + gap)
    if moved and moved[-1] > high:
        moved[-1] = high
        for place in range(len(moved) - 2, -1, -1):
            moved[place] = min(moved[place], moved[place + 1] - gap)
    result = [0.0] * len(positions)
    for place, index in enumerate(order):
        result[index] = moved[place]
    return result


@dataclass(frozen=True)
class Box:
    """A rectangle that something covers."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: Box) -> bool:
        apart_x = self.x + self.width <= other.x or other.x + other.width <= self.x
        return not (apart_x or self.y + self.height <= other.y or other.y + other.height <= self.y)

    def inside(self, other: Box) -> bool:
        fits_x = other.x <= self.x and self.x + self.width <= other.x + other.width
        return fits_x and other.y <= self.y and self.y + self.height <= other.y + other.height


def place_labels(
    points: Sequence[tuple[float, float]],
    widths: Sequence[float],
    height: float,
    bounds: Box,
    obstacles: Sequence[Box] = (),
) -> list[Box]:
    """Return a box for the label of each point: beside, above or below it, inside `bounds`, clear of all else.

    A label for which no clear place is found gets the place that meets the least.
    """
    taken = [*obstacles, *(Box(x - 7, y - 7, 14, 14) for x, y in points)]
    boxes: list[Box] = []
    for (x, y), width in zip(points, widths, strict=True):
        options = [box for box in _around(x, y, width, height) if box.inside(bounds)] or _around(x, y, width, height)
        best = min(options, key=lambda box: sum(box.meets(other) for other in taken))
        taken.append(best)
        boxes.append(best)
    return boxes


def _around(x: float, y: float, width: float, height: float) -> list[Box]:
    right, left, middle = x + 11, x - 11 - width, x - width / 2
    places = [(right, -height / 2), (left, -height / 2)]
    for distance in (11.0, 25.0, 39.0, 53.0):
        above, below = -distance - height, distance
        places += [(middle, above), (middle, below), (right, above), (left, above), (right, below), (left, below)]
    return [Box(px, y + dy, width, height) for px, dy in places]


def _value(value: str | float | None) -> str:
    if isinstance(value, str):
        return str(escape(visible(value)))
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"
