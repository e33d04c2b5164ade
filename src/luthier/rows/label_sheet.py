"""What the truth sheet says about labels: how many rows have each, and which are too few.

with_labels(sheet, labels, {"train": rows}).labels["train"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from luthier.ground.results import CheckResult
from luthier.rows.labels import LabelSet, count_labels
from luthier.rows.types import Row


def with_labels(sheet: CheckResult, labels: LabelSet, splits: Mapping[str, Sequence[Row]]) -> CheckResult:
    """Return the truth sheet with the rows of each label, and what is odd about them."""
    counts = {split: count_labels(labels.kind, rows) for split, rows in splits.items()}
    return sheet.model_copy(
        update={"labels": counts, "warnings": [*sheet.warnings, *_warnings(labels, counts.get("train", {}))]}
    )


def _warnings(labels: LabelSet, counts: Mapping[str, int]) -> list[str]:
    if labels.kind == "regression":
        return []
    never = [label for label in labels.labels if not counts.get(label)]
    once = [label for label in labels.labels if counts.get(label) == 1]
    said = []
    if never:
        said.append(f"train: no row has the label {_named(never)}, so it is never learned")
    if once:
        said.append(f"train: only one row has the label {_named(once)}, which is too few to learn it from")
    return said


def _named(labels: Sequence[str]) -> str:
    more = f" (and {len(labels) - 3} more like it)" if len(labels) > 3 else ""
    return ", ".join(f'"{label[:40]}"' for label in labels[:3]) + more
