"""Memory levers of full finetuning, each in a fresh process: peak memory, bytes of optimizer state, seconds a step.

Trains every weight of smollm2-135m-instruct for four steps of one pack of 1,024 tokens (8 rows of 128, a quarter of
them targets) and prints one JSON line a lever. It is not a comparison with other tools; `benchmarks/training` is.

    OMP_NUM_THREADS=2 python benchmarks/levers.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

STEPS, ROWS, ROW_TOKENS, TARGETS = 4, 8, 128, 32
NONE = {"adapter": {"masters": "none"}}
LEVERS: list[dict[str, Any]] = [
    {},
    {"optimizer": "adamw8bit"},
    {"optimizer": "adafactor"},
    {**NONE},
    {**NONE, "optimizer": "adamw8bit"},
    {**NONE, "layers_in_turn": 1},
    {"optimizer_in_backward": True},
    {"checkpointing": "full"},
    {"checkpointing": "full", "optimizer_in_backward": True},
    {"checkpointing": "full", **NONE, "optimizer": "adamw8bit"},
    {"checkpointing": "full", **NONE, "optimizer": "adamw8bit", "optimizer_in_backward": True},
    {"checkpointing": "full", **NONE, "optimizer": "adafactor", "optimizer_in_backward": True},
    {"checkpointing": "full", **NONE, "layers_in_turn": 1},
]


def main() -> None:
    """Run every lever in a process of its own."""
    for lever in LEVERS:
        subprocess.run([sys.executable, __file__, json.dumps(lever)], check=True)


def measure(lever: dict[str, Any]) -> dict[str, Any]:
    """Train a few steps with `lever` and return what it took."""
    from luthier.adapters.base import get_kind
    from luthier.ground.spec import TrainSpec
    from luthier.models.find import find_model
    from luthier.models.load import load_model
    from luthier.objectives.base import ObjectiveContext
    from luthier.objectives.sft import SupervisedFinetuning
    from luthier.training.engine.body import engine_for
    from luthier.training.step import TorchStep

    settings = {**lever, "adapter": {"kind": "full", **lever.get("adapter", {})}}
    spec = TrainSpec(learning_rate=1e-5, max_grad_norm=None, **settings)
    loaded, kind = load_model(find_model("smollm2-135m-instruct"), "bf16"), get_kind("full")
    kind.inject(loaded.model, spec.adapter, seed=0)
    objective = SupervisedFinetuning(ObjectiveContext(None))  # rows come encoded
    step = TorchStep(loaded.model, objective, kind.trainable(loaded.model), spec)
    losses, wall_s, cpu_s = [], [], []
    with engine_for(loaded.model, spec) as engine:
        for pack in _packs(loaded.tokenizer):
            began, began_cpu = time.perf_counter(), time.process_time()
            outcome = step.run([pack], spec.learning_rate)
            wall_s.append(time.perf_counter() - began)
            cpu_s.append(time.process_time() - began_cpu)
            losses.append(round(outcome.loss_sum / outcome.count, 5))
    state = sum(tensor.nbytes for name, tensor in step.tensors().items() if not name.startswith("weight/"))
    return {
        **lever,
        "peak_bytes": _peak_bytes(),
        "optimizer_bytes": state,
        "step_s": round(statistics.median(wall_s[1:]), 2),
        "step_cpu_s": round(statistics.median(cpu_s[1:]), 2),
        "losses": losses,
        "engine": engine.sentence,
    }


def _packs(tokenizer: Any) -> list[Any]:
    from luthier.rows.packing import one_pack
    from luthier.rows.types import Encoded

    text = "The workshop opens at nine. Every ticket names the part, the order and the wish of the customer. "
    ids = np.array(tokenizer(text * 60)["input_ids"])
    starts = np.random.default_rng(0).integers(0, len(ids) - ROW_TOKENS, (STEPS, ROWS))
    target_T = np.arange(ROW_TOKENS) >= ROW_TOKENS - TARGETS
    return [one_pack([Encoded(ids[at : at + ROW_TOKENS], target_T, "row") for at in row]) for row in starts]


def _peak_bytes() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(json.loads(sys.argv[1]))), flush=True)
    else:
        main()
