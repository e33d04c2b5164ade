"""Hidden states below the lowest trained block, computed once and kept in a memory-mapped file.

When only upper blocks train, what the lower ones give for a row never changes: it is computed before the first step, in
packs of the rows' own order, and read back in every epoch. The file has no name once it is open, so that nothing is
left of it however the run ends; a resumed run computes the same bits again. Rows are known by their token ids.

    states = FrozenStates(folder, rows, width=576, dtype=torch.bfloat16); states.put(ids_L, states_LD)
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from luthier.models.segments import Segments
from luthier.rows.types import IntArray


class FrozenStates:
    """States [L, D] of rows by the rows' token ids."""

    def __init__(self, folder: Path, rows: Iterable[IntArray], width: int, dtype: torch.dtype) -> None:
        self._start: dict[bytes, int] = {}
        total = 0
        for ids_L in rows:
            if (key := _key(ids_L)) not in self._start:
                self._start[key] = total
                total += len(ids_L)
        self.bytes = total * width * dtype.itemsize
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".states-") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, self.bytes))  # a full disk shows now, not as a signal later
            flat = torch.from_file(file.name, shared=True, size=total * width, dtype=dtype)
        self._states = flat.view(total, width)

    def put(self, ids_L: IntArray, states_LD: Tensor) -> None:
        """Keep the states of a row."""
        start = self._start[_key(ids_L)]
        self._states[start : start + len(ids_L)] = states_LD

    def gather(self, ids_T: Tensor, segments: Segments) -> Tensor | None:
        """Return the states [T, D] of a pack, or None if one of its rows is not known; filler rows get zeros."""
        ids = ids_T.numpy()
        out_TD = torch.zeros(len(ids), self._states.shape[1], dtype=self._states.dtype)
        for leaf in set(range(len(segments.lengths))) - set(segments.parents):
            spans = [(segments.starts[link], segments.lengths[link]) for link in segments.chain(leaf)]
            row = np.concatenate([ids[start : start + length] for start, length in spans])
            place = self._start.get(_key(row))
            if place is None:
                if row.any():
                    return None
                continue
            for start, length in spans:
                out_TD[start : start + length] = self._states[place : place + length]
                place += length
        return out_TD


def _key(ids_L: IntArray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(ids_L, dtype=np.int64).tobytes(), digest_size=16).digest()
