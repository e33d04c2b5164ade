"""How a number is written for people: one way for the terminal, the page and the advice.

Nothing is measured or rounded for later use here; these are the last step before a reader.

    >>> percent(0.825), points(-0.031), seconds(212.0), size(2.43e9)
    ('82.5%', '−3.1 points', '3 min 32 s', '2.4 GB')
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


def count(number: float) -> str:
    """Return a whole number with thousands separated: `12,345`."""
    return f"{number:,.0f}"


def percent(share: float) -> str:
    """Return a share between 0 and 1 as `82.5%`."""
    return f"{100 * share:.1f}%"


def points(difference: float) -> str:
    """Return a difference of shares as signed percentage points: `+7.5 points`."""
    return f"{signed(100 * difference, 1)} points"


def signed(number: float, digits: int) -> str:
    """Return `number` with its sign, a true minus, and no sign at zero."""
    text = f"{abs(number):.{digits}f}"
    if not float(text):
        return text
    return ("−" if number < 0 else "+") + text


def seconds(duration_s: float) -> str:
    """Return a duration as people say it: `45 ms`, `1.2 s`, `3 min 32 s`, `1 h 07 min`."""
    if duration_s < 0.0995:
        return f"{1000 * duration_s:.0f} ms"
    if duration_s < 9.95:
        return f"{duration_s:.1f} s"
    whole = round(duration_s)
    if whole < 120:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(duration_s / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(number_bytes: float) -> str:
    """Return bytes in decimal units: `2.4 GB`, `18.5 MB`."""
    value, unit = float(number_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def probability(p: float) -> str:
    """Return a p value: `0.034`, or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def significant(number: float, digits: int = 3) -> str:
    """Return a plain number with about `digits` significant digits and no exponent for everyday sizes."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    if abs(number) >= 10**digits:
        return f"{number:,.0f}".replace("-", "−")
    return f"{number:.{digits}g}".replace("-", "−")


@dataclass(frozen=True)
class Unit:
    """How scores of one metric are written: as percent when they are shares, as plain numbers otherwise."""

    share: bool = True

    @classmethod
    def of(cls, values: Iterable[float]) -> Unit:
        """Return the unit for a metric with these scores and interval ends: shares when all lie in [0, 1]."""
        return cls(share=all(-1e-9 <= value <= 1 + 1e-9 for value in values))

    def score(self, value: float) -> str:
        return percent(value) if self.share else significant(value)

    def span(self, low: float, high: float) -> str:
        """Return an interval of scores: `76.6 to 87.1%`."""
        if self.share:
            return f"{100 * low:.1f} to {100 * high:.1f}%"
        return f"{significant(low)} to {significant(high)}"

    def difference(self, value: float) -> str:
        return points(value) if self.share else _signed_significant(value)

    def difference_span(self, low: float, high: float) -> str:
        """Return an interval of differences: `+66.1 to +80.2 points`."""
        if self.share:
            return f"{signed(100 * low, 1)} to {signed(100 * high, 1)} points"
        return f"{_signed_significant(low)} to {_signed_significant(high)}"


def _signed_significant(value: float) -> str:
    return f"+{significant(value)}" if value > 0 else significant(value)
