"""Rows of random tokens, encoded with targets."""

from __future__ import annotations

import numpy as np

from luthier.rows.types import Encoded


def make_rows(count: int = 5, seed: int = 0, least_id: int = 3) -> list[Encoded]:
    """Rows of 6 to 20 tokens whose second half is targets."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        length = int(random.integers(6, 20))
        rows.append(Encoded(random.integers(least_id, 96, length), np.arange(length) >= length // 2, f"t:{number}"))
    return rows
