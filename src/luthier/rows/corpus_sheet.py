"""The truth sheet of raw text: what each source holds as tokens, and whether documents repeat.

All documents were read, tokenised and cut when their store was written; the counts are of all of them. Repeats are
looked for among the first `SAMPLE` documents of each source only, and the sheet says so.

    sheet = corpus_sheet("docs", {"train": [store]}, {"train": rows}, renderer, mixed, max_length=2048, on_bad="refuse")
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from luthier.ground.objective_results import SourceCounts
from luthier.ground.results import CheckResult, Duplicates, Fault, RowCounts, TokenCounts
from luthier.rows.duplicates import SHOWN, across, within
from luthier.rows.mixture import MixedRows
from luthier.rows.sheet import VIEWS, histogram_of, quantiles_of, seen_row
from luthier.rows.template import Renderer
from luthier.rows.token_store import TokenStore
from luthier.rows.types import Row

SAMPLE = 2000
Stores = Mapping[str, Sequence[TokenStore]]


def corpus_sheet(
    task_name: str,
    stores: Stores,
    samples: Mapping[str, Sequence[Row]],
    renderer: Renderer,
    mixed: MixedRows | None,
    *,
    max_length: int,
    on_bad: Literal["refuse", "skip"],
    seed: int = 0,
) -> CheckResult:
    """Return the truth sheet of a task's sources.

    Args:
        stores: the sources of train, dev, test and general, as far as they exist.
        samples: the first documents of each split.
        mixed: the training rows; None if there are none to train on, which `stores` then explain.
    """
    duplicates = {split: within(rows) for split, rows in samples.items()}
    overlap = {f"train/{b}": across(samples["train"], rows) for b, rows in samples.items() if b != "train"}
    faults = [Fault(**fault) for of_split in stores.values() for store in of_split for fault in store.facts["faults"]]
    kinds = sum((Counter(_facts(store, "fault_counts")) for of in stores.values() for store in of), Counter[str]())
    train = stores.get("train", ())
    ended = bool(train) and mixed is not None and _ends(train[0], renderer)
    reasons = _reasons(stores, overlap, mixed, on_bad)
    return CheckResult(
        task=task_name,
        rows={split: _rows(of_split) for split, of_split in stores.items()},
        tokens={split: _tokens(of_split) for split, of_split in stores.items()},
        faults=faults[:SHOWN],
        fault_counts=dict(kinds.most_common()),
        duplicates=duplicates,
        overlap=overlap,
        conflicts=[],
        end_token_trained=ended,
        end_token=renderer.tokens.names["eos_token"] or None,
        max_length=max_length,
        on_long="cut into pieces",
        template="nothing: raw text, an end token after each document",
        views=[] if mixed is None else [seen_row(mixed[n], renderer) for n in _spread(len(mixed))],
        sources=_sources(stores, mixed, seed),
        warnings=[*_warnings(stores, samples, duplicates, overlap, ended), *renderer.warnings],
        reasons=reasons,
        ok=not reasons,
    )


def _rows(of_split: Sequence[TokenStore]) -> RowCounts:
    return RowCounts(
        read=sum(store.facts["read"] for store in of_split),
        refused=sum(sum(_facts(store, "fault_counts").values()) for store in of_split),
        kept=sum(store.facts["documents"] for store in of_split),
    )


def _tokens(of_split: Sequence[TokenStore]) -> TokenCounts:
    lengths_N = np.concatenate([np.asarray(store.lengths) for store in of_split] or [np.zeros(0, dtype=np.int64)])
    return TokenCounts(
        total=int(lengths_N.sum()),
        target=int(lengths_N.sum()) - len(lengths_N),
        quantiles=quantiles_of(lengths_N),
        target_quantiles=quantiles_of(lengths_N - 1),
        histogram=histogram_of(lengths_N),
    )


def _sources(stores: Stores, mixed: MixedRows | None, seed: int) -> list[SourceCounts]:
    taken = _epoch_tokens(mixed, seed) if mixed is not None else {}
    return [
        SourceCounts(
            split=split,
            source=store.origin,
            **{name: int(store.facts[name]) for name in ("documents", "pieces", "tokens", "bytes")},
            epoch_tokens=taken.get(store.origin, 0) if split == "train" else 0,
            is_whole=bool(store.facts["whole"]),
        )
        for split, of_split in stores.items()
        for store in of_split
    ]


def _epoch_tokens(mixed: MixedRows, seed: int) -> dict[str, int]:
    order = mixed.epoch(seed, 0)
    starts = np.cumsum([0, *mixed.sizes])
    source_R = np.searchsorted(starts, order, side="right") - 1
    return {source.name: int(mixed.lengths[order[source_R == n]].sum()) for n, source in enumerate(mixed.sources)}


def _reasons(stores: Stores, overlap: Mapping[str, Duplicates], mixed: MixedRows | None, on_bad: str) -> list[str]:
    reasons = []
    for split, of_split in stores.items():
        counts = _rows(of_split)
        if counts.refused and on_bad == "refuse":
            of = f"{counts.refused:,} of {counts.read:,}"
            reasons.append(f"{split}: {of} records refused; mend them or set data.on_bad: skip")
    if "train" not in stores:
        reasons.append("there is no train split, so there is nothing to train on; set data.train")
    elif mixed is None:
        reasons.append("train: a source has no documents, so there is nothing to train on")
    for name in ("test", "general"):
        found = overlap.get(f"train/{name}")
        if found is not None and found.exact:
            reasons.append(f"{name}: {found.exact:,} documents stand word for word in train; remove them")
    return reasons


def _warnings(
    stores: Stores,
    samples: Mapping[str, Sequence[Row]],
    duplicates: Mapping[str, Duplicates],
    overlap: Mapping[str, Duplicates],
    ended: bool,
) -> list[str]:
    warnings = [str(notice) for of in stores.values() for store in of for notice in store.facts["notices"]]
    if any(len(samples[split]) < _rows(of).kept for split, of in stores.items()):
        warnings.append(f"repeats were looked for among the first {SAMPLE:,} documents of each source only")
    repeated = {split: found.exact + found.near for split, found in duplicates.items() if found.exact + found.near}
    warnings += [f"{split}: {number:,} documents repeat an earlier one" for split, number in repeated.items()]
    near = {pair: found.near for pair, found in overlap.items() if found.near}
    warnings += [f"{pair}: {number:,} documents are nearly the same" for pair, number in near.items()]
    if "test" not in stores:
        warnings.append("there is no test text, so what was learned cannot be measured; set data.test")
    if "general" not in stores:
        warnings.append("there is no general text, so what was forgotten cannot be measured; set data.general")
    if not ended:
        warnings.append("the tokenizer has no end token, so where a document ends is not learned")
    return warnings


def _ends(store: TokenStore, renderer: Renderer) -> bool:
    last = store[int(store.pieces_of(np.array([0]))[-1])]
    return int(last.ids_T[-1]) in renderer.end_ids


def _facts(store: TokenStore, name: str) -> dict[str, Any]:
    value: dict[str, Any] = store.facts[name]
    return value


def _spread(rows: int) -> list[int]:
    return [int(n) for n in np.linspace(0, rows - 1, min(VIEWS, rows)).round()]
