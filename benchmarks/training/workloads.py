"""What is trained in each workload, and how a deterministic mix of rows is chosen for it.

Only descriptions and pure functions stand here; texts are read and tokenised by `prepare.py`.

    >>> choose_mix([(100, 20), (200, 40), (300, 60)], count=2, tokens=300, targets=60, seed=0)
    [0, 1]
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

MIX_ROWS, MIX_TOKENS, MIX_TARGETS = 96, 14_361, 2_872
MIX_TOLERANCE = 0.03
SHORTEST, LONGEST = 40, 500
LONG_TOKENS, LONG_TARGETS = 2_048, 410
SHORT_TOKENS = (20, 30)
PRESET = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Workload:
    """One workload.

    Attributes:
        rows: which rows (`mix`, `long`, `short`), and `count` of them.
        model: a preset of Luthier, or `500m` for the model that the benchmark makes itself.
        adapter: `lora` or `full`.
    """

    name: str
    rows: str
    count: int
    rows_per_step: int
    says: str
    model: str = PRESET
    adapter: str = "lora"
    learning_rate: float = 1e-3


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("lora", "mix", 96, 8, "LoRA r=16 on all linear layers, 96 rows of mixed length, 8 a step"),
        Workload(
            "full",
            "mix",
            96,
            8,
            "every weight, 96 rows of mixed length, 8 a step",
            adapter="full",
            learning_rate=2e-5,
        ),
        Workload("batch1", "mix", 24, 1, "LoRA r=16, 24 rows of mixed length, one a step"),
        Workload("long", "long", 8, 1, "LoRA r=16, 8 rows of 2,048 tokens, one a step"),
        Workload("short", "short", 512, 32, "LoRA r=16, 512 rows of 20 to 30 tokens, 32 a step"),
        Workload("500m", "mix", 24, 8, "LoRA r=16 on a 500M-shaped model, 24 rows of mixed length, 8 a step", "500m"),
    )
}


def choose_mix(
    sizes: Sequence[tuple[int, int]], *, count: int, tokens: int, targets: int, seed: int, tries: int = 20_000
) -> list[int]:
    """Return the indices of `count` rows whose totals are close to `tokens` and `targets`.

    It begins with rows at even distances and exchanges one for another, at random but with a fixed seed, whenever that
    brings the totals closer; it stops within a tenth of a percent of both.

    Args:
        sizes: (tokens, target tokens) of each row to choose from.
    """
    if len(sizes) < count:
        raise ValueError(f"{len(sizes)} rows are too few to choose {count}")
    chosen = [index * len(sizes) // count for index in range(count)]
    left = sorted(set(range(len(sizes))) - set(chosen))
    draw = random.Random(seed)
    sums = [sum(sizes[index][part] for index in chosen) for part in (0, 1)]
    for _ in range(tries if left else 0):
        if _distance(sums, tokens, targets) < 0.001:
            break
        out, into = draw.randrange(count), draw.randrange(len(left))
        trial = [sums[part] - sizes[chosen[out]][part] + sizes[left[into]][part] for part in (0, 1)]
        if _distance(trial, tokens, targets) < _distance(sums, tokens, targets):
            chosen[out], left[into], sums = left[into], chosen[out], trial
    return sorted(chosen)


def within(value: float, wanted: float, tolerance: float = MIX_TOLERANCE) -> bool:
    """Whether `value` is within `tolerance` of `wanted`.

    >>> within(103, 100), within(104, 100)
    (True, False)
    """
    return abs(value - wanted) <= tolerance * wanted


def _distance(sums: Sequence[int], tokens: int, targets: int) -> float:
    return abs(sums[0] - tokens) / tokens + abs(sums[1] - targets) / targets
