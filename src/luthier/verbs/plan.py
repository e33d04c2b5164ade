"""`luthier plan`: what will it need, what fits, how long, at what price?

For a task the rows are read and encoded, so that the heaviest step is a real one; free-hand a model, a method and sizes
are enough. No weights are read. With `measure` two of the heaviest steps are taken and held against the prediction.

    plan("task.yaml").fits; plan(model="meta-llama/Llama-3.1-70B", method="qlora", hardware=Hardware("H100")).sentence
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from luthier.adapters.base import ADAPTERS, get_kind
from luthier.ground.errors import BadInput, nearest
from luthier.ground.events import Tell, silent
from luthier.ground.plan_result import BreakEven, PlanResult
from luthier.ground.results import PromptResult
from luthier.ground.spec import TrainSpec
from luthier.ground.task import Task, load_task
from luthier.ground.units import bytes_of
from luthier.machine.catalogue import Device, find_device
from luthier.machine.here import this_device
from luthier.machine.prices import price_of
from luthier.planning.answer import answer, prompt_tokens_per_s
from luthier.planning.config import is_encoder_decoder, read_config
from luthier.planning.cost import break_even
from luthier.planning.question import Question
from luthier.planning.workload import made_up
from luthier.rows.types import Encoded
from luthier.training.optimizers.base import OPTIMIZERS
from luthier.verbs.encoding import encoded_split
from luthier.verbs.fitting import here_bytes, task_question
from luthier.verbs.measuring import measured
from luthier.verbs.runs import find_run, open_run
from luthier.verbs.workbench import Workbench

METHODS = ("lora", "qlora", "full", "inference")
ELSEWHERE_BYTES = 530_000_000  # of Luthier's process after its imports, on another machine's processor: measured here


@dataclass(frozen=True)
class Hardware:
    """On what, and within which limits.

    Attributes:
        device: a name of the catalogue; None: this machine.
        devices: how many of them.
        strategy: of several devices; None: the task's, or ddp.
        memory: what may be used of one, such as 3GB; None: the task's budget, else the device's memory.
        prices: a price list of one's own.
    """

    device: str | None = None
    devices: int = 1
    strategy: Literal["ddp", "fsdp"] | None = None
    memory: str | None = None
    prices: Path | None = None


def plan(
    task: Task | str | Path | None = None,
    *,
    model: str | None = None,
    method: str = "lora",
    seq: int = 1024,
    batch: int = 8,
    targets: float = 1.0,
    settings: Mapping[str, Any] | None = None,
    hardware: Hardware | None = None,
    measure: bool = False,
    out: str | Path | None = None,
    tell: Tell = silent,
) -> PlanResult:
    """Plan a task, or a model free-hand.

    Args:
        task: the task; the arguments from `model` to `settings` are then not used.
        model: a preset, hub id, folder, GGUF file or config.json.
        method: lora, qlora (lora on `base: nf4`), full, inference, or another adapter kind.
        seq, batch: tokens of a row, and rows of a step (or of an answered batch).
        targets: share of the tokens that are trained.
        settings: keys under `train` (without the prefix) and their values.
        measure: take two of the task's heaviest steps, and say how far off the prediction is.
        out: the run directory; only with a task.

    Raises:
        BadInput: neither or both of task and model, an unknown model, device or method, or settings that do not go
            together.
    """
    if (task is None) == (model is None):
        raise BadInput("a plan is for a task or for a model", fix="name a task file, or --model, and not both")
    hardware = hardware or Hardware()
    began = time.perf_counter()
    if task is None:
        if measure or out is not None:
            raise BadInput(
                "--measure and --out need a task: a free-hand plan makes no run", fix="name a task, or leave them away"
            )
        result = _free_hand(str(model), method, seq, batch, targets, settings or {}, hardware, tell)
        return result.model_copy(update={"seconds": time.perf_counter() - began})
    if measure and (hardware.device is not None or hardware.devices > 1):
        raise BadInput("--measure measures this machine alone", fix="leave --device and --devices away")
    task = task if isinstance(task, Task) else load_task(task)
    with open_run(task, "plan", out, tell) as run:
        bench = Workbench(task, run.tell)
        result = _of_task(bench, str(run.path), hardware, measure)
        result = result.model_copy(update={"seconds": time.perf_counter() - began})
        run.finish(result)
    return result


# -- a task --------------------------------------------------------------------------------------------------------


def _of_task(bench: Workbench, run: str, hardware: Hardware, measure: bool) -> PlanResult:
    bench = bench.with_train(_shared(bench.spec.train, hardware))
    spec = bench.spec.train
    OPTIMIZERS.get(spec.optimizer)
    get_kind(spec.adapter.kind)
    objective = bench.objective
    rows = encoded_split(bench, objective, "train", spec.passages, bench.tell)
    if not len(rows):
        raise BadInput(
            "there are no rows to plan for", where=str(bench.task.path), fix="`luthier check` shows the rows"
        )
    device = _device(hardware, bench.tell)
    limit, source = _limit(hardware, bench.spec.budget.memory, device)
    bench.tell({"kind": "stage", "text": "tracing the heaviest step, and others to compare"})
    question = replace(
        task_question(bench, objective, rows, device, _baseline(device, hardware)),
        limit_bytes=limit,
        limit_source=source,
        devices=hardware.devices,
        prices=hardware.prices,
        run=run,
    )
    result = answer(question)
    result = result.model_copy(update={"break_even": _break_even(bench, rows, result, question)})
    if measure:
        found = measured(bench, objective, rows, result)
        result = result.model_copy(update={"measured": found})
    return result


def _break_even(bench: Workbench, rows: Sequence[Encoded], result: PlanResult, question: Question) -> BreakEven | None:
    """Return when shorter prompts have repaid the training; None before a prompt was chosen."""
    found = find_run(bench.task, "prompt", PromptResult)
    before = next((arm.prompt_tokens for arm in found[1].arms if arm.chosen), None) if found else None
    if before is None or result.total_s is None:
        return None
    after = sum(len(row) - row.target_tokens for row in rows) / len(rows)
    endpoint, rent = bench.spec.endpoint, price_of(question.device, question.prices)
    return break_even(
        before,
        after,
        endpoint.prompt_price if endpoint else 0.0,
        result.cost.price or 0.0 if result.cost else 0.0,
        currency=rent.currency if rent else "USD",
        prompt_tokens_per_s=prompt_tokens_per_s(question, max(1, round(before))),
        training_s=result.total_s,
    )


# -- free-hand -----------------------------------------------------------------------------------------------------


def _free_hand(
    name: str,
    method: str,
    seq: int,
    batch: int,
    targets: float,
    settings: Mapping[str, Any],
    hardware: Hardware,
    tell: Tell,
) -> PlanResult:
    spec = _shared(_spec_of(method, batch, settings), hardware)
    OPTIMIZERS.get(spec.optimizer)
    device = _device(hardware, tell)
    tell({"kind": "stage", "text": f"reading the config of {name}"})
    config, architecture = read_config(name, tell=tell)
    limit, source = _limit(hardware, None, device)
    tell({"kind": "stage", "text": f"tracing {architecture}"})
    has_encoder = is_encoder_decoder(config)
    return answer(
        Question(
            name=name,
            config=config,
            spec=spec,
            method=method,
            load=lambda of: made_up(seq, of.rows_per_step or batch, of, targets=targets, has_encoder=has_encoder),
            device=device,
            baseline_bytes=_baseline(device, hardware),
            limit_bytes=limit,
            limit_source=source,
            devices=hardware.devices,
            prices=hardware.prices,
        )
    )


def _spec_of(method: str, batch: int, settings: Mapping[str, Any]) -> TrainSpec:
    kinds = [*METHODS, *(kind for kind in ADAPTERS.names() if kind not in METHODS)]
    if method not in kinds:
        raise BadInput(f'there is no method "{method}"{nearest(method, kinds)}', fix=f"choose {', '.join(kinds)}")
    values: dict[str, Any] = {"rows_per_step": batch, **settings}
    adapter = values.pop("adapter", {})
    if not isinstance(adapter, dict):
        raise BadInput(
            f"this is a mapping of keys to values, not {adapter!r}", where="train.adapter", fix="set its keys"
        )
    if "kind" in adapter:
        raise BadInput("free-hand the method names the adapter", where="train.adapter.kind", fix="give --method")
    adapter = {"kind": "lora" if method in ("qlora", "inference") else method, **adapter}
    if method == "qlora":
        values.setdefault("base", "nf4")
    try:
        return TrainSpec.model_validate({**values, "adapter": adapter})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("train", *first["loc"]))
        what = str(first["msg"]).removeprefix("Value error, ")
        raise BadInput(what[:1].lower() + what[1:], where=where, fix="change the options") from None


# -- the device ----------------------------------------------------------------------------------------------------


def _shared(spec: TrainSpec, hardware: Hardware) -> TrainSpec:
    return spec.model_copy(update={"strategy": hardware.strategy}) if hardware.strategy else spec


def _device(hardware: Hardware, tell: Tell) -> Device:
    if hardware.device is not None:
        return find_device(hardware.device)
    tell({"kind": "stage", "text": "measuring this machine"})
    return this_device()


def _baseline(device: Device, hardware: Hardware) -> int:
    """Return what there is before the model: this process, or the runtime of another device."""
    if hardware.device is not None and device.kind in ("cpu", "apple"):
        return ELSEWHERE_BYTES
    return here_bytes(device)


def _limit(hardware: Hardware, budget: str | None, device: Device) -> tuple[int | None, str]:
    if hardware.memory is not None:
        return bytes_of(hardware.memory), "--memory"
    if budget is not None:
        return bytes_of(budget), "budget.memory"
    return device.memory_bytes, "" if device.memory_bytes is None else f"memory of {device.name}"
