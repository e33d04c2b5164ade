"""The learning rate as a pure function of the step.

>>> spec = TrainSpec(learning_rate=1.0, schedule="linear", warmup=0)
>>> [rate_at(step, 4, spec) for step in range(4)]
[1.0, 0.75, 0.5, 0.25]
"""

from __future__ import annotations

import math

from luthier.ground.spec import TrainSpec


def rate_at(step: int, total: int, spec: TrainSpec) -> float:
    """Return the learning rate of step `step` (from 0) of `total`.

    The warm-up of w steps rises in equal parts and is not yet at the peak; the peak is at step w. From there the rate
    falls to what would be `final_rate` of the peak at step `total`: zero by default, so that neither the first nor the
    last step is wasted at rate zero. A model that was trained before is warmed up again in the same way (Gupta et al.
    2023, arXiv:2308.04014; Ibrahim et al. 2024, arXiv:2403.08763).
    """
    warmup = warmup_steps(total, spec)
    if step < warmup:
        return spec.learning_rate * (step + 1) / (warmup + 1)
    shape = _shape(spec.schedule, (step - warmup) / max(1, total - warmup))
    return spec.learning_rate * (spec.final_rate + (1.0 - spec.final_rate) * shape)


def warmup_steps(total: int, spec: TrainSpec) -> int:
    """Return the number of warm-up steps: `spec.warmup` is a share of all steps below 1, otherwise a number."""
    return round(spec.warmup * total) if spec.warmup < 1 else round(spec.warmup)


def _shape(schedule: str, progress: float) -> float:
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0
