"""What an embedder is, and the check of what one gives. Light: no model library is imported here.

>>> import numpy as np
>>> class Ones:
...     name, dim = "ones", 1
...     def __call__(self, texts): return np.ones((len(texts), 1), dtype=np.float32)
>>> embed_checked(Ones(), ["a", "b"]).shape
(2, 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from luthier.ground.errors import BadInput

FloatArray = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Turns n texts into an (n, dim) float32 array whose rows have unit length; equal names mean equal vectors."""

    @property
    def name(self) -> str: ...

    @property
    def dim(self) -> int: ...

    def __call__(self, texts: Sequence[str]) -> FloatArray: ...


@runtime_checkable
class CountsCuts(Protocol):
    """An embedder that tells how many texts were longer than it reads."""

    @property
    def n_cut(self) -> int: ...


def embed_checked(embed: Embedder, texts: Sequence[str]) -> FloatArray:
    """Return the vectors of `texts`, shape (n, dim).

    Raises:
        BadInput: they have another shape or type, are not finite, or not of unit length.
    """
    vectors_ND = embed(texts)
    wanted = (len(texts), embed.dim)
    if vectors_ND.shape != wanted or vectors_ND.dtype != np.float32:
        raise BadInput(f"embedding {embed.name} gave {vectors_ND.dtype} {vectors_ND.shape}, wanted float32 {wanted}")
    if not np.allclose(np.linalg.norm(vectors_ND, axis=1), 1.0, atol=1e-3):  # NaN fails here too
        raise BadInput(f"embedding {embed.name} gave vectors that are not finite and of unit length")
    return vectors_ND
