"""How a number is written for people: one way for the terminal, the page and the advice.

Nothing is measured or rounded for later use here; these are the last step before a reader.

    >>> percent(0.825), points(-0.031), seconds(212.0), size(2.43e9)
    ('82.5%', '−3.1 points', '3 min 32 s', '2.4 GB')
"""

from __future__ import annotations


def count(number: float) -> str:
    """Return a whole number with thousands separated: `12,345`."""
    return f"{number:,.0f}"


def many(number: int, noun: str, plural: str | None = None) -> str:
    """Return `1 item`, `3 items`; an irregular plural is named."""
    return f"{count(number)} {noun if number == 1 else plural or noun + 's'}"


def percent(share: float) -> str:
    """Return a share between 0 and 1 as `82.5%`."""
    return f"{100 * share:.1f}%"


def points(difference: float) -> str:
    """Return a difference of shares as signed percentage points: `+7.5 points`."""
    return f"{signed(100 * difference, 1)} points"


def span(low: float, high: float) -> str:
    """Return an interval of shares: `76.6 to 87.1%`."""
    return f"{100 * low:.1f} to {percent(high)}"


def points_span(low: float, high: float) -> str:
    """Return an interval of differences, in points: `+66.1 to +80.2`."""
    return f"{signed(100 * low, 1)} to {signed(100 * high, 1)}"


def distance(difference: float) -> str:
    """Return the size of a difference of shares: `7.5 points`."""
    return f"{100 * abs(difference):.1f} points"


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
    value, unit = _scaled(number_bytes)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def exact_size(number_bytes: float) -> str:
    """Return bytes with three digits, where small differences matter: `1.52 GB`, `33.9 GB`, `812 MB`."""
    value, unit = _scaled(number_bytes)
    digits = 0 if unit == "B" or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"


def size_change(number_bytes: float) -> str:
    """Return a difference of bytes with its sign and three digits: `−1.93 GB`."""
    sign = "−" if number_bytes < 0 else "+" if number_bytes > 0 else ""
    return sign + exact_size(abs(number_bytes))


def _scaled(number_bytes: float) -> tuple[float, str]:
    value, unit = float(number_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return value, unit


def change(share: float) -> str:
    """Return a relative change: `+31 %`, `−3.2 %`; one digit below ten per cent."""
    text = signed(100 * share, 1 if abs(share) < 0.0995 else 0)
    return f"{'0' if text == '0.0' else text} %"


def probability(p: float) -> str:
    """Return a p value: `0.034`, or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
