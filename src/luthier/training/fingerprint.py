"""What a run must not change between its parts: settings, rows, trained weights. A resumed run compares and refuses.

>>> differences({"epochs": 1}, {"epochs": 2})
['epochs was 1 and is 2']
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from luthier.ground.errors import Refused
from luthier.ground.hashes import key_of
from luthier.ground.spec import TrainSpec
from luthier.models.kernels.build import processor_key
from luthier.rows.mixture import rows_key
from luthier.rows.types import Encoded

# Settings that change what is kept, and where, not what is learned; pack_tokens is noted as what it came to.
FREE = {"keep", "save_every", "strategy", "pack_tokens", "checkpointing", "mlp_tile"}


def fingerprint_of(
    spec: TrainSpec, train: Sequence[Encoded], dev: Sequence[Encoded], trainable: Mapping[str, nn.Parameter]
) -> dict[str, Any]:
    """Return everything that decides the run's weights, as flat JSON fields that read well when they differ."""
    settings = json.loads(spec.model_dump_json(exclude=FREE))
    adapter = settings.pop("adapter")
    shapes = {name: list(parameter.shape) for name, parameter in trainable.items()}
    return {
        **{f"train.{key}": value for key, value in settings.items()},
        **{f"train.adapter.{key}": value for key, value in adapter.items()},
        "data.train": rows_key(train),
        "data.dev": rows_key(dev),
        "trained weights": f"{len(shapes)} tensors, {key_of(shapes)}",
    }


def arithmetic_of(kernels: str) -> dict[str, Any]:
    """Return what the last bits of a result depend on beside the run itself."""
    return {
        "kernels": kernels,
        "torch": torch.__version__,
        "processor": processor_key(),
        "threads": torch.get_num_threads(),
    }


def refuse_changes(saved: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Compare fingerprints.

    Raises:
        Refused: they differ; every difference is listed.
    """
    if changed := differences(saved, json.loads(json.dumps(now))):
        raise Refused(
            f"this run was begun differently: {'; '.join(changed)}",
            where=where,
            fix="set these back to resume, or start again with another --out",
        )


def refuse_unlike(of_ranks: Sequence[Mapping[str, Any]]) -> None:
    """Compare the fingerprints of all processes of a run.

    Raises:
        Refused: one has other rows, settings or weights than the first; every difference is listed.
    """
    for rank, own in enumerate(of_ranks):
        if changed := differences(of_ranks[0], own):
            raise Refused(
                f"the processes do not train the same: {'; '.join(changed)}",
                where=f"rank {rank}",
                fix="give all nodes the same task, data and model",
            )


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return how two fingerprints differ, one phrase for each field."""
    changed = [key for key in sorted({*saved, *now}) if saved.get(key) != now.get(key)]
    return [f"{key} was {_shown(saved, key)} and is {_shown(now, key)}" for key in changed]


def _shown(fields: Mapping[str, Any], key: str) -> str:
    return json.dumps(fields[key], ensure_ascii=False) if key in fields else "absent"
