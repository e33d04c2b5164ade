"""Read a dataset from the hub, through `datasets`: data only; a dataset that needs code of its own is refused.

for record in read_hub("gsm8k-owner/gsm8k:train"): print(record.value)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets

from luthier.ground.errors import BadInput
from luthier.rows.records import Notice, Record


def read_hub(name: str, *, stream: bool = False) -> Iterator[Record | Notice]:
    """Yield the records of `owner/name[:split]` (split: train). Labels kept as numbers get their names.

    Args:
        stream: fetch as it is read, and no further, instead of the whole dataset first.

    Raises:
        BadInput: the hub cannot be reached, or has no such dataset.
    """
    repository, _, split = name.partition(":")
    split = split or "train"
    if repository.count("/") != 1 or ".." in repository:
        raise BadInput(f'"{name}" names no dataset', where="hub", fix="write hub:owner/name or hub:owner/name:split")
    data = _load(repository, split, stream)
    features = data.features or {}  # a stream may not know them
    names = {column: feature for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    for number, record in enumerate(data, 1):
        yield Record(f"hub:{repository}:{split}", number, _named(record, names))


def _load(repository: str, split: str, stream: bool) -> Any:
    try:
        return datasets.load_dataset(repository, split=split, **({"streaming": True} if stream else {}))
    except Exception as error:  # the library raises errors of many packages when it is offline
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise BadInput(
            f"the dataset could not be loaded ({reason})",
            where=f"hub:{repository}:{split}",
            fix="check the name and the network, or name a local file",
        ) from None


def _named(record: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    labels = {c: feature.int2str(record[c]) for c, feature in names.items() if record.get(c) not in (None, -1)}
    return record | labels
