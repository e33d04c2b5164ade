"""Searching: BM25 and cosine against plain references, fusion by hand, and no query that can break it."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from retrieval_samples import HashEmbedder, WriteFolder

from luthier.ground.errors import BadInput
from luthier.retrieval.index import build_index
from luthier.retrieval.search import RRF_K, Hit, Index, fuse, open_index
from luthier.retrieval.terms import analyse, query_terms

TOPICS = ["brake", "wheel", "saddle", "pump", "frame", "light", "bell", "chain", "the", "and", "Merlin 7", "KR-482"]


def bm25(query: str, texts: list[str], k1: float = 1.2, b: float = 0.75) -> list[float]:
    """BM25 as Lucene writes it (Robertson & Zaragoza 2009, idf = ln(1 + (N − n + ½) / (n + ½)))."""
    documents = [Counter(analyse(text)) for text in texts]
    lengths = [sum(document.values()) for document in documents]
    mean_length = sum(lengths) / len(lengths)
    scores = [0.0] * len(texts)
    for term in set(query_terms(query)):
        having = sum(term in document for document in documents)
        idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        for index, document in enumerate(documents):
            norm = k1 * (1 - b + b * lengths[index] / mean_length)
            scores[index] += idf * document[term] * (k1 + 1) / (document[term] + norm)
    return scores


@pytest.fixture
def corpus(write_folder: WriteFolder) -> Path:
    random = np.random.default_rng(0)
    files: dict[str, str | bytes] = {}
    for number in range(60):
        words = random.choice(TOPICS, size=int(random.integers(3, 40)))
        files[f"doc{number:02d}.txt"] = " ".join([*words, f"unique{number}"])
    return write_folder(files)


@pytest.fixture
def index(corpus: Path, tmp_path: Path, embedder: HashEmbedder) -> Index:
    build_index(corpus, tmp_path / "store", embed=embedder)
    embedder.seen.clear()
    embedder.calls = 0
    return open_index(tmp_path / "store")


def passages_of(corpus: Path) -> dict[str, str]:
    return {path.name: f"{path.stem}\n{path.read_text()}" for path in sorted(corpus.iterdir())}


@pytest.mark.parametrize(
    "query", ["brake", "the saddle pump", "Merlin 7", "KR 482 chain", "unique7 bell", "bells and bells and whistles"]
)
def test_keyword_scores_agree_with_plain_bm25(index: Index, corpus: Path, query: str) -> None:
    texts = passages_of(corpus)
    scores = dict(zip(texts, bm25(query, list(texts.values())), strict=True))
    best = sorted((name for name in texts if scores[name] > 0), key=lambda name: (-round(scores[name], 4), name))
    found = index.search(query, 10, method="keyword")
    assert [passage.path for passage in found] == best[:10]
    assert [passage.score for passage in found] == pytest.approx([scores[name] for name in best[:10]], rel=1e-4)
    assert [passage.rank_keyword for passage in found] == list(range(1, len(found) + 1))
    assert {passage.rank_vector for passage in found} <= {None}


def test_vector_scores_are_exact_cosines(index: Index, corpus: Path, embedder: HashEmbedder) -> None:
    texts = passages_of(corpus)
    query = "light bell for Merlin 7"
    cosines = embedder(list(texts.values())) @ embedder([query])[0]
    best = sorted(zip(texts, cosines, strict=True), key=lambda pair: (-round(float(pair[1]), 4), pair[0]))[:10]
    found = index.search(query, 10, method="vector", embed=embedder)
    assert [passage.path for passage in found] == [name for name, _ in best]
    assert [passage.score for passage in found] == pytest.approx([cosine for _, cosine in best], abs=1e-5)


def test_hybrid_is_the_sum_of_reciprocal_ranks(index: Index, embedder: HashEmbedder) -> None:
    query = "saddle for KR-482"
    by_keyword = {p.id: p.rank_keyword for p in index.search(query, 60, method="keyword")}
    by_vector = {p.id: p.rank_vector for p in index.search(query, 60, method="vector", embed=embedder)}
    found = index.search(query, 5, method="hybrid", embed=embedder)
    wanted = {
        name: sum(1 / (60 + ranks[name]) for ranks in (by_keyword, by_vector) if name in ranks)
        for name in {*by_keyword, *by_vector}
    }
    assert [p.id for p in found] == sorted(wanted, key=lambda name: (-wanted[name], name))[:5]
    assert [p.score for p in found] == pytest.approx([wanted[p.id] for p in found])
    assert all(p.rank_keyword == by_keyword.get(p.id) and p.rank_vector == by_vector.get(p.id) for p in found)


def test_fusion_by_hand() -> None:
    a, b, c = (Hit(number, name, name, 0.0) for number, name in enumerate("abc"))
    keyword = [Hit(0, "a", "a", 9.0, rank_keyword=1), Hit(1, "b", "b", 8.0, rank_keyword=2)]
    vector = [Hit(1, "b", "b", 0.9, rank_vector=1), Hit(2, "c", "c", 0.8, rank_vector=2)]
    fused = fuse(keyword, vector)
    assert [hit.id for hit in fused] == [b.id, a.id, c.id]
    assert [hit.score for hit in fused] == pytest.approx([1 / (RRF_K + 2) + 1 / (RRF_K + 1), 1 / 61, 1 / 62])
    assert (fused[0].rank_keyword, fused[0].rank_vector) == (2, 1)


def test_many_queries_are_embedded_in_one_call_and_answered_as_alone(index: Index, embedder: HashEmbedder) -> None:
    queries = [f"{first} {second}" for first in TOPICS for second in TOPICS[:3]] + ["!!!", "unknownword"]
    for method in ("keyword", "vector", "hybrid"):
        embedder.calls = 0
        together = index.search_many(queries, 3, method=method, embed=embedder)
        assert embedder.calls == (method != "keyword")
        alone = [index.search(query, 3, method=method, embed=embedder) for query in queries]
        for many, one in zip(together, alone, strict=True):
            assert [(p.id, p.rank_keyword, p.rank_vector) for p in many] == [
                (p.id, p.rank_keyword, p.rank_vector) for p in one
            ]


def test_a_query_that_matches_nothing_finds_nothing(index: Index, embedder: HashEmbedder) -> None:
    for query in ("zeppelin", "", "  ", "?!", "🙂", '"'):
        assert index.search(query, 3, method="keyword") == []
    for method in ("vector", "hybrid"):
        assert index.search("?! 🙂", 3, method=method, embed=embedder) == []
    assert index.search_many([], 3, embed=embedder) == []


@pytest.mark.parametrize(
    "query",
    [
        "brake AND NOT wheel",
        '"brake wheel',
        "+brake -wheel",
        "terms:brake",
        "brake*",
        "(brake",
        "brake^2~3",
        "brake'; --",
    ],
)
def test_operators_are_words(index: Index, query: str) -> None:
    plain = " ".join(analyse(query))
    assert [p.id for p in index.search(query, 60, method="keyword")] == [
        p.id for p in index.search(plain, 60, method="keyword")
    ]
    assert index.search(query, 3, method="keyword")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(st.characters()) | st.text(st.sampled_from("ab7 -\"'()*:^~+\\\0\n/{}[]")))
def test_no_query_raises(index: Index, embedder: HashEmbedder, query: str) -> None:
    for method in ("keyword", "vector", "hybrid"):
        assert len(index.search(query, 4, method=method, embed=embedder)) <= 4


def test_a_lone_surrogate_and_a_very_long_query_are_borne(index: Index, embedder: HashEmbedder) -> None:
    assert index.search("brake \ud800", 1, embed=embedder)
    assert index.search("brake " + " ".join(f"w{n}" for n in range(20_000)), 1, embed=embedder)


def test_equal_passages_count_once_however_many(
    write_folder: WriteFolder, tmp_path: Path, embedder: HashEmbedder
) -> None:
    files: dict[str, str | bytes] = {
        f"copies/{number:03d}/brakes.md": "# Brakes\nBleed  them." for number in range(300)
    }
    files |= {"copies/x.md": "# Brakes\nBleed the old ones.", "y.md": "# Wheels\nBleed? No, they are round and black."}
    build_index(write_folder(files), tmp_path / "store", embed=embedder)
    index = open_index(tmp_path / "store")
    assert index.chunks == 302
    for method in ("keyword", "vector", "hybrid"):
        paths = [p.path for p in index.search("bleed brakes", 3, method=method, embed=embedder)]
        assert paths == ["copies/000/brakes.md", "copies/x.md", "y.md"]


def test_ties_go_by_id_however_many(write_folder: WriteFolder, tmp_path: Path, embedder: HashEmbedder) -> None:
    files: dict[str, str | bytes] = {f"d{number:03d}.md": f"# One\nalpha w{number:03d}x" for number in range(400)}
    build_index(write_folder(files), tmp_path / "store", embed=embedder)
    found = open_index(tmp_path / "store").search("alpha", 5, method="keyword")
    assert [p.path for p in found] == [f"d{number:03d}.md" for number in range(5)]


def test_more_passages_than_there_are(index: Index, embedder: HashEmbedder) -> None:
    assert len(index.search("brake", 500, method="vector", embed=embedder)) == 60
    assert len(index.search("brake", 500, method="hybrid", embed=embedder)) == 60
    with pytest.raises(BadInput, match="wanted at least 1"):
        index.search("brake", 0)


def test_keyword_search_needs_no_embedder_and_vectors_need_the_right_one(
    corpus: Path, tmp_path: Path, index: Index, embedder: HashEmbedder
) -> None:
    build_index(corpus, tmp_path / "plain")
    plain = open_index(tmp_path / "plain")
    assert plain.search("brake", 3, method="keyword")
    with pytest.raises(BadInput, match="no vectors; search by keyword"):
        plain.search("brake", 3, embed=embedder)
    with pytest.raises(BadInput, match="made with the embedding hashed-words, and none was given"):
        index.search("brake", 3)
    with pytest.raises(BadInput, match="and other was given"):
        index.search("brake", 3, method="vector", embed=HashEmbedder("other"))


def test_no_index_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no finished index here; run `luthier index` first"):
        open_index(tmp_path)


def test_a_table_that_vanishes_under_the_reader_is_one_sentence(index: Index, tmp_path: Path) -> None:
    for file in (tmp_path / "store" / "lancedb").rglob("*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(BadInput, match="the index cannot be read"):
        for word in TOPICS:
            index.search(word, 3, method="keyword")


# -- XQuAD: 1,190 questions over 240 paragraphs --------------------------------------------------------------------


@pytest.fixture(scope="module")
def questions(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    folder = tmp_path_factory.mktemp("xquad")
    articles = json.loads((shared_data / "xquad" / "xquad.en.json").read_text())["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    for number, paragraph in enumerate(paragraphs):
        (folder / f"p{number:03d}.txt").write_text(paragraph["context"])
    asked = [(qa["question"], f"p{n:03d}.txt") for n, paragraph in enumerate(paragraphs) for qa in paragraph["qas"]]
    return folder, asked


def recall(found: list[list[str]], gold: list[str], k: int) -> float:
    return sum(right in paths[:k] for paths, right in zip(found, gold, strict=True)) / len(gold)


def test_keyword_recall_on_xquad(questions: tuple[Path, list[tuple[str, str]]], tmp_path: Path) -> None:
    """Measured: recall at 1, 3, 5 of .939, .975, .987 (plain BM25 over lower-cased words: .920, .976, .985)."""
    folder, asked = questions
    build_index(folder, tmp_path / "store")
    found = open_index(tmp_path / "store").search_many([question for question, _ in asked], 5, method="keyword")
    paths = [[passage.path for passage in passages] for passages in found]
    gold = [path for _, path in asked]
    assert recall(paths, gold, 1) >= 0.92
    assert recall(paths, gold, 3) >= 0.95
    assert recall(paths, gold, 5) >= 0.98


def test_function_words_do_not_drown_what_a_chatty_query_is_about(write_folder: WriteFolder, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"lock{n}.md": f"# Lock {name}\nPart X{n}." for n, name in enumerate(TOPICS)}
    files["service.md"] = "# Service\nWhat you sent to us will be with you again after we have looked at it for you."
    build_index(write_folder(files), tmp_path / "store")
    found = open_index(tmp_path / "store").search(
        "What will you do for me with the saddle, it is after all you", 1, method="keyword"
    )
    assert [passage.path for passage in found] == ["lock2.md"]


@pytest.mark.slow
@pytest.mark.model
def test_hybrid_recall_on_xquad_is_not_worse(questions: tuple[Path, list[tuple[str, str]]], tmp_path: Path) -> None:
    """Measured with all-MiniLM-L6-v2: vector .882, .973, .985; hybrid .929, .986, .992 at 1, 3, 5."""
    from luthier.models.find import find_model
    from luthier.retrieval.embed import SentenceEmbedder

    folder, asked = questions
    embed = SentenceEmbedder(find_model("minilm-l6").folder, name="minilm-l6")
    build_index(folder, tmp_path / "store", embed=embed)
    index = open_index(tmp_path / "store")
    sample = asked[::4]
    gold = [path for _, path in sample]
    queries = [question for question, _ in sample]
    at_3 = {}
    for method in ("keyword", "hybrid"):
        found = index.search_many(queries, 3, method=method, embed=embed)
        at_3[method] = recall([[passage.path for passage in passages] for passages in found], gold, 3)
    assert at_3["hybrid"] >= at_3["keyword"] - 0.03
    assert at_3["hybrid"] >= 0.95
