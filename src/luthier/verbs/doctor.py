"""`luthier doctor`: what can this machine do, in which precision, and, with a task, in which should its model work?

The machine alone takes a few seconds: processor, memory, disk, what is missing, and the precision table, measured. With
a task the model also runs on dev rows in each precision, and the training settings are held to what a precision can
hold; that is a run like any other. Trains nothing.

    doctor().recommendation
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from transformers import PreTrainedModel

from luthier.adapters.peft_format import WEIGHTS
from luthier.advice.precision import precision_warnings, recommend
from luthier.evaluation.precision_risks import (
    StoredAdapter,
    TrainingRisks,
    stored_adapter,
    training_risks,
    weights_range,
)
from luthier.evaluation.precisions import ROWS, load_in, try_precisions
from luthier.ground.cache import cache_root
from luthier.ground.doctor_result import DoctorResult, PrecisionRow, Processor, Warned
from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.ground.results import TrainResult
from luthier.ground.task import Task, load_task
from luthier.machine.catalogue import Device
from luthier.machine.describe import environment, usable_cores
from luthier.machine.features import features
from luthier.machine.here import this_device
from luthier.machine.instructions import instructions
from luthier.machine.limits import memory_free_bytes
from luthier.machine.precisions import precision_table, preferred
from luthier.machine.speed import speeds
from luthier.machine.storage import storage
from luthier.models.kernels.build import has_native_attention, library
from luthier.models.load import Precision, load_model
from luthier.models.quantized import QuantizedKind
from luthier.objectives.base import Objective
from luthier.rows.lengths import fit_length
from luthier.rows.types import Encoded
from luthier.training.precision import base_precision, base_quantized
from luthier.verbs.runs import find_run, open_run, runs_folder
from luthier.verbs.workbench import Split, Workbench

CANDIDATES = ("fp32", "bf16", "fp16", "int8", "nf4")  # in which Luthier can run a model
_QUANTIZED = ("int8", "nf4")

_DISTURBED = Warned(
    rule="M1",
    text="Other programs needed the same cores while this machine was measured: the speeds are too low.",
    fix="run `luthier doctor --fresh` when the machine is quiet",
)

T = TypeVar("T")


def doctor(
    task: Task | str | Path | None = None,
    *,
    out: str | Path | None = None,
    rows: int = ROWS,
    fresh: bool = False,
    tell: Tell = silent,
) -> DoctorResult:
    """Look at the machine, and, with a task, run its model on dev rows in every precision.

    Args:
        out: the run directory; only with a task.
        rows: how many dev rows (train rows where the task names no dev split) are run; at most 16.
        fresh: measure the machine's speeds again, even if they were measured within a week.

    Raises:
        BadInput: there is no row with a target, or `out` is named without a task.
    """
    if task is None:
        if out is not None:
            raise BadInput("--out needs a task: the machine alone makes no run", fix="name a task, or leave --out away")
        return _examine(None, None, rows, fresh, tell)
    task = task if isinstance(task, Task) else load_task(task)
    with open_run(task, "doctor", out, tell) as run:
        result = _examine(Workbench(task, run.tell), str(run.path), rows, fresh, run.tell)
        run.finish(result)
    return result


def _examine(bench: Workbench | None, run: str | None, rows: int, fresh: bool, tell: Tell) -> DoctorResult:
    began = time.perf_counter()
    tell({"kind": "stage", "text": "measuring this machine"})
    measured = speeds(fresh)
    device = this_device()
    table = precision_table(measured, device)
    disturbed = [_DISTURBED] if measured.disturbed else []
    told = _by_machine(table, disturbed) if bench is None else _by_task(bench, table, disturbed, rows, tell)
    places = {"cache": cache_root(), "runs": runs_folder(bench.task) if bench else Path.cwd() / "runs"}
    return DoctorResult(
        processor=_processor(device, measured.bandwidth_bytes_s),
        storage=storage(places),
        precisions=table,
        features=features(gpu=device.kind != "cpu"),
        task=bench.spec.name if bench else None,
        run=run,
        environment=environment(),
        seconds=time.perf_counter() - began,
        **told,
    )


def _by_machine(table: Sequence[PrecisionRow], warnings: list[Warned]) -> dict[str, Any]:
    name, reasons = preferred(table)
    return {
        "rows": 0,
        "trials": [],
        "warnings": warnings,
        "recommendation": name,
        "reasons": reasons,
        "sentence": _sentence(None, name, reasons, warnings),
    }


def _by_task(
    bench: Workbench, table: Sequence[PrecisionRow], disturbed: list[Warned], rows: int, tell: Tell
) -> dict[str, Any]:
    objective = bench.objective
    encoded = _encoded(bench, objective, min(rows, ROWS))
    tell({"kind": "stage", "text": f"looking at the weights of {bench.spec.model}"})
    weights = weights_range(load_in(bench.found, "fp32"), bench.found)
    trials = try_precisions(lambda precision: _in(bench, precision), encoded, CANDIDATES, tell)
    risks = _risks(bench, objective, encoded, tell)
    warnings = disturbed + precision_warnings(trials, table, weights=weights, risks=risks, adapter=_adapter(bench))
    name, reasons = recommend(trials, table, weights)
    return {
        "rows": len(encoded),
        "trials": trials,
        "warnings": warnings,
        "recommendation": name,
        "reasons": reasons,
        "sentence": _sentence(bench.spec.name, name, reasons, warnings),
    }


def _encoded(bench: Workbench, objective: Objective, count: int) -> list[Encoded]:
    """Return at most `count` rows with targets, evenly spread; dev rows, or train rows where there is no dev split.

    Raises:
        BadInput: there is none within `train.max_length`.
    """
    split: Split = "dev" if bench.spec.data.dev else "train"
    rows = _spread(bench.rows(split), 4 * count)  # some may be too long
    limit = bench.spec.train.max_length
    fitted = [fit_length(objective.encode(bench.training_row(row)), limit, "cut_prompt") for row in rows]
    usable = [row for row in fitted if row is not None and row.target_tokens]
    if not usable:
        raise BadInput(
            f"no row of data.{split} has a target within train.max_length: {limit}, so no precision can be tried",
            where=str(bench.task.path),
            fix="look at `luthier check`",
        )
    return _spread(usable, count)


def _spread(rows: Sequence[T], count: int) -> list[T]:
    return list(rows) if len(rows) <= count else [rows[number * len(rows) // count] for number in range(count)]


def _in(bench: Workbench, precision: str) -> PreTrainedModel:
    """Return the base model in a precision; quantised weights are widened to what the task computes in."""
    if precision not in _QUANTIZED:
        return load_in(bench.found, precision)
    wide: Precision = "fp32" if bench.spec.train.precision == "fp32" else "bf16"
    return load_model(bench.found, wide, cast(QuantizedKind, precision)).model


def _risks(bench: Workbench, objective: Objective, encoded: Sequence[Encoded], tell: Tell) -> TrainingRisks:
    spec = bench.spec.train
    tell({"kind": "stage", "text": f"one backward with train.precision: {spec.precision}"})
    model = load_model(bench.found, base_precision(spec), base_quantized(spec)).model
    return training_risks(model, objective, encoded, spec)


def _adapter(bench: Workbench) -> StoredAdapter | None:
    """Return how the newest adapter of the task is stored, if there is one."""
    found = find_run(bench.task, "train", TrainResult)
    folder = Path(found[1].adapter) if found else None
    if folder is None or not (folder / WEIGHTS).is_file():
        return None
    return stored_adapter(folder, bench.spec.train.learning_rate)


def _processor(device: Device, bandwidth_bytes_s: float) -> Processor:
    gpu = device.kind == "gpu"
    return Processor(
        name=device.name,
        kind="gpu" if gpu else "apple" if device.kind == "apple" else "cpu",
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        instructions=list(instructions()),
        memory_bytes=device.memory_bytes or 0,
        memory_free_bytes=int(torch.cuda.mem_get_info()[0]) if gpu else memory_free_bytes(),
        bandwidth_bytes_s=bandwidth_bytes_s,
        kernels=_kernels(),
    )


def _kernels() -> str:
    if library() is None:
        return "plain"
    return "native" if has_native_attention() else "partly native"


def _sentence(task: str | None, name: str, reasons: Sequence[str], warnings: Sequence[Warned]) -> str:
    why = reasons[0].removeprefix(f"{name}: ").removesuffix(".") if reasons else ""
    head = f"{task}: work in {name}" if task else f"Work in {name} here"
    tail = f"; {len(warnings)} warning{'s' if len(warnings) > 1 else ''} below" if warnings else ""
    return f"{head}: {why}{tail}." if why else f"{head}{tail}."
