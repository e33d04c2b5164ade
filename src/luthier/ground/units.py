"""Sizes and durations as people write them in a task file or on the command line.

>>> bytes_of("6GB"), bytes_of("1 GiB"), seconds_of("20min")
(6000000000, 1073741824, 1200.0)
"""

from __future__ import annotations

import re

from luthier.ground.errors import BadInput

_BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def bytes_of(text: str) -> int:
    """Return the bytes that a text such as `6GB` means.

    Raises:
        BadInput: it is no number with one of these units.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT]i?B)", text.strip())
    if found is None:
        raise BadInput(f'"{text}" is no size of memory', fix="write it as 6GB, 512MB or 8GiB")
    return round(float(found[1]) * _BYTES[found[2]])


def seconds_of(text: str) -> float:
    """Return the seconds that a text such as `20min` means.

    Raises:
        BadInput: it is no number with one of these units.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text.strip())
    if found is None:
        raise BadInput(f'"{text}" is no duration', fix="write it as 90s, 20min or 2h")
    return float(found[1]) * _SECONDS[found[2]]
