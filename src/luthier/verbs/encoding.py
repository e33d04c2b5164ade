"""Rows as the objective trains them: composed, encoded, cut to length, and none without a target.

rows = encoded_rows(bench, bench.objective, bench.rows("train"), passages=0, tell=tell)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from luthier.ground.events import Tell
from luthier.objectives.base import Objective
from luthier.rows.lengths import fit_length
from luthier.rows.template import RowRefused
from luthier.rows.types import Encoded, Row
from luthier.verbs.workbench import Workbench


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
