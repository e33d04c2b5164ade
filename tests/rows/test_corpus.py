"""Sources of documents: every kind of file, streamed, tokenised once, and no further than is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from luthier.ground.errors import BadInput
from luthier.rows import hub, records
from luthier.rows.corpus import Corpus
from luthier.rows.read import stream_rows
from luthier.rows.records import Notice
from luthier.rows.types import Encoded, Row

TEXTS = ["alpha one", "beta two", "gamma three", "delta four", "epsilon five"]


def by_bytes(row: Row) -> Encoded:
    """One token for each byte, and an end token."""
    ids = [*(row.text or "").encode(), 256]
    return Encoded(np.array(ids), np.arange(len(ids)) > 0, row.place)


def corpus(folder: Path, source: str = "docs", **more: Any) -> Corpus:
    return Corpus(
        source, folder=folder, cache=folder / "cache", encode=by_bytes, encode_key="bytes",
        **{"max_length": 64, **more},
    )  # fmt: skip


def jsonl(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of each kind."""
    docs = tmp_path / "docs"
    (docs / "more").mkdir(parents=True)
    (docs / "a.txt").write_text(TEXTS[0], encoding="utf-8")
    jsonl(docs / "b.jsonl", TEXTS[1:3])
    pyarrow.parquet.write_table(pyarrow.table({"text": [TEXTS[3]]}), docs / "c.parquet")
    (docs / "more" / "d.md").write_text(TEXTS[4], encoding="utf-8")
    (docs / "picture.png").write_bytes(b"\x89PNG")
    return tmp_path


def texts_of(rows: Any) -> list[str]:
    return [bytes(row.ids_T[:-1].astype(np.uint8)).decode() for row in rows]


def test_a_folder_of_mixed_files_is_one_corpus(folder: Path) -> None:
    store = corpus(folder).open(lambda _: None)
    assert texts_of(store) == TEXTS
    assert [row.place for row in store] == [
        "docs/a.txt:1", "docs/b.jsonl:1", "docs/b.jsonl:2", "docs/c.parquet:1", "docs/more/d.md:1",
    ]  # fmt: skip
    assert store.facts["documents"] == 5 and store.facts["whole"]
    assert store.facts["bytes"] == sum(len(text) for text in TEXTS)


def test_it_is_tokenised_once_and_anew_when_anything_changes(folder: Path) -> None:
    told: list[str] = []
    first = corpus(folder)
    first.open(lambda event: told.append(event["text"]))
    corpus(folder).open(lambda event: told.append(event["text"]))
    assert told == ["tokenising docs"]
    assert len({first.key, corpus(folder, max_length=32).key, corpus(folder, documents=3).key}) == 3
    (folder / "docs" / "a.txt").write_text("alpha ONE", encoding="utf-8")
    assert corpus(folder).key != first.key


def test_bad_records_are_refused_or_counted(folder: Path) -> None:
    with open(folder / "docs" / "b.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"txt": "no text"}\n{"text"\n')
    with pytest.raises(BadInput) as refused:
        corpus(folder).open(lambda _: None)
    assert refused.value.where == "docs/b.jsonl:3"
    store = corpus(folder, on_bad="skip").open(lambda _: None)
    assert texts_of(store) == TEXTS
    assert store.facts["read"] == 7
    assert store.facts["fault_counts"] == {"unknown_shape": 1, "bad_json": 1}


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    with pytest.raises(BadInput, match="has no text files"):
        _ = corpus(tmp_path).key
    with pytest.raises(BadInput, match="no such file"):
        _ = corpus(tmp_path, "more.jsonl").key


class _Stream:
    """What `datasets.load_dataset(…, streaming=True)` gives, counting what is taken of it."""

    def __init__(self) -> None:
        self.features = None
        self.taken = 0

    def __iter__(self) -> Iterator[dict[str, str]]:
        for number in range(1_000_000):
            self.taken += 1
            yield {"text": f"document {number}"}


def test_a_hub_stream_is_read_no_further_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, asked = _Stream(), {}

    def load(name: str, **how: Any) -> _Stream:
        asked.update(name=name, **how)
        return stream

    monkeypatch.setattr(hub.datasets, "load_dataset", load)
    store = corpus(tmp_path, "hub:owner/texts", documents=10).open(lambda _: None)
    assert asked == {"name": "owner/texts", "split": "train", "streaming": True}
    assert texts_of(store)[:2] == ["document 0", "document 1"]
    assert len(store) == 10 and stream.taken == 10 and not store.facts["whole"]
    stream.taken = 0
    store = corpus(tmp_path, "hub:owner/texts:train", tokens=500).open(lambda _: None)
    assert store.facts["tokens"] >= 500 and stream.taken == store.facts["documents"] < 60


def test_a_long_text_file_comes_in_parts_of_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PART_BYTES", 1000)
    lines = [f"line {number} of a long file" for number in range(300)]
    (tmp_path / "long.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = list(stream_rows("long.txt", folder=tmp_path))
    assert isinstance(found[0], Notice)
    parts = [row for row in found if isinstance(row, Row)]
    assert "".join(part.text or "" for part in parts) == "\n".join(lines) + "\n"
    assert all((part.text or "").endswith("\n") and len(part.text or "") < 1100 for part in parts)
    assert parts[1].place == f"long.txt:{(parts[0].text or '').count(chr(10)) + 1}"


MEMORY = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from rows.test_corpus import corpus

def write(name, documents):
    with open(folder / name, "w") as stream:
        for n in range(documents):
            stream.write(json.dumps({"text": f"document {n} " + "some words of it " * 300}) + "\\n")

folder = Path(sys.argv[1])
write("small.jsonl", 50)
write("large.jsonl", 20_000)
corpus(folder, "small.jsonl", max_length=2048).open(lambda _: None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store = corpus(folder, "large.jsonl", max_length=2048).open(lambda _: None)
assert store.facts["documents"] == 20_000
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, store.facts["bytes"])
"""


def test_tokenising_takes_constant_memory(tmp_path: Path) -> None:
    """100 MB of JSONL become 400 MB of tokens within 20 MB of memory."""
    tests = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), tests], capture_output=True, text=True, check=True, timeout=300
    )
    grown, read = map(int, done.stdout.split())
    assert read > 100e6
    assert grown < 20e6, f"{grown / 1e6:.0f} MB for {read / 1e6:.0f} MB of text"
