"""Train with Luthier: the very loop that `luthier train` runs, without dev rows, saved once at the end.

Afterwards the matrix products of one more step are replayed, for the share of the ceiling (`ceiling.py`).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.training.runners.meter import Meter

meter = Meter()

import numpy as np  # noqa: E402

from benchmarks.training.prepare import train_spec  # noqa: E402
from benchmarks.training.runners.ceiling import measure_ceiling  # noqa: E402
from benchmarks.training.workloads import WORKLOADS, Workload  # noqa: E402
from luthier.adapters.base import get_kind  # noqa: E402
from luthier.ground.spec import TrainSpec  # noqa: E402
from luthier.models.find import find_model  # noqa: E402
from luthier.models.load import load_model, stop_ids  # noqa: E402
from luthier.objectives.base import ObjectiveContext, make_objective  # noqa: E402
from luthier.rows.template import Renderer  # noqa: E402
from luthier.rows.types import Encoded  # noqa: E402
from luthier.training.batches import plan_steps  # noqa: E402
from luthier.training.loop import train_rows  # noqa: E402
from luthier.training.precision import autocast_of, base_precision  # noqa: E402


def main() -> None:
    job = meter.job
    workload = WORKLOADS[job["workload"]]
    spec = _spec(workload)
    loaded = load_model(find_model(job["model"]), base_precision(spec))
    objective = make_objective("sft", ObjectiveContext(Renderer(loaded.tokenizer, stop_ids=stop_ids(loaded.found))))
    rows = [Encoded(np.array(row["ids"]), np.array(row["target"], dtype=bool), row["place"]) for row in meter.rows]
    assert [list(planned.rows) for planned in plan_steps([len(row) for row in rows], spec)] == job["steps"]
    kind = get_kind(workload.adapter)
    kind.inject(loaded.model, spec.adapter, seed=spec.seed)

    def train(chosen: list[Encoded], of: Any, tell: Any) -> None:
        with tempfile.TemporaryDirectory(dir=job["work"]) as run:
            train_rows(
                loaded.model,
                objective,
                chosen,
                [],
                of,
                Path(run),
                trainable=kind.trainable(loaded.model),
                save_adapter=lambda folder: kind.save(loaded.model, folder, spec.adapter, loaded.provenance),
                autocast=autocast_of(spec),
                tell=tell,
            )

    def hear(event: dict[str, Any]) -> None:
        if event["kind"] == "step":
            meter.step(event["loss"], event["grad_norm"])

    meter.start()
    train(rows, spec, hear)
    ceiling = None
    if job["ceiling"]:
        middle = _middle_step([[rows[index] for index in step] for step in job["steps"]])
        again = spec.model_copy(update={"epochs": 4, "max_steps": None})
        ceiling = measure_ceiling(lambda tell: train(middle, again, tell), sum(map(len, middle)))
    packages = ("luthier", "transformers", "safetensors")
    dtype = f"{base_precision(spec)} weights, {spec.precision} arithmetic"
    meter.finish(dtype=dtype, packages=packages, ceiling=ceiling)


def _spec(workload: Workload) -> TrainSpec:
    """Return the workload's settings with what the peer's name changes."""
    spec, options = train_spec(workload, len(meter.job["steps"]), meter.job["learning_rate"]), meter.options
    changed: dict[str, Any] = {}
    if options.get("fp32"):
        changed |= {"base": "fp32", "precision": "fp32"}
    if options.get("mixed"):
        changed |= {"base": "fp32"}
    if options.get("noprefix"):
        changed |= {"prefix_sharing": False}
    return spec.model_copy(update=changed)


def _middle_step(steps: list[list[Encoded]]) -> list[Encoded]:
    """Return the step whose tokens are the median."""
    sizes = [sum(map(len, step)) for step in steps]
    return steps[sizes.index(statistics.median_low(sizes))]


if __name__ == "__main__":
    main()
