"""Tokens on disk: pieces that hold each token once as a target, whole or absent, lazy and small in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.ground.errors import BadInput
from luthier.rows.token_store import Document, TokenStore, at_most, cut_evenly, write_store


def documents(count: int, longest: int = 60, seed: int = 0) -> list[Document]:
    random = np.random.default_rng(seed)
    lengths = random.integers(2, longest, count)
    return [Document(random.integers(0, 70_000, n), f"{i % 3}.txt", i + 1, int(n) * 4) for i, n in enumerate(lengths)]


@given(tokens=st.integers(2, 5000), max_length=st.integers(2, 300))
def test_every_token_but_the_first_is_a_target_once(tokens: int, max_length: int) -> None:
    edges = cut_evenly(tokens, max_length)
    lengths = np.diff(edges) + 1
    assert edges[0] == 0 and edges[-1] == tokens - 1
    assert lengths.max() <= max_length
    assert lengths.min() >= 2
    assert lengths.max() - lengths.min() <= 1, "of about the same size"
    assert (lengths - 1).sum() == tokens - 1
    assert len(lengths) == -(-(tokens - 1) // (max_length - 1)), "in as few pieces as can be"


def test_documents_come_back_in_pieces(tmp_path: Path) -> None:
    made = documents(40)
    write_store(tmp_path / "store", made, 16, {"source": "made"})
    store = TokenStore(tmp_path / "store", origin="made")
    assert [store.facts[name] for name in ("documents", "tokens", "bytes")] == [
        40, sum(len(d.ids_T) for d in made), sum(d.bytes for d in made),
    ]  # fmt: skip
    assert store.facts["pieces"] == len(store) == len(store.lengths)
    at = 0
    for number, document in enumerate(made):
        pieces = [store[n] for n in store.pieces_of(np.array([number])).tolist()]
        assert all(row.origin == "made" and not row.target_T[0] and row.target_T[1:].all() for row in pieces)
        targets = np.concatenate([row.ids_T[row.target_T] for row in pieces])
        assert targets.tolist() == document.ids_T[1:].tolist()
        assert pieces[0].ids_T[0] == document.ids_T[0]
        for row, length in zip(pieces, store.lengths[at:], strict=False):
            assert len(row) == length
        where = f"{document.file}:{document.line}"
        assert [row.place for row in pieces] == (
            [where] if len(pieces) == 1 else [f"{where} (piece {k + 1} of {len(pieces)})" for k in range(len(pieces))]
        )
        at += len(pieces)
    assert [row.place for row in store[2:4]] == [store[2].place, store[3].place]
    with pytest.raises(IndexError):
        _ = store[len(store)]


def test_a_store_is_whole_or_absent(tmp_path: Path) -> None:
    def broken() -> object:
        yield from documents(3)
        raise BadInput("a bad record")

    with pytest.raises(BadInput, match="a bad record"):
        write_store(tmp_path / "store", broken(), 16, {})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    write_store(tmp_path / "store", documents(3), 16, {})
    with pytest.raises(BadInput, match="exists already"):
        write_store(tmp_path / "store", documents(3), 16, {})


def test_empty_stores_and_documents_without_a_target(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [Document(np.array([5]), "a.txt", 1, 1)], 16, {})
    assert len(TokenStore(tmp_path / "store")) == 0


def test_at_most_reads_no_further_than_needed() -> None:
    taken: list[int] = []

    def watched() -> object:
        for n, document in enumerate(documents(100, seed=1)):
            taken.append(n)
            yield document

    assert len(list(at_most(watched(), 7, None))) == 7  # type: ignore[arg-type]
    assert len(taken) == 7
    some = list(at_most(documents(100, seed=1), None, 200))
    assert sum(len(d.ids_T) for d in some) >= 200 > sum(len(d.ids_T) for d in some[:-1])


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from luthier.rows.mixture import MixedRows, Source
from luthier.rows.token_store import Document, TokenStore, write_store

def made(count):
    random = np.random.default_rng(0)
    for n in range(count):
        yield Document(random.integers(0, 50_000, 4096), "a.jsonl", n + 1, 16_000)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

folder = Path(sys.argv[1])
write_store(folder / "small", made(50), 2048, {})
rows = MixedRows([Source("a", TokenStore(folder / "small"))], window=64)
[rows[n] for n in rows.epoch(0, 0)]
before = peak()
write_store(folder / "large", made(12_000), 2048, {})
rows = MixedRows([Source("a", TokenStore(folder / "large"))], window=64)
seen = sum(len(rows[int(n)]) for n in rows.epoch(0, 0))
assert seen == 12_000 * (4096 + 2), seen
print(peak() - before, (folder / "large" / "ids.bin").stat().st_size)
"""


def test_a_corpus_larger_than_the_bound_takes_constant_memory(tmp_path: Path) -> None:
    """197 MB of tokens are written, and all of them read once in shuffled order, within 20 MB."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    grown, stored = map(int, done.stdout.split())
    assert stored == 12_000 * 4096 * 4
    assert grown < 20e6, f"{grown / 1e6:.0f} MB for {stored / 1e6:.0f} MB of tokens"
