"""Seeds: one number fixes everything that is drawn.

>>> derived_seed(0, "order", 1) == derived_seed(0, "order", 1) != derived_seed(0, "order", 2)
True
"""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, *names: str | int) -> int:
    """Return a seed in [0, 2^63) for one purpose, independent of the seeds of all other purposes."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
