"""Rows as the objective trains them: composed, encoded, cut to length, and none without a target.

rows = encoded_split(bench, bench.objective, "train", passages=0, tell=tell)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from luthier.ground.events import Tell
from luthier.objectives.base import Objective
from luthier.rows.lengths import fit_length
from luthier.rows.mixture import MixedRows, Source
from luthier.rows.template import RowRefused
from luthier.rows.types import Encoded, Row
from luthier.verbs.corpora import corpus_rows
from luthier.verbs.workbench import Workbench


def encoded_split(
    bench: Workbench, objective: Objective, split: Literal["train", "dev"], passages: int, tell: Tell
) -> Sequence[Encoded]:
    """Return the rows of a split as the objective trains them: a list, or rows that are read when they are taken.

    Several sources of training rows come as a mixture, if the task gives one a weight or a share. A task without a dev
    split has no dev rows.
    """
    if split == "dev" and bench.spec.data.dev is None:
        return []
    if objective.reads_corpora:
        return corpus_rows(bench, split, tell)
    rows = encoded_rows(bench, objective, bench.rows(split), passages, tell)
    return _mixed(bench, rows) if split == "train" else rows


def _mixed(bench: Workbench, rows: list[Encoded]) -> Sequence[Encoded]:
    sources = bench.spec.data.sources
    if not rows or all(source.weight is None and source.share is None for source in sources):
        return rows
    of_source = {
        source.source: [row for row in rows if len(sources) == 1 or row.origin == source.source] for source in sources
    }
    return MixedRows(
        [
            Source(
                source.source, of_source[source.source], 1.0 if source.weight is None else source.weight, source.share
            )
            for source in sources
        ]
    )


def encoded_rows(
    bench: Workbench, objective: Objective, rows: Sequence[Row], passages: int, tell: Tell
) -> list[Encoded]:
    """Return rows as the objective trains them, without those that are too long or have no target."""
    spec = bench.spec.train
    composed = bench.training_rows(rows, passages)
    encoded = [replace(piece, origin=row.origin) for row in composed for piece in _pieces(bench, objective, row)]
    fitted = [fit_length(row, bench.max_length, spec.on_long) for row in encoded]
    kept = [row for row in fitted if row is not None and row.target_tokens]
    cut = sum(1 for row in kept if row.cut)
    if len(kept) < len(encoded) or cut:
        limit = f"the longest row has {bench.max_length:,} tokens, on_long: {spec.on_long}"
        tell({"kind": "warning", "text": f"{len(encoded) - len(kept)} rows dropped, {cut} cut ({limit})"})
    return kept


def _pieces(bench: Workbench, objective: Objective, row: Row) -> Sequence[Encoded]:
    """Return a row as the objective trains it; nothing of one that cannot be, if such rows are to be skipped."""
    try:
        return objective.encode_all(row)
    except RowRefused:
        if bench.spec.data.on_bad == "refuse":
            raise
        return ()
