"""Keeping an index: only what changed is done again, and no fault leaves less than the last finished index."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lancedb.table import LanceTable
from retrieval_samples import HashEmbedder, WriteFolder

from luthier.ground.errors import BadInput
from luthier.ground.results import IndexResult
from luthier.retrieval import index as index_module
from luthier.retrieval.index import DAMAGED, build_index
from luthier.retrieval.search import open_index

THREE: dict[str, str | bytes] = {
    "brakes.md": "# Brakes\nBleed the brakes yearly.",
    "sub/wheels.txt": "Wheels are round.",
    "it's.md": "# KR-482\nWarranty 24 months.",
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store a%20#?é"


def counts(result: IndexResult) -> tuple[int, int, int, int]:
    return result.added, result.changed, result.removed, result.unchanged


def found(store: Path, query: str, embedder: HashEmbedder | None = None) -> list[str]:
    method = "hybrid" if embedder else "keyword"
    return [passage.path for passage in open_index(store).search(query, 10, method=method, embed=embedder)]


def test_a_new_index_counts_what_it_read_and_names_what_it_did_not(write_folder: WriteFolder, store: Path) -> None:
    folder = write_folder({**THREE, ".hidden.md": "x", "photo.jpg": b"\xff", "bad.md": b"\xff\xfe\xff", "void.txt": ""})
    result = build_index(folder, store)
    assert counts(result) == (3, 0, 0, 0)
    assert (result.documents, result.chunks, result.embedding, result.rebuilt) == (3, 3, None, None)
    assert [entry.file for entry in result.skipped] == [".hidden.md", "bad.md", "photo.jpg", "void.txt"]
    assert found(store, "kr 482") == ["it's.md"]


def test_unchanged_files_are_neither_embedded_nor_written_again(
    write_folder: WriteFolder, store: Path, embedder: HashEmbedder
) -> None:
    folder = write_folder(THREE)
    build_index(folder, store, embed=embedder)
    before = (store / "manifest.json").read_bytes()
    embedder.seen.clear()
    (folder / "brakes.md").touch()
    result = build_index(folder, store, embed=embedder)
    assert counts(result) == (0, 0, 0, 3)
    assert embedder.seen == []
    assert (store / "manifest.json").read_bytes() == before


def test_only_what_changed_is_embedded(write_folder: WriteFolder, store: Path, embedder: HashEmbedder) -> None:
    folder = write_folder(THREE)
    build_index(folder, store, embed=embedder)
    embedder.seen.clear()
    write_folder({"brakes.md": "# Brakes\nNow with discs.", "new.txt": "Saddles."})
    (folder / "it's.md").unlink()
    result = build_index(folder, store, embed=embedder)
    assert counts(result) == (1, 1, 1, 1)
    assert embedder.seen == ["Brakes\nNow with discs.", "new\nSaddles."]
    assert found(store, "bleed") == []
    assert found(store, "discs") == ["brakes.md"]
    assert found(store, "KR-482") == []
    assert found(store, "saddle") == ["new.txt"]
    assert "it's.md" not in found(store, "warranty months", embedder)


NAMES = st.sampled_from(["a.md", "b.txt", "c.md"])
TEXTS = st.sampled_from(["", "alpha beta", "beta gamma", "alpha alpha\n\n# H\ngamma", "delta"])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(NAMES, TEXTS), min_size=1, max_size=4))
def test_updates_end_in_the_index_that_a_new_build_would_make(tmp_path: Path, states: list[dict[str, str]]) -> None:
    embedder = HashEmbedder()
    folder, kept, fresh = tmp_path / "docs", tmp_path / "kept", tmp_path / "fresh"
    for place in (folder, kept, fresh):
        shutil.rmtree(place, ignore_errors=True)
    for state in states:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "always.md").write_text("alpha always")
        for name, text in state.items():
            (folder / name).write_text(text)
        build_index(folder, kept, embed=embedder)
    build_index(folder, fresh, embed=embedder)
    queries = ["alpha", "beta gamma", "delta", "h", "always"]
    for method in ("keyword", "vector", "hybrid"):
        old, new = (open_index(store).search_many(queries, 4, method=method, embed=embedder) for store in (kept, fresh))
        assert [[p.id for p in passages] for passages in old] == [[p.id for p in passages] for passages in new]
        assert [p.score for ps in old for p in ps] == pytest.approx([p.score for ps in new for p in ps], abs=1e-5)


def test_another_embedding_or_setting_makes_everything_new_and_says_so(
    write_folder: WriteFolder, store: Path, embedder: HashEmbedder
) -> None:
    folder = write_folder(THREE)
    build_index(folder, store, embed=embedder)
    other = HashEmbedder("other", 32)
    result = build_index(folder, store, embed=other)
    assert counts(result) == (3, 0, 0, 0)
    assert result.rebuilt == "embedding was hashed-words, is other; dim was 64, is 32"
    assert len(other.seen) == 3
    result = build_index(folder, store, embed=other, chunk_words=30)
    assert result.rebuilt == "chunk_words was 160, is 30"
    result = build_index(folder, store, chunk_words=30)
    assert result.rebuilt == "embedding was other, is None; dim was 32, is None"
    assert found(store, "warranty") == ["it's.md"]


def test_a_store_inside_the_folder_is_not_indexed(write_folder: WriteFolder) -> None:
    folder = write_folder(THREE)
    build_index(folder, folder / "index")
    result = build_index(folder, folder / "index")
    assert counts(result) == (0, 0, 0, 3)
    assert result.skipped == []


@pytest.mark.parametrize("name", ["nowhere", "docs/brakes.md"])
def test_a_folder_that_is_none_is_told_in_one_sentence(
    write_folder: WriteFolder, tmp_path: Path, store: Path, name: str
) -> None:
    write_folder(THREE)
    with pytest.raises(BadInput, match="no such folder of documents; name a folder that exists"):
        build_index(tmp_path / name, store)
    assert not store.exists()


def test_a_folder_without_a_document_is_told_with_an_example(write_folder: WriteFolder, store: Path) -> None:
    folder = write_folder({"photo.jpg": b"\xff"})
    with pytest.raises(BadInput, match=r"no document to read .* 1 passed over, such as photo\.jpg \(not a type"):
        build_index(folder, store)


def test_a_folder_that_lost_its_documents_does_not_empty_the_index(write_folder: WriteFolder, store: Path) -> None:
    folder = write_folder(THREE)
    build_index(folder, store)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(BadInput, match="no document to read"):
        build_index(folder, store)
    assert found(store, "wheels") == ["sub/wheels.txt"]


KILLED = """
import os, sys
from pathlib import Path
from luthier.retrieval import index
setattr(index, "write_manifest", lambda *_: os._exit(9))
index.build_index(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_build_killed_before_its_manifest_leaves_the_old_index_and_the_next_goes_on_from_it(
    write_folder: WriteFolder, store: Path
) -> None:
    folder = write_folder(THREE)
    build_index(folder, store)
    write_folder({"new.txt": "Saddles."})
    (folder / "brakes.md").unlink()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(store)], check=False)
    assert killed.returncode == 9
    assert found(store, "saddle") == []
    assert found(store, "brakes") == ["brakes.md"]
    result = build_index(folder, store)
    assert (*counts(result), result.rebuilt) == (1, 0, 1, 2, None)
    assert found(store, "saddle") == ["new.txt"]
    assert found(store, "brakes") == []
    assert open_index(store).chunks == 3


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def kill(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize("step", ["delete", "add", "optimize", "create_index", "write_manifest"])
def test_a_kill_at_any_step_leaves_the_last_finished_index(
    write_folder: WriteFolder, store: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder = write_folder(THREE)
    build_index(folder, store)
    write_folder({"brakes.md": "# Brakes\nNow with discs.", "new.txt": "Saddles."})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(index_module if step == "write_manifest" else LanceTable, step, kill)
        build_index(folder, store)
    assert found(store, "bleed") == ["brakes.md"]
    assert found(store, "saddle discs") == []
    assert counts(build_index(folder, store)) == (1, 1, 0, 2)
    assert found(store, "bleed") == []
    assert sorted(found(store, "saddle discs")) == ["brakes.md", "new.txt"]


def test_a_kill_after_writing_when_files_return_to_the_old_state(
    write_folder: WriteFolder, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(THREE)
    build_index(folder, store)
    write_folder({"new.txt": "Saddles."})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(index_module, "write_manifest", kill)
        build_index(folder, store)
    (folder / "new.txt").unlink()
    assert counts(build_index(folder, store)) == (0, 0, 0, 3)
    assert found(store, "saddle") == []
    assert found(store, "wheels") == ["sub/wheels.txt"]


def test_a_first_build_that_was_killed_is_detected(
    write_folder: WriteFolder, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(THREE)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(index_module, "write_manifest", kill)
        build_index(folder, store)
    with pytest.raises(BadInput, match="no finished index here"):
        open_index(store)
    result = build_index(folder, store)
    assert (*counts(result), result.rebuilt) == (3, 0, 0, 0, "an earlier build did not finish")


@pytest.mark.parametrize("content", ["", "{", "{}", '{"format": 1, "version": "x"}', "[1]"])
def test_a_torn_manifest_is_detected(write_folder: WriteFolder, store: Path, content: str) -> None:
    folder = write_folder(THREE)
    build_index(folder, store)
    (store / "manifest.json").write_text(content)
    with pytest.raises(BadInput, match="no finished index here"):
        open_index(store)
    assert build_index(folder, store).rebuilt == "an earlier build did not finish"
    assert found(store, "wheels") == ["sub/wheels.txt"]


@pytest.mark.parametrize("part", ["lancedb", "lancedb/passages.lance/data", "lancedb/passages.lance/_versions"])
def test_a_damaged_table_is_built_again_and_said(write_folder: WriteFolder, store: Path, part: str) -> None:
    folder = write_folder(THREE)
    build_index(folder, store)
    shutil.rmtree(store / part)
    write_folder({"new.txt": "Saddles."})
    result = build_index(folder, store)
    assert (*counts(result), result.rebuilt) == (4, 0, 0, 0, DAMAGED)
    assert sorted(found(store, "wheels saddle")) == ["new.txt", "sub/wheels.txt"]


def test_a_manifest_of_another_table_is_not_believed(write_folder: WriteFolder, store: Path) -> None:
    folder = write_folder(THREE)
    build_index(folder, store)
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["files"]["ghost.md"] = {"sha256": "0" * 64, "chunks": 5}
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="cannot be read"):
        open_index(store)
    assert build_index(folder, store).rebuilt == DAMAGED


def test_a_disk_that_refuses_leaves_the_old_index(
    write_folder: WriteFolder, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(THREE)
    build_index(folder, store)
    write_folder({"new.txt": "Saddles."})

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("lance error: No space left on device\nCaused by ...")

    with monkeypatch.context() as patch, pytest.raises(BadInput, match=r"No space left on device.*intact"):
        patch.setattr(LanceTable, "add", full)
        build_index(folder, store)
    assert found(store, "wheels") == ["sub/wheels.txt"]
    assert counts(build_index(folder, store)) == (1, 0, 0, 3)


def test_a_second_process_is_refused(write_folder: WriteFolder, store: Path) -> None:
    folder = write_folder(THREE)
    store.mkdir()
    with open(store / "lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BadInput, match="in use by"):
            build_index(folder, store)
    assert build_index(folder, store).added == 3


def test_an_open_index_does_not_see_a_later_update(write_folder: WriteFolder, store: Path) -> None:
    folder = write_folder(THREE)
    build_index(folder, store)
    opened = open_index(store)
    write_folder({"brakes.md": "# Brakes\nNow with discs."})
    build_index(folder, store)
    assert [p.path for p in opened.search("bleed", 3, method="keyword")] == ["brakes.md"]
    assert opened.search("discs", 3, method="keyword") == []


def test_many_updates_do_not_pile_up_files(write_folder: WriteFolder, store: Path) -> None:
    folder = write_folder(THREE)
    for number in range(12):
        write_folder({"new.txt": f"Saddle number {number}."})
        build_index(folder, store)
    assert open_index(store).chunks == 4
    assert found(store, "saddle") == ["new.txt"]


@pytest.mark.parametrize("fault", ["shape", "nan", "length"])
def test_vectors_that_break_the_promise_are_refused_before_anything_is_written(
    write_folder: WriteFolder, store: Path, fault: str
) -> None:
    class Broken(HashEmbedder):
        def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            vectors = super().__call__(texts)
            return {"shape": vectors[:, :-1], "nan": vectors * float("nan"), "length": vectors * 2}[fault]

    with pytest.raises(BadInput, match="embedding hashed-words gave"):
        build_index(write_folder(THREE), store, embed=Broken())
    assert not (store / "lancedb").exists()


def test_progress_is_told(write_folder: WriteFolder, store: Path, embedder: HashEmbedder) -> None:
    events: list[dict[str, object]] = []
    build_index(write_folder(THREE), store, embed=embedder, tell=lambda event: events.append(dict(event)))
    assert events == [{"kind": "embed", "done": 3, "total": 3, "cut": 0}]
