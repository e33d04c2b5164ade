"""Where the time of a training step goes: matrix products, attention, row-wise kernels, optimizer, and the rest.

Trains LoRA r=16 on SmolLM2-135M-Instruct with random rows of mixed length, wraps each part in a clock, and prints each
part's share of a step, beside the least time that its matrix products take alone. No peer is involved; see `train.py`.

    python benchmarks/profile_step.py --tokens 1200 --steps 12
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import luthier  # noqa: F401  # first: it sets how idle threads wait, which is read when torch is imported
from luthier.adapters.base import get_kind
from luthier.ground.spec import AdapterSpec, TrainSpec
from luthier.models.find import find_model
from luthier.models.load import load_model
from luthier.objectives import cross_entropy
from luthier.objectives.base import ObjectiveContext
from luthier.objectives.sft import SupervisedFinetuning
from luthier.rows.packing import pack_rows
from luthier.rows.types import Encoded
from luthier.training.engine import block, norm
from luthier.training.engine.body import engine_for
from luthier.training.step import TorchStep

PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_")
PARTS: tuple[tuple[Any, str, str], ...] = (
    (block, "attend", "attention, forward"),
    (block, "attend_back", "attention, backward"),
    (block, "rotate", "rotary positions"),
    (block, "gate", "gated activation, forward"),
    (block, "gate_back", "gated activation, backward"),
    (norm, "rms_norm", "norms, forward"),
    (norm, "rms_norm_back", "norms, backward"),
    (cross_entropy, "softmax_loss", "softmax and loss"),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=1200, help="tokens of a step, about")
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    model = load_model(find_model("smollm2-135m-instruct"), "bf16").model
    kind, spec = get_kind("lora"), TrainSpec()
    kind.inject(model, AdapterSpec(rank=16), seed=0)
    step = TorchStep(model, SupervisedFinetuning(ObjectiveContext(None)), kind.trainable(model), spec)
    with engine_for(model, spec) as engine:
        steps = [pack_rows(_rows(options.tokens, seed), 1536) for seed in range(options.steps)]
        for packs in steps[:2]:
            step.run(packs, 1e-4)
        plain_s = _timed(lambda: [step.run(packs, 1e-4) for packs in steps]) / len(steps)
        clock = _Clock()
        with clock:
            for packs in steps:
                step.run(packs, 1e-4)
    tokens = sum(len(pack) for packs in steps for pack in packs) / len(steps)
    _print(engine.sentence, tokens, plain_s, {name: total / len(steps) for name, total in clock.seconds.items()})


class _Clock(TorchDispatchMode):
    """Adds up the seconds of matrix products, and of the functions in `PARTS`, while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)
        self._real: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> _Clock:
        for module, name, label in PARTS:
            self._real.append((module, name, getattr(module, name)))
            setattr(module, name, self._wrapped(getattr(module, name), label))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for module, name, function in self._real:
            setattr(module, name, function)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        began = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        label = "matrix products" if func.name().split(".")[0] in PRODUCTS else "other tensor operations"
        if "adamw" in func.name():
            label = "optimizer"
        self.seconds[label] += time.perf_counter() - began
        return result

    def _wrapped(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            before = sum(self.seconds.values())
            began = time.perf_counter()
            result = function(*args, **kwargs)
            inside = sum(self.seconds.values()) - before  # tensors that it made
            self.seconds[label] += time.perf_counter() - began - inside
            return result

        return timed


def _rows(tokens: int, seed: int) -> list[Encoded]:
    generator, rows = np.random.default_rng(seed), []
    while sum(map(len, rows)) < tokens:
        length = int(np.clip(generator.lognormal(4.9, 0.5), 40, 500))
        ids = generator.integers(5, 49_000, length)
        rows.append(Encoded(ids, np.arange(length) >= length - max(2, length // 5), f"row {len(rows)}"))
    return rows


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _print(engine: str, tokens: float, plain_s: float, seconds: dict[str, float]) -> None:
    threads = torch.get_num_threads()
    print(
        f"{engine}, {threads} threads, torch {torch.__version__}: {tokens:.0f} tokens a step in {plain_s:.3f} s", end=""
    )
    print(f" = {tokens / plain_s:.0f} tokens/s (without the clock)")
    total = sum(seconds.values())
    for name, part in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"  {part * 1e3:7.1f} ms  {part / plain_s:5.1%}  {name}")
    rest = plain_s - total
    print(f"  {rest * 1e3:7.1f} ms  {rest / plain_s:5.1%}  Python, autograd and what lies between")


if __name__ == "__main__":
    main()
