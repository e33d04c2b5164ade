"""Before training: will it fit, and with which settings?

`train` predicts its own peak before the model is loaded, changes what the task file leaves open if that keeps the
budget, and refuses, with the numbers, what cannot fit. What was chosen lies in the run directory as `plan.json`, so
that a resumed run goes on with the same settings.

    fit(bench, objective, rows, run_path).predicted_peak_bytes
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from luthier.ground.errors import BadInput, Refused
from luthier.ground.files import write_json
from luthier.ground.plan_result import PlanResult
from luthier.ground.spec import TrainSpec
from luthier.ground.units import bytes_of, seconds_of
from luthier.ground.words import exact_size
from luthier.machine.catalogue import Device
from luthier.machine.here import this_device
from luthier.machine.memory import resident_bytes
from luthier.models.folder import read_json_file
from luthier.models.kernels.build import has_native_attention
from luthier.objectives.base import Objective
from luthier.planning.answer import answer
from luthier.planning.choose import applied
from luthier.planning.config import read_config
from luthier.planning.levers import written_keys
from luthier.planning.question import Question
from luthier.planning.workload import workload_of
from luthier.rows.types import Encoded
from luthier.training.engine.families import FAMILIES
from luthier.verbs.workbench import Workbench

PLAN = "plan.json"
_SAME_TRAINED = 2  # tiers up to here train the same weights


@dataclass(frozen=True)
class Fitted:
    """What training goes by.

    Attributes:
        settings: that were chosen, as dotted keys; {} if nothing had to change.
        predicted_peak_bytes: of one process; None if it cannot be told.
        baseline_bytes: of the process before the model is loaded.
    """

    settings: dict[str, Any]
    predicted_peak_bytes: int | None
    baseline_bytes: int


def fit(bench: Workbench, objective: Objective, rows: Sequence[Encoded], run: Path, processes: int = 1) -> Fitted:
    """Return settings that fit, and what they will need.

    Raises:
        BadInput: there are no rows, or the model cannot be planned although there is a budget to keep.
        Refused: nothing fits; the smallest that was found is named.
    """
    if not rows:
        raise BadInput(
            "there are no rows to train on", where=str(bench.task.path), fix="`luthier check` shows what became of them"
        )
    spec = bench.spec.train
    kept = read_json_file(run / PLAN) if (run / PLAN).is_file() else None
    if kept is not None:
        spec = applied(spec, kept["settings"])
    question = _question(bench, spec, objective, rows, processes)
    try:
        result = answer(question)
    except BadInput:
        if bench.spec.budget.memory is not None:
            raise
        return _untold(bench)  # a plug-in's model or adapter that has no form without memory trains all the same
    settings: dict[str, Any] = kept["settings"] if kept is not None else {}
    written_bytes = result.peak_bytes
    if kept is None and result.fits is False and bench.spec.budget.choose:
        result = answer(replace(question, look_around=True))
        settings = result.choice
        if result.fits:
            _refuse_what_only_a_person_wants(result, spec)
    if result.fits is False and kept is None:
        _refuse(written_bytes, result.limit_bytes or 0, result.limit_source, result.smallest_bytes)
    write_json(run / PLAN, {"settings": settings, "predicted_peak_bytes": result.peak_bytes})
    if settings:
        said = ", ".join(f"{key}: {value}" for key, value in settings.items())
        bench.tell({"kind": "warning", "text": f"to keep {result.limit_source}, training goes with {said}"})
    gc.collect()
    baseline = here_bytes(question.device)
    predicted = result.peak_bytes - result.baseline_bytes + baseline
    bench.tell({"kind": "plan", "peak_bytes": predicted, "step_s": result.step_s, "total_s": result.total_s})
    return Fitted(settings, predicted, baseline)


def shares_beginnings(spec: TrainSpec, family: str) -> bool:
    """Whether training would compute common beginnings of rows once."""
    native = has_native_attention() and spec.precision == "bf16" and spec.base != "fp32"
    return spec.prefix_sharing and native and family in FAMILIES and spec.neftune_alpha is None


def _question(
    bench: Workbench, spec: TrainSpec, objective: Objective, rows: Sequence[Encoded], processes: int
) -> Question:
    """Return what is asked about this training on this machine."""
    device = this_device(measure=bench.spec.budget.memory is not None)
    limit, source = _limit(bench, device, processes)
    return replace(
        task_question(bench.with_train(spec), objective, rows, _share_of(device, processes), here_bytes(device)),
        limit_bytes=limit,
        limit_source=source,
        devices=processes,
        look_around=False,
    )


def task_question(
    bench: Workbench, objective: Objective, rows: Sequence[Encoded], device: Device, baseline_bytes: int
) -> Question:
    """Return what is asked about a task on a device, as its file says, without a limit of memory."""
    spec = bench.spec.train
    config, _ = read_config(str(bench.found.folder), tell=bench.tell, encoders=objective.answers == "label")
    is_shifted = bench.spec.context is not None and bench.spec.context.shifted
    shares = device.kind == "cpu" and shares_beginnings(spec, config.model_type) and not is_shifted
    return Question(
        name=bench.spec.model,
        config=config,
        spec=spec,
        method="qlora" if spec.adapter.kind == "lora" and spec.base == "nf4" else spec.adapter.kind,
        load=lambda of: workload_of(rows, of, shares=shares),
        device=device,
        baseline_bytes=baseline_bytes,
        time_limit_s=seconds_of(bench.spec.budget.time) if bench.spec.budget.time else None,
        objective=objective,
        task=bench.spec.name,
    )


def here_bytes(device: Device) -> int:
    """Return what there is before the model on this machine's device: this process, or the GPU's runtime."""
    return resident_bytes() if device.kind in ("cpu", "apple") else device.overhead_bytes


def _limit(bench: Workbench, device: Device, processes: int) -> tuple[int | None, str]:
    if bench.spec.budget.memory is not None:
        return bytes_of(bench.spec.budget.memory), "budget.memory"
    if device.memory_bytes is None:
        return None, ""
    sharing = _sharing(device, processes)
    shared = f", shared by {sharing} processes" if sharing > 1 else ""
    return device.memory_bytes // sharing, f"this machine's memory{shared}"


def _sharing(device: Device, processes: int) -> int:
    """Return how many processes are on one device: those of a machine share its processor, and each has its own GPU."""
    own = device.kind not in ("cpu", "apple")
    return 1 if own else min(processes, int(os.environ.get("LOCAL_WORLD_SIZE", processes)))


def _share_of(device: Device, processes: int) -> Device:
    """Return what one process has of the device; on one processor they exchange through its memory."""
    sharing = _sharing(device, processes)
    if sharing == 1:
        return device
    return replace(
        device,
        bandwidth_bytes_s=device.bandwidth_bytes_s / sharing,
        peak_flops_s={name: speed / sharing for name, speed in device.peak_flops_s.items()},
        link_bytes_s=device.link_bytes_s or device.bandwidth_bytes_s / sharing,
    )


def _untold(bench: Workbench) -> Fitted:
    bench.tell({"kind": "warning", "text": "the memory of this training cannot be predicted"})
    return Fitted({}, None, resident_bytes())


def _refuse(peak: int, limit: int, source: str, smallest: int | None) -> None:
    least = f"; the smallest that was found needs {exact_size(smallest)}" if smallest else ""
    raise Refused(
        f"training would need {exact_size(peak)}, more than {exact_size(limit)} ({source}){least}",
        fix="`luthier plan` shows what each setting saves; raise the budget, or change the model or the settings",
    )


def _refuse_what_only_a_person_wants(result: PlanResult, spec: TrainSpec) -> None:
    """Refuse to train something else than the task file says, or with other settings than it sets."""
    limit = f"{exact_size(result.limit_bytes or 0)} ({result.limit_source})"
    fix = "add " + " ".join(f"--set {key}={json.dumps(value)}" for key, value in result.choice.items())
    if result.choice_tier > _SAME_TRAINED:
        raise Refused(f"training fits into {limit} only if something else is trained", fix=fix)
    if overridden := sorted(result.choice.keys() & written_keys(spec)):
        said = ", ".join(overridden)
        raise Refused(f"training fits into {limit} only if what the task file sets is changed ({said})", fix=fix)
