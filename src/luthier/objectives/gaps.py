"""Where the gap in a text lies: drawn by a seed, or given.

Two ways to draw (Bavarian et al. 2022): `character`, two cut points uniform over all places between
characters, so that a gap may begin or end within a word, as a cursor does; and `line`, two cut points at the beginnings
of lines, so that whole lines are missing, as in code that is repaired. It knows nothing of tokens.

>>> draw_gap("a\\nb\\nc\\n", "line", 0) in {(0, 2), (0, 4), (0, 6), (2, 4), (2, 6), (4, 6)}
True
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Spans = Literal["character", "line"]
Gap = tuple[int, int]


@dataclass(frozen=True)
class Parts:
    """A text around a gap, and what stood in it."""

    prefix: str
    middle: str
    suffix: str

    @classmethod
    def of(cls, text: str, gap: Gap) -> Parts:
        return cls(text[: gap[0]], text[gap[0] : gap[1]], text[gap[1] :])

    @property
    def text(self) -> str:
        """The whole text: nothing is lost."""
        return self.prefix + self.middle + self.suffix


def draw_gap(text: str, spans: Spans, seed: int) -> Gap:
    """Return the characters [first, end) that are missing; the same seed gives the same gap.

    By `character`, a gap may be empty, as in the paper. By `line` it holds at least one line; a text of one line is cut
    by characters.
    """
    chance = np.random.default_rng(seed)
    places = line_starts(text) if spans == "line" else None
    if places is None or len(places) < 3:
        first, end = sorted(chance.integers(0, len(text) + 1, size=2).tolist())
        return first, end
    first, end = sorted(chance.choice(len(places), size=2, replace=False).tolist())
    if (first, end) == (0, len(places) - 1):  # nothing would be left around it
        first, end = (0, end - 1) if chance.random() < 0.5 else (1, end)
    return places[first], places[end]


def line_starts(text: str) -> list[int]:
    """Return where each line begins, and where the text ends."""
    starts = [0, *(place + 1 for place, character in enumerate(text) if character == "\n")]
    return starts if starts[-1] == len(text) else [*starts, len(text)]
