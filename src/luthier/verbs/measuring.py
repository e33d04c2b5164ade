"""`luthier plan --measure`: take the heaviest steps for real, and say how far off the prediction was.

The model is loaded, the adapter put into it and the steps are run exactly as training runs them, in this process; the
weights are thrown away. Nothing is written.

    measured(bench, objective, rows, plan).error
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from luthier.adapters.base import get_kind
from luthier.ground.plan_result import MeasuredPlan, PlanResult
from luthier.ground.words import change, exact_size, seconds
from luthier.machine.memory import PeakMemory, resident_bytes
from luthier.objectives.base import Objective
from luthier.planning.choose import applied
from luthier.planning.workload import heaviest_rows
from luthier.rows.types import Encoded
from luthier.training.batches import PlannedStep, shortest, step_packs
from luthier.training.engine.body import engine_for
from luthier.training.loop import PACK_TOKENS
from luthier.training.parallel.group import SOLO
from luthier.training.parallel.step import make_step
from luthier.training.precision import autocast_of
from luthier.verbs.injection import injected
from luthier.verbs.workbench import Workbench


def measured(bench: Workbench, objective: Objective, rows: Sequence[Encoded], plan: PlanResult) -> MeasuredPlan:
    """Return peak and seconds of the two heaviest steps, and of the heaviest once more."""
    bench = bench.with_train(applied(bench.spec.train, plan.choice))
    spec = bench.spec.train
    heavy = heaviest_rows(rows, spec)
    bench.tell({"kind": "stage", "text": f"measuring {len(heavy) + 1} of the heaviest steps"})
    baseline = resident_bytes()
    with injected(bench, get_kind(spec.adapter.kind), objective, SOLO) as (loaded, trainable, root):
        step = make_step(loaded.model, objective, trainable, spec, autocast_of(spec), SOLO, root, shortest(rows))
        with engine_for(loaded.model, spec, autocast_of(spec)) as engine, PeakMemory() as peak:
            taken = []
            for of_step in [*heavy, heavy[0]]:
                planned = PlannedStep(0, tuple(range(len(of_step))))
                shares = spec.prefix_sharing and engine.shares
                packs = step_packs(of_step, planned, spec.pack_tokens or PACK_TOKENS, shares)
                began = time.perf_counter()
                step.run(packs, 0.0)
                taken.append(time.perf_counter() - began)
            found = peak.bytes
    predicted = plan.peak_bytes - plan.baseline_bytes + baseline
    error = (predicted - baseline) / max(1, found - baseline) - 1
    step_s = statistics.median(taken[1:])
    return MeasuredPlan(
        peak_bytes=found,
        predicted_peak_bytes=predicted,
        error=error,
        baseline_bytes=baseline,
        step_s=step_s,
        predicted_step_s=plan.step_s,
        sentence=f"predicted {exact_size(predicted)}, measured {exact_size(found)} ({change(error)} of what lies above "
        f"the process); predicted {seconds(plan.step_s)} a step, measured {seconds(step_s)}",
    )
