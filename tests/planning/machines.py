"""Made-up machines whose memory and time are known, and what is the best on them by trying everything."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

from luthier.ground.spec import AdapterSpec, TrainSpec
from luthier.planning.choose import Chosen, Evaluate, Outcome, choose, difference
from luthier.planning.levers import combined, options_of, written_keys
from luthier.planning.search import Combination, loss_of, tier_of

FULL = TrainSpec(adapter=AdapterSpec(kind="full"))
LORA = TrainSpec()
PARAMETERS = 135e6
KEPT = {"none": 1.0, "selective": 0.6, "full": 0.25}
AGAIN = {"none": 1.0, "selective": 1.1, "full": 1.3}
WEIGHT_BYTES = {"bf16": 2.0, "fp32": 4.0, "int8": 1.3, "nf4": 0.9}
BASE_TIME = {"bf16": 1.0, "fp32": 1.5, "int8": 1.15, "nf4": 1.25}
STATE_BYTES = {"adamw": 8.0, "adamw8bit": 2.1, "adafactor": 0.1}
UPDATE_S = {"adamw": 0.05, "adamw8bit": 0.5, "adafactor": 0.2}
GB = 1_000_000_000


def pick(spec: TrainSpec, limit_bytes: int | None, evaluate: Evaluate, **more: Any) -> Chosen:
    return choose(spec, evaluate, limit_bytes, **{"time_limit_s": None, "steps": None, "layers": 30, **more})


def realistic(seed: int) -> Evaluate:
    """A machine whose peak is the larger of two moments, so that levers hide behind each other."""
    draw = random.Random(seed)
    activation, tiled = draw.uniform(200e3, 1.5e6), draw.uniform(5e3, 500e3)
    longest = draw.choice([60, 300, 900, 3000])

    def evaluate(spec: TrainSpec) -> Outcome:
        full, base = spec.adapter.kind == "full", spec.base or spec.precision
        share = 1.0 if full else (spec.adapter.layers or 30) / 30
        trained = PARAMETERS * (share if full else 0.0003 * spec.adapter.rank * share)
        trained = PARAMETERS / 30 if spec.layers_in_turn else trained
        narrow = full and spec.adapter.masters == "none"
        state = (STATE_BYTES[spec.optimizer] + (0 if narrow or not full else 4)) * trained
        gradients = (2 if narrow else 4) * trained * (0.2 if spec.optimizer_in_backward else 1)
        tokens = max(longest, min(spec.pack_tokens or 1536, spec.tokens_per_step))
        kept = activation * KEPT[spec.checkpointing] * tokens * share + tiled * min(tokens, spec.mlp_tile or tokens)
        peak = 300e6 + WEIGHT_BYTES[base] * PARAMETERS + state + max(kept, gradients + 0.3 * kept)
        step_s = BASE_TIME[base] * AGAIN[spec.checkpointing] * (1 + 50 / tokens) * (1.03 if spec.mlp_tile else 1)
        step_s += UPDATE_S[spec.optimizer] * (1 if full else 0.01)
        step_s *= (1.07 if narrow else 1) * (0.5 if spec.layers_in_turn else 1) * (0.5 + 0.5 * share)
        return Outcome(int(peak), step_s)

    return evaluate


def separable(seed: int) -> Evaluate:
    """A machine where every setting saves its own bytes and has its own factor of time."""
    draw = random.Random(seed)
    values: dict[tuple[str, Any], tuple[float, float]] = {}
    for options in (options_of(LORA, 30), options_of(FULL, 30)):
        levers: dict[str, tuple[float, float]] = {}
        for option in options:  # leaner options of a lever save more and take longer
            saved, factor = levers.get(option.lever, (0.0, 1.0))
            levers[option.lever] = saved + draw.uniform(10e6, 150e6), factor * draw.uniform(1.01, 1.25)
            values[option.changes[0]] = levers[option.lever]

    def evaluate(spec: TrainSpec) -> Outcome:
        peak, step_s = 4e9, 1.0
        for change in difference(TrainSpec(adapter=AdapterSpec(kind=spec.adapter.kind)), spec).items():
            saved, factor = values.get(change, (0.0, 1.0))
            peak, step_s = peak - saved, step_s * factor
        return Outcome(int(peak), step_s)

    return evaluate


def fastest_by_tier(spec: TrainSpec, evaluate: Evaluate, limit_bytes: int) -> dict[int, float]:
    """Evaluate everything of tiers 0 to 2 that keeps what the spec sets: the shortest step that fits, by tier."""
    fastest: dict[int, float] = {}
    for options in every_combination(spec, 2):
        if (changed := combined(spec, options)) is not None:
            outcome, tier = evaluate(changed), tier_of(options)
            if outcome.peak_bytes <= limit_bytes:
                fastest[tier] = min(outcome.step_s, fastest.get(tier, float("inf")))
    return fastest


def least_loss(spec: TrainSpec, evaluate: Evaluate, limit_bytes: int) -> int:
    """Evaluate everything that keeps what the spec sets, from the least loss on, until something fits."""
    for options in sorted(every_combination(spec, 3), key=loss_of):
        changed = combined(spec, options)
        if changed is not None and evaluate(changed).peak_bytes <= limit_bytes:
            return loss_of(options)
    raise AssertionError("nothing fits")


def every_combination(spec: TrainSpec, highest_tier: int) -> Iterator[Combination]:
    levers: dict[str, list[Any]] = {}
    for option in options_of(spec, 30):
        if option.tier <= highest_tier and not {key for key, _ in option.changes} & written_keys(spec):
            levers.setdefault(option.lever, [None]).append(option)
    for several in itertools.product(*levers.values()):
        yield tuple(option for option in several if option)
