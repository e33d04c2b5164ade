"""A verb in many processes: start them, or be one of them.

`train_in_processes` starts N processes of the same command and gives back what they came to, as if the work had been
done here. `run_of_all` is the other side: the one run directory that rank 0 opens and all write their share into.

    result = train_in_processes(task, 2, out=None, resume=False, tell=silent)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from luthier.ground.errors import BadInput, Interrupted, LuthierError, Refused
from luthier.ground.events import Tell, silent
from luthier.ground.results import TrainResult
from luthier.ground.task import Task
from luthier.training.parallel.group import Group
from luthier.training.parallel.launch import Ended, launch
from luthier.verbs.runs import Run


def train_in_processes(
    task: Task, procs: int, *, out: str | Path | None, resume: bool, tell: Tell = silent
) -> TrainResult:
    """Run `luthier train` in `procs` processes on this machine and return their result.

    Raises:
        BadInput, Refused, Interrupted: what the processes came to, in the words of the one that speaks for them.
    """
    arguments = ["train", str(task.path), "--json", "--quiet"]
    arguments += [word for override in task.overrides for word in ("--set", override)]
    arguments += ["--out", str(out)] if out is not None else []
    arguments += ["--resume"] if resume else []
    tell({"kind": "stage", "text": f"starting {procs} processes"})
    ended = launch(arguments, procs, tell)
    if ended.exit_code:
        raise _error(ended)
    return TrainResult.model_validate_json(ended.output)


@contextlib.contextmanager
def run_of_all(group: Group, open_here: Callable[[], contextlib.AbstractContextManager[Run]]) -> Iterator[Run]:
    """Yield the run directory that rank 0 opens; only rank 0 tells and finishes it."""
    with contextlib.ExitStack() as stack:
        opened: list[Run] = []

        def open_first() -> str:
            opened.append(stack.enter_context(open_here()))
            return str(opened[0].path)

        path = Path(group.first(open_first))
        yield opened[0] if opened else Run(path, silent)


def _error(ended: Ended) -> LuthierError:
    words = ended.words.removesuffix(".")
    if ended.exit_code > 128:
        error: LuthierError = Interrupted(words, signal_number=ended.exit_code - 128)
    else:
        error = (Refused if ended.exit_code == Refused.exit_code else BadInput)(words)
    error.add_note(ended.errors)  # `--debug` shows it
    return error
