"""`luthier index` and `luthier search`: the task's documents, found by keyword and by meaning.

index("task.yaml"); search("task.yaml", "warranty of the Merlin 7").passages[0].text
"""

from __future__ import annotations

import time
from pathlib import Path

from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.ground.results import IndexResult, SearchResult
from luthier.ground.task import Task, load_task
from luthier.verbs.runs import open_run
from luthier.verbs.workbench import Workbench


def index(task: Task | str | Path, *, out: str | Path | None = None, tell: Tell = silent) -> IndexResult:
    """Bring the index of the task's documents up to date; unchanged files are not read again.

    Raises:
        BadInput: the task names no documents, or the folder is missing or empty.
    """
    task = task if isinstance(task, Task) else load_task(task)
    with open_run(task, "index-log", out, tell) as run:
        result = Workbench(task, run.tell).index
        run.finish(result)
    return result


def search(task: Task | str | Path, query: str, *, passages: int | None = None, tell: Tell = silent) -> SearchResult:
    """Return the passages that the task's retrieval finds for a query, best first.

    Args:
        passages: how many (default: `retrieval.passages`).

    Raises:
        BadInput: the query is empty, or the task names no documents.
    """
    task = task if isinstance(task, Task) else load_task(task)
    if not query.strip():
        raise BadInput(
            "the query is empty", where="search", fix='write for example: luthier search task.yaml "warranty"'
        )
    bench = Workbench(task, tell)
    _ = bench.index
    begin = time.perf_counter()
    found = bench.passages([query], passages)[0]
    return SearchResult(
        query=query, method=bench.spec.retrieval.method, passages=found, seconds=time.perf_counter() - begin
    )
