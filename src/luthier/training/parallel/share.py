"""Which rows of a step each process computes. The plan of the steps does not know how many processes there are.

>>> share_rows([9, 1, 5, 4], [0, 1, 2, 3], 2)
[(0, 1), (2, 3)]
"""

from __future__ import annotations

from collections.abc import Sequence

from luthier.rows.types import IntArray


def share_rows(lengths: Sequence[int] | IntArray, rows: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Return the rows of each of `size` processes, balanced by tokens: the longest first, each to the least loaded.

    The same everywhere, since nothing is drawn. Some get none if there are fewer rows than processes. Order within a
    share is that of `rows`. The largest share is at most 4/3 of the best possible one (Graham 1969).
    """
    loads = [0] * size
    taken: list[list[int]] = [[] for _ in range(size)]
    for place in sorted(range(len(rows)), key=lambda place: -lengths[rows[place]]):
        least = loads.index(min(loads))
        loads[least] += lengths[rows[place]]
        taken[least].append(place)
    return [tuple(rows[place] for place in sorted(places)) for places in taken]
