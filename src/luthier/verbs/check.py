"""`luthier check`: the data truth sheet, before anything is trained.

Renders, tokenises, masks and decodes back every row, and says whether training would mean anything. Trains nothing.

    result = check("task.yaml"); result.ok
"""

from __future__ import annotations

from pathlib import Path

from luthier.ground.events import Tell, silent
from luthier.ground.results import CheckResult
from luthier.ground.task import Task, load_task
from luthier.verbs.compare import system_names
from luthier.verbs.runs import open_run
from luthier.verbs.workbench import Workbench


def check(task: Task | str | Path, *, out: str | Path | None = None, tell: Tell = silent) -> CheckResult:
    """Check a task's data.

    Returns:
        The truth sheet; `ok` is false, with `reasons`, when training would be meaningless.

    Raises:
        BadInput: the task or a data file cannot be read at all.
    """
    task = task if isinstance(task, Task) else load_task(task)
    with open_run(task, "check", out, tell) as run:
        bench = Workbench(task, run.tell)
        _ = bench.metric, bench.metric_context  # a wrong name or schema is told here, not later
        system_names(task, writes=bench.writes)
        result = bench.sheet
        run.finish(result)
    return result
