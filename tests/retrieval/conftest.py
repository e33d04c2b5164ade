"""A small embedder that counts its calls, and folders of documents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

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


@pytest.fixture
def embedder() -> HashEmbedder:
    return HashEmbedder()


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """Write files into the folder `docs` of this test and return it; later calls add and replace."""

    def write(files: dict[str, str | bytes]) -> Path:
        folder = tmp_path / "docs"
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return write
