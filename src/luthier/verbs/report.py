"""`luthier report`: the evidence as one self-contained page.

report("task.yaml").page
"""

from __future__ import annotations

from pathlib import Path

from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.ground.files import expanded
from luthier.ground.plan_result import PlanResult
from luthier.ground.results import ReportResult
from luthier.ground.task import Task, load_task
from luthier.reports.page import write_page
from luthier.verbs.advise import advise, evidence
from luthier.verbs.runs import find_run


def report(
    task: Task | str | Path, *, run: str | Path | None = None, out: str | Path | None = None, tell: Tell = silent
) -> ReportResult:
    """Write the page of a compare run, with the task's newest plan if there is one.

    Args:
        run: a compare run directory (default: the task's newest).
        out: the page (default: `report.html` in the run directory).

    Raises:
        BadInput: there is no ended compare run, or the page cannot be written.
    """
    task = task if isinstance(task, Task) else load_task(task)
    result = evidence(task, run)
    if result is None:
        raise BadInput(
            "nothing has been compared yet", where=str(task.path), fix=f"run `luthier compare {task.path.name}` first"
        )
    page = expanded(out).resolve() if out is not None else Path(result.run) / "report.html"
    plan = find_run(task, "plan", PlanResult)
    return write_page(page, result, advise(task, run=run, tell=tell), plan[1] if plan else None)
