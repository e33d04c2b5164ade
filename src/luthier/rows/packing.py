"""Pack rows end to end into flat token batches, without padding.

Order is kept, so the loss of a step belongs to known rows; positions restart at each row, and a row's first token is
never a target. Which rows see each other is the model's affair (`lengths` says where each row ends).

    >>> import numpy as np
    >>> row = Encoded(np.array([5, 6]), np.array([False, True]), "t:1")
    >>> [pack.lengths for pack in pack_rows([row, row, row], max_tokens=4)]
    [(2, 2), (2,)]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luthier.ground.errors import BadInput
from luthier.rows.types import Encoded, Pack


def pack_rows(rows: Sequence[Encoded], max_tokens: int) -> list[Pack]:
    """Return packs of at most `max_tokens` tokens, in the rows' order; a longer row gets its own pack."""
    packs: list[Pack] = []
    waiting: list[Encoded] = []
    tokens = 0
    for row in rows:
        if waiting and tokens + len(row) > max_tokens:
            packs.append(one_pack(waiting))
            waiting, tokens = [], 0
        waiting.append(row)
        tokens += len(row)
    return [*packs, one_pack(waiting)] if waiting else packs


def one_pack(rows: Sequence[Encoded]) -> Pack:
    """Return all rows as one pack."""
    if not rows or not all(len(row) for row in rows):
        raise BadInput("a pack needs at least one row, and no row without tokens", fix="leave empty rows out")
    target_T = np.concatenate([row.target_T for row in rows])
    lengths = tuple(len(row) for row in rows)
    starts = np.cumsum((0, *lengths[:-1]))
    target_T[starts] = False
    return Pack(
        ids_T=np.concatenate([row.ids_T for row in rows]),
        positions_T=np.concatenate([np.arange(length, dtype=np.int64) for length in lengths]),
        target_T=target_T,
        lengths=lengths,
        places=tuple(row.place for row in rows),
    )
