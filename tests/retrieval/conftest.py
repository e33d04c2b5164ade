"""A small embedder, and folders of documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from retrieval_samples import HashEmbedder, WriteFolder


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
