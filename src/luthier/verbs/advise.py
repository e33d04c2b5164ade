"""`luthier advise`: read the evidence and say what to do next.

The evidence is the newest compare run (or the one named) and the data check. Every sentence names its rule, its numbers
and the command to run. Measures nothing itself.

    advise("task.yaml").next
"""

from __future__ import annotations

from pathlib import Path

from luthier.advice.rules import advise as advise_on
from luthier.ground.events import Tell, silent
from luthier.ground.files import expanded
from luthier.ground.results import AdviceResult, CheckResult, CompareResult
from luthier.ground.task import Task, load_task
from luthier.verbs.runs import find_run, read_run
from luthier.verbs.workbench import Workbench


def advise(task: Task | str | Path, *, run: str | Path | None = None, tell: Tell = silent) -> AdviceResult:
    """Advise on a task.

    Args:
        run: a compare run directory (default: the task's newest; without any, the data alone is advised on).

    Raises:
        BadInput: the named run is not an ended compare run.
    """
    task = task if isinstance(task, Task) else load_task(task)
    result = evidence(task, run)
    check: CheckResult | None = result.check if result else None
    if check is None:
        check = Workbench(task, tell).sheet
    return advise_on(result, check, task_file=_shown(task.path))


def evidence(task: Task, run: str | Path | None) -> CompareResult | None:
    """Return the result of the named compare run, or of the task's newest, or None."""
    if run is not None:
        return read_run(expanded(run).resolve(), CompareResult, "compare")
    found = find_run(task, "compare", CompareResult)
    return found[1] if found else None


def _shown(path: Path) -> str:
    """Return the path as a person in this folder would type it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
