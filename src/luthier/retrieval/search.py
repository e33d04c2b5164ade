"""Search an index: keyword (BM25), vector (cosine), or both fused by reciprocal rank (Cormack et al. 2009, k = 60).

BM25 has Lucene's form (k1 = 1.2, b = 0.75) over the terms of `luthier.retrieval.terms`; a query is words, never syntax.
Vector search is exact. Equal passages count once; equal scores go by passage id, so that results repeat. A query
without a letter or digit finds nothing. What to do with the passages is not known here.

    >>> open_index(Path("store")).search("KR-482 warranty", 3)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.query import MatchQuery
from lancedb.table import Table

from luthier.ground.errors import BadInput
from luthier.ground.results import Passage
from luthier.retrieval.manifest import LANCE_FAULTS, Manifest, open_version, read_manifest
from luthier.retrieval.terms import query_terms
from luthier.retrieval.vectors import Embedder, FloatArray, embed_checked

Method = Literal["hybrid", "keyword", "vector"]
RRF_K = 60
FUSED_DEPTH = 100  # ranks of each list that take part in a fusion
_DECIMALS = 4  # closer scores are ties: float32 sums depend on the order of adding
_SPARE = 32  # hits read beyond those wanted, for equal passages and ties


@dataclass(frozen=True)
class Hit:
    """A passage found, not yet read. `row` is LanceDB's row id in the opened version; ranks are from 1."""

    row: int
    id: str
    digest: str  # equal for equal texts
    score: float
    rank_keyword: int | None = None
    rank_vector: int | None = None


class Index:
    """One finished version of an index, opened for reading; later updates of the store do not change it."""

    def __init__(self, table: Table, manifest: Manifest) -> None:
        self._table = table
        self.embedding = manifest.settings.embedding  # name of the embedder; None for keyword search alone
        self.documents = len(manifest.files)
        self.chunks = manifest.chunks

    def search(
        self, query: str, k: int = 3, *, method: Method = "hybrid", embed: Embedder | None = None
    ) -> list[Passage]:
        """Return the best `k` passages for one query; see `search_many`."""
        return self.search_many([query], k, method=method, embed=embed)[0]

    def search_many(
        self, queries: Sequence[str], k: int = 3, *, method: Method = "hybrid", embed: Embedder | None = None
    ) -> list[list[Passage]]:
        """Return the best `k` passages for each query, best first; all queries are embedded together.

        Args:
            embed: the embedder that the index was made with; not needed for `keyword`.

        Raises:
            BadInput: the method needs vectors that the index lacks, or the embedder is another one.
        """
        if k < 1:
            raise BadInput(f"{k} passages were asked for, wanted at least 1")
        terms = [query_terms(query) for query in queries]
        vectors = self._embed(queries, terms, embed) if method != "keyword" else {}
        depth = max(FUSED_DEPTH, k) if method == "hybrid" else k
        try:
            by_keyword = [self._keyword_hits(words, depth) if method != "vector" else [] for words in terms]
            by_vector = self._vector_hits(vectors, depth)
            pairs = [(hits, by_vector.get(index, [])) for index, hits in enumerate(by_keyword)]
            merged = [fuse(*pair) if method == "hybrid" else pair[0] or pair[1] for pair in pairs]
            return self._read([hits[:k] for hits in merged])
        except LANCE_FAULTS as error:
            raise _damaged(str(error)) from error

    def _embed(self, queries: Sequence[str], terms: list[list[str]], embed: Embedder | None) -> dict[int, FloatArray]:
        """Return the vector of each query that has a word, by its place among the queries."""
        embedder = self._checked(embed)
        asked = [index for index, words in enumerate(terms) if words]
        if not asked:
            return {}
        texts = [queries[index].encode(errors="replace").decode() for index in asked]  # lone surrogates
        return dict(zip(asked, embed_checked(embedder, texts), strict=True))

    def _checked(self, embed: Embedder | None) -> Embedder:
        if self.embedding is None:
            raise BadInput("this index has no vectors", fix="search by keyword, or index again with an embedding model")
        if embed is None or embed.name != self.embedding:
            given = embed.name if embed else "none"
            raise BadInput(
                f"this index was made with the embedding {self.embedding}, and {given} was given",
                fix="search with the same model, or index again",
            )
        return embed

    def _keyword_hits(self, words: list[str], depth: int) -> list[Hit]:
        if not words:
            return []
        query = MatchQuery(" ".join(words), "terms")
        limit = depth + _SPARE
        while True:
            found = (
                self._table.search(query).select(["id", "digest", "_score"]).with_row_id(True).limit(limit).to_arrow()
            )
            hits = _distinct(_hits(found, "_score", 1.0))
            if found.num_rows < limit or _is_settled(hits, depth):
                return [replace(hit, rank_keyword=rank) for rank, hit in enumerate(hits[:depth], 1)]
            limit *= 4

    def _vector_hits(self, vectors: dict[int, FloatArray], depth: int) -> dict[int, list[Hit]]:
        """Ask for all queries in one scan; the few whose hits repeat or tie are asked again, for more."""
        hits: dict[int, list[Hit]] = {}
        unsettled = list(vectors)
        limit = min(depth + _SPARE, self.chunks)
        while unsettled:
            tables = self._nearest(np.stack([vectors[index] for index in unsettled]), limit)
            for index, found in zip(unsettled, tables, strict=True):
                hits[index] = _distinct(_hits(found, "_distance", -1.0, 1.0))
            unsettled = [index for index in unsettled if limit < self.chunks and not _is_settled(hits[index], depth)]
            limit = min(limit * 4, self.chunks)
        return {
            index: [replace(hit, rank_vector=rank) for rank, hit in enumerate(found[:depth], 1)]
            for index, found in hits.items()
        }

    def _nearest(self, vectors_QD: FloatArray, limit: int) -> list[pa.Table]:
        query = self._table.search(vectors_QD, vector_column_name="vector", query_type="vector")
        columns = ["id", "digest", "_distance"]
        found = query.distance_type("dot").select(columns).with_row_id(True).limit(limit).to_arrow()
        if "query_index" not in found.column_names:  # a single query
            return [found]
        return [found.filter(pc.equal(found["query_index"], index)) for index in range(len(vectors_QD))]

    def _read(self, found: list[list[Hit]]) -> list[list[Passage]]:
        rows = sorted({hit.row for hits in found for hit in hits})
        columns = ["id", "path", "heading", "text"]
        read = self._table.take_row_ids(rows).select(columns).to_arrow().to_pylist() if rows else []
        texts = {row["id"]: row for row in read}
        return [[_passage(hit, texts[hit.id]) for hit in hits] for hits in found]


def open_index(store: Path) -> Index:
    """Open the last finished version of the index in `store`.

    Raises:
        BadInput: there is none, or it is damaged.
    """
    manifest = read_manifest(store)
    if manifest is None:
        raise BadInput("there is no finished index here", where=str(store), fix="run `luthier index` first")
    try:
        return Index(open_version(store, manifest), manifest)
    except LANCE_FAULTS as error:
        raise _damaged(str(error), store) from error


def fuse(keyword: Sequence[Hit], vector: Sequence[Hit]) -> list[Hit]:
    """Fuse two rankings: a passage scores the sum of 1 / (60 + rank) over the lists that have it."""
    fused: dict[str, Hit] = {hit.digest: hit for hit in keyword}
    for hit in vector:
        seen = fused.get(hit.digest, hit)
        fused[hit.digest] = replace(seen, rank_vector=hit.rank_vector)
    scored = [
        replace(hit, score=_reciprocal(hit.rank_keyword) + _reciprocal(hit.rank_vector)) for hit in fused.values()
    ]
    return sorted(scored, key=lambda hit: (-hit.score, hit.id))


def _reciprocal(rank: int | None) -> float:
    return 1.0 / (RRF_K + rank) if rank is not None else 0.0


def _hits(found: pa.Table, column: str, sign: float, shift: float = 0.0) -> list[Hit]:
    """Hits of a LanceDB answer, best first; a similarity is `shift + sign * value`."""
    rows, ids, digests = (found[name].to_pylist() for name in ("_rowid", "id", "digest"))
    scores = [shift + sign * value for value in found[column].to_pylist()]
    hits = [Hit(*row) for row in zip(rows, ids, digests, scores, strict=True)]
    return sorted(hits, key=lambda hit: (-round(hit.score, _DECIMALS), hit.id))


def _distinct(hits: list[Hit]) -> list[Hit]:
    """The first hit of each text, in order."""
    first: dict[str, Hit] = {}
    for hit in hits:
        first.setdefault(hit.digest, hit)
    return list(first.values())


def _is_settled(hits: list[Hit], depth: int) -> bool:
    """Tell whether more hits could not change the first `depth`: enough texts, and the last one read scores less."""
    return len(hits) > depth and round(hits[-1].score, _DECIMALS) < round(hits[depth - 1].score, _DECIMALS)


def _passage(hit: Hit, row: dict[str, str]) -> Passage:
    return Passage(
        id=hit.id,
        path=row["path"],
        heading=row["heading"],
        text=row["text"],
        score=hit.score,
        rank_keyword=hit.rank_keyword,
        rank_vector=hit.rank_vector,
    )


def _damaged(reason: str, store: Path | None = None) -> BadInput:
    what = f"the index cannot be read ({reason.strip().splitlines()[0] if reason.strip() else 'damaged'})"
    return BadInput(what, where=str(store) if store else None, fix="run `luthier index` again")
