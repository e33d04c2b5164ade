"""A source of documents, tokenised once into a store on disk.

The source is streamed: what is held is one document. The store lies in a cache folder under a key of the source's
bytes, of what turns text into tokens and of how it is cut, so that whoever needs the same tokens again finds them, and
anything else never does. A source of the hub is read only as far as it is needed.

    corpus = Corpus("docs/", folder=task_folder, cache=runs / "cache", encode=objective.encode, encode_key="…")
    rows = corpus.open(tell); rows.facts["tokens"]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from luthier.ground.errors import BadInput
from luthier.ground.events import Tell
from luthier.ground.hashes import key_of, sha256_file
from luthier.ground.results import Fault
from luthier.rows.read import HUB, files_of, stream_rows
from luthier.rows.records import Notice
from luthier.rows.template import RowRefused
from luthier.rows.token_store import Document, TokenStore, at_most, write_store
from luthier.rows.types import Encoded, Row

SHOWN = 20
_TOLD_EVERY_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Corpus:
    """One source, and how it becomes tokens.

    Attributes:
        cache: where stores lie.
        encode: turns a row into tokens.
        encode_key: hash of all that `encode` depends on.
        max_length: tokens of the longest piece.
        on_bad: what to do with records that cannot be read.
        documents, tokens: read no further than these; None: all.
    """

    source: str
    folder: Path
    cache: Path
    encode: Callable[[Row], Encoded]
    encode_key: str
    max_length: int
    on_bad: Literal["refuse", "skip"] = "refuse"
    id_field: str = "id"
    group_field: str = "group"
    documents: int | None = None
    tokens: int | None = None

    @property
    def is_remote(self) -> bool:
        """Whether it is streamed from the hub."""
        return self.source.startswith(HUB)

    @cached_property
    def key(self) -> str:
        """A hash of all that the tokens depend on. Of a hub's dataset only the name is known."""
        bytes_of = {str(file): sha256_file(file) for file in files_of(self.source, self.folder)}
        fields = [self.source, self.max_length, self.on_bad, self.id_field, self.documents, self.tokens]
        return key_of(["corpus-1", sorted(bytes_of.values()), self.encode_key, *fields])

    def open(self, tell: Tell) -> TokenStore:
        """Return the pieces, tokenised now if they are not there yet.

        Raises:
            BadInput: the source is not there, or has a bad record and `on_bad` is refuse.
        """
        path = self.cache / f"corpus-{self.key}"
        if not path.is_dir():
            tell({"kind": "stage", "text": f"tokenising {self.source}"})
            self.cache.mkdir(parents=True, exist_ok=True)
            reading = _Reading(self, tell)
            try:
                write_store(path, at_most(reading, self.documents, self.tokens), self.max_length, reading.facts)
            except BadInput:
                if not path.is_dir():  # otherwise another process was faster
                    raise
        return TokenStore(path, origin=self.source)

    def rows(self) -> Iterator[Row]:
        """Yield the usable rows themselves, for who wants to look at some."""
        documents = stream_rows(self.source, folder=self.folder, id_field=self.id_field, group_field=self.group_field)
        return (found for found in documents if isinstance(found, Row))


@dataclass
class _Reading:
    """The documents of a corpus, once; `facts` say what was met, and are complete when they are through."""

    corpus: Corpus
    tell: Tell
    facts: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Document]:
        faults: list[Fault] = []
        counts: Counter[str] = Counter()
        notices: list[str] = []
        self.facts.update(source=self.corpus.source, read=0, faults=[], fault_counts={}, notices=notices, whole=False)
        done = told = 0
        for found in self._found():
            if isinstance(found, Notice):
                notices.append(found.text)
                continue
            self.facts["read"] += 1
            if isinstance(found, Fault):
                counts[found.kind] += 1
                faults += [found] * (len(faults) < SHOWN)
                self.facts.update(faults=[fault.model_dump() for fault in faults], fault_counts=dict(counts))
                self._refuse(found)
                continue
            yield found
            done += found.bytes
            if done - told > _TOLD_EVERY_BYTES:
                told = done
                self.tell({"kind": "stage", "text": f"tokenising {self.corpus.source}: {done / 1e6:,.0f} MB"})
        self.facts["whole"] = True

    def _found(self) -> Iterator[Document | Fault | Notice]:
        corpus = self.corpus
        rows = stream_rows(
            corpus.source, folder=corpus.folder, id_field=corpus.id_field, group_field=corpus.group_field
        )
        for row in rows:
            yield self._document(row) if isinstance(row, Row) else row

    def _document(self, row: Row) -> Document | Fault:
        file, _, line = row.place.rpartition(":")
        number = int(line) if line.isdigit() else 0
        try:
            ids_T = self.corpus.encode(row).ids_T
        except RowRefused as refusal:
            return Fault(file=file, line=number, kind=refusal.kind, message=refusal.what)
        return Document(ids_T, file, number, bytes_of(row))

    def _refuse(self, fault: Fault) -> None:
        if self.corpus.on_bad == "refuse":
            raise BadInput(
                fault.message, where=f"{fault.file}:{fault.line}", fix="mend the record, or set data.on_bad: skip"
            )


def bytes_of(row: Row) -> int:
    """Return the bytes of a row's text in UTF-8, of a conversation without its template."""
    text = row.text if row.messages is None else "".join(message.content for message in row.messages)
    return len((text or "").encode())
