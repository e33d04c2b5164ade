"""An embedder that needs no model and counts its work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from luthier.retrieval.terms import analyse

WriteFolder = Callable[[dict[str, str | bytes]], Path]


class HashEmbedder:
    """Bag of hashed words: texts that share words are near. Counts the texts that it has embedded."""

    def __init__(self, name: str = "hashed-words", dim: int = 64) -> None:
        self.name = name
        self.dim = dim
        self.seen: list[str] = []
        self.calls = 0

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.calls += 1
        self.seen += texts
        return np.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> npt.NDArray[np.float32]:
        vector = np.full(self.dim, 1e-3, dtype=np.float32)
        for word in analyse(text):
            vector[int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dim] += 1.0
        return vector / np.linalg.norm(vector)
