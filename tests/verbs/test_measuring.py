"""`plan --measure`: real steps are taken, nothing is learned, and the error is what it says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import luthier as lu
from luthier.ground.plan_result import PlanResult
from luthier.ground.task import load_task
from luthier.objectives.base import Objective
from luthier.rows.types import Encoded
from luthier.verbs import measuring
from luthier.verbs.encoding import encoded_rows
from luthier.verbs.measuring import measured
from luthier.verbs.workbench import Workbench
from tests.verbs.steady import make_steady

Parts = tuple[Workbench, Objective, Sequence[Encoded], PlanResult]


def parts_of(folder: Path, patch: pytest.MonkeyPatch, *overrides: str) -> Parts:
    with patch.context() as steady:
        make_steady(steady)
        plan = lu.plan(load_task(folder / "task.yaml", list(overrides)))
    bench = Workbench(load_task(folder / "task.yaml", list(overrides)))
    objective = bench.objective
    return bench, objective, encoded_rows(bench, objective, bench.rows("train"), 0, bench.tell), plan


def watched_steps(patch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """Return a list that fills with the tokens and the learning rate of every step that is taken."""
    taken: list[tuple[int, float]] = []
    real = measuring.make_step

    def made(*args: Any) -> Any:
        step = real(*args)
        run = step.run

        def watched(packs: Any, learning_rate: float) -> Any:
            taken.append((sum(len(pack.ids_T) for pack in packs), learning_rate))
            return run(packs, learning_rate)

        step.run = watched
        return step

    patch.setattr(measuring, "make_step", made)
    return taken


def weights_of(bench: Workbench, precision: Any = "fp32") -> dict[str, Tensor]:
    model = bench.model(precision, None).model
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "adafactor"])
def test_the_steps_are_real_and_the_weights_stay(
    task_folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, optimizer: str
) -> None:
    own = (f"train.adapter.kind={kind}", f"train.optimizer={optimizer}", "train.weight_decay=0.1")
    bench, objective, rows, plan = parts_of(task_folder, monkeypatch, *own)
    before = weights_of(bench)
    taken = watched_steps(monkeypatch)
    found = measured(bench, objective, rows, plan)
    after = weights_of(bench)
    assert before.keys() == after.keys()  # no adapter is left
    assert all((before[name] == after[name]).all() for name in before)
    lengths = sorted((tokens for tokens, _ in taken), reverse=True)
    assert len(taken) == 3 and taken[0] == taken[2] and {rate for _, rate in taken} == {0.0}
    assert taken[0][0] == lengths[0] >= 256 - 80  # the heaviest first: steps of 256 tokens, some of them shared
    numbers = (found.error, found.step_s, found.predicted_step_s)
    assert all(math.isfinite(number) for number in numbers) and found.step_s > 0
    assert found.peak_bytes > found.baseline_bytes > 0


def test_the_error_is_of_what_lies_above_the_process(task_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, objective, rows, plan = parts_of(task_folder, monkeypatch)

    class Peak:
        bytes = 1_400_000_000

        def __enter__(self) -> Peak:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(measuring, "PeakMemory", Peak)
    monkeypatch.setattr(measuring, "resident_bytes", lambda: 1_000_000_000)
    plan = plan.model_copy(update={"peak_bytes": 800_000_000, "baseline_bytes": 300_000_000, "step_s": 2.0})
    found = measured(bench, objective, rows, plan)
    assert (found.peak_bytes, found.baseline_bytes) == (1_400_000_000, 1_000_000_000)
    assert found.predicted_peak_bytes == 1_500_000_000  # 500 MB above this process
    assert found.error == pytest.approx(500 / 400 - 1)
    assert found.predicted_step_s == 2.0
    assert "+25 %" in found.sentence and "predicted 2.0 s a step" in found.sentence


def test_the_choice_of_the_plan_is_what_is_measured(task_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, objective, rows, plan = parts_of(task_folder, monkeypatch)
    seen: list[Any] = []
    real = measuring.engine_for

    def engine(model: Any, spec: Any, autocast: Any) -> Any:
        seen.append(spec)
        return real(model, spec, autocast)

    monkeypatch.setattr(measuring, "engine_for", engine)
    settings = {"train.checkpointing": "full", "train.pack_tokens": 128}
    measured(bench, objective, rows, plan.model_copy(update={"choice": settings}))
    assert [(spec.checkpointing, spec.pack_tokens) for spec in seen] == [("full", 128)]
    assert bench.spec.train.checkpointing == "none"
