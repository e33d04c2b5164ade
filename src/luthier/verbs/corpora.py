"""Documents of a task as rows to train on: tokenised into stores under `runs/cache`, mixed as the task says.

rows = corpus_rows(bench, "train", tell); rows.lengths.sum()
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from luthier.ground.data_spec import SourceSpec
from luthier.ground.errors import BadInput
from luthier.ground.events import Tell
from luthier.ground.hashes import key_of
from luthier.ground.results import CheckResult
from luthier.ground.seeds import derived_seed
from luthier.rows.corpus import Corpus
from luthier.rows.corpus_sheet import SAMPLE, corpus_sheet
from luthier.rows.mixture import MixedRows, Source
from luthier.rows.token_store import TokenStore
from luthier.rows.types import Encoded, IntArray, Row
from luthier.verbs.runs import runs_folder

if TYPE_CHECKING:
    from luthier.verbs.workbench import Workbench

CorpusSplit = Literal["train", "dev", "test", "general"]
SPLITS: tuple[CorpusSplit, ...] = ("train", "dev", "test", "general")
TRAINED: tuple[CorpusSplit, ...] = ("train", "dev")


def corpus_rows(bench: Workbench, split: CorpusSplit, tell: Tell) -> MixedRows:
    """Return the pieces of a split's documents, in which training takes them by the shuffle window.

    Raises:
        BadInput: a source is not there or has nothing to train on, or all training text is less than one step takes.
    """
    sources = [
        _source(bench, split, spec, corpus.open(tell))
        for spec, corpus in zip(sources_of(bench, split), corpora(bench, split), strict=True)
    ]
    rows = MixedRows(sources, bench.spec.data.shuffle_window)
    if split == "train":
        _refuse_less_than_a_step(bench, rows)
    return rows


def tokenise(bench: Workbench, tell: Tell) -> None:
    """Write the stores of all sources that are not there yet."""
    for split in TRAINED:
        for corpus in corpora(bench, split):
            corpus.open(tell)


def corpora(bench: Workbench, split: CorpusSplit) -> list[Corpus]:
    """Return the sources of a split, which are tokenised when they are opened."""
    data, train = bench.spec.data, bench.spec.train
    return [
        Corpus(
            source.source,
            folder=bench.task.folder,
            cache=runs_folder(bench.task) / "cache",
            encode=bench.objective.encode,
            encode_key=key_of([bench.base_key(), bench.extended_key(), train.objective]),
            max_length=bench.max_length,
            on_bad=data.on_bad,
            id_field=data.id,
            group_field=data.group,
            documents=_count(bench, split, source) if source.source.startswith("hub:") else None,
            tokens=_needed_tokens(bench) if split == "train" else None,
        )
        for source in sources_of(bench, split)
    ]


def sources_of(bench: Workbench, split: CorpusSplit) -> Sequence[SourceSpec]:
    """Return the sources that a split is made of."""
    if split == "train":
        return bench.spec.data.sources
    source = getattr(bench.spec.data, split)
    return [SourceSpec(source=source)] if source else []


def corpus_key(bench: Workbench, split: CorpusSplit) -> str:
    """Return a hash of all that the rows of a split depend on, before any of them is tokenised."""
    count = getattr(bench.spec.data.sample, split, None)
    mixing = [source.model_dump(mode="json") for source in sources_of(bench, split)]
    keys = [corpus.key for corpus in corpora(bench, split)]
    return key_of([keys, mixing, count, bench.spec.data.shuffle_window])


def _source(bench: Workbench, split: CorpusSplit, spec: SourceSpec, store: TokenStore) -> Source:
    if not len(store):
        raise BadInput("there are no documents here to train on", where=spec.source, fix="name a source that has some")
    count = _count(bench, split, spec)
    chosen = None if count is None else _sampled(store, count, bench.spec.compare.seed)
    return Source(spec.source, store, 1.0 if spec.weight is None else spec.weight, spec.share, chosen)


def _count(bench: Workbench, split: CorpusSplit, spec: SourceSpec) -> int | None:
    """Return how many documents of a source are used; None for all."""
    counts = [count for count in (spec.cap, getattr(bench.spec.data.sample, split, None)) if count is not None]
    return min(counts, default=None)


def _sampled(store: TokenStore, count: int, seed: int) -> IntArray | None:
    """Return the pieces of the first `count` documents of a seeded shuffle, in their order; None if it is all."""
    documents = int(store.facts["documents"])
    if count >= documents:
        return None
    random = np.random.default_rng(derived_seed(seed, "sample"))
    return store.pieces_of(np.sort(random.permutation(documents)[:count]))


def _needed_tokens(bench: Workbench) -> int | None:
    """Return how many tokens `max_steps` can use at most; None where the epochs decide."""
    train = bench.spec.train
    if train.max_steps is None:
        return None
    rows = train.rows_per_step
    return train.max_steps * (rows * bench.max_length if rows else train.tokens_per_step + bench.max_length)


def _refuse_less_than_a_step(bench: Workbench, rows: MixedRows) -> None:
    train = bench.spec.train
    epoch = rows.epoch(train.seed, 0)
    tokens = int(rows.lengths[epoch].sum())
    too_few = len(epoch) < train.rows_per_step if train.rows_per_step else tokens < train.tokens_per_step
    if too_few:
        wanted = f"{train.rows_per_step} rows" if train.rows_per_step else f"{train.tokens_per_step:,} tokens"
        key = "rows_per_step" if train.rows_per_step else "tokens_per_step"
        raise BadInput(
            f"the corpus is smaller than one pack: {tokens:,} tokens in {len(epoch)} pieces, and a step takes {wanted}",
            where="data.train",
            fix=f"give it more text, or lower train.{key}",
        )


def trained_rows(rows: Sequence[Encoded]) -> int:
    """Return how many documents, or rows, rows come from."""
    if not isinstance(rows, MixedRows):
        return len(rows)
    return sum(int(source.rows.facts["documents"]) for source in rows.sources if isinstance(source.rows, TokenStore))


def sheet_of(bench: Workbench) -> CheckResult:
    """Return the truth sheet of a task's texts; bad records are counted, also where they forbid training."""
    data = bench.spec.data
    stores: dict[str, list[TokenStore]] = {}
    samples: dict[str, list[Row]] = {}
    for split in SPLITS:
        sources = corpora(bench, split)
        if sources:
            stores[split] = [_opened(corpus, bench.tell) for corpus in sources]
            samples[split] = [row for corpus in sources for row in itertools.islice(corpus.rows(), SAMPLE)]
    trains = stores.get("train", [])
    mixed = None
    if trains and all(len(store) for store in trains):
        parts = [_source(bench, "train", *pair) for pair in zip(data.sources, trains, strict=True)]
        mixed = MixedRows(parts, data.shuffle_window)
    return corpus_sheet(
        bench.spec.name,
        stores,
        samples,
        bench.objective.renderer,
        mixed,
        max_length=bench.max_length,
        on_bad=data.on_bad,
        seed=bench.spec.train.seed,
    )


def _opened(corpus: Corpus, tell: Tell) -> TokenStore:
    try:
        return corpus.open(tell)
    except BadInput:
        if corpus.on_bad == "skip":
            raise
        return replace(corpus, on_bad="skip").open(tell)  # so that all bad records can be told
