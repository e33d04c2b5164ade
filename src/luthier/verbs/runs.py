"""Run directories: the only place that a run writes.

A run is `runs/<verb>-NNN/` beside the task file (or `--out`), with `spec.json`, `lock`, `events.jsonl` and, when it
has ended well, `report.json`. A run without `report.json` did not end.

    with open_run(task, "check", None, silent) as run:
        run.finish(result)
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, both, event_log
from luthier.ground.files import expanded, sweep_drafts, write_json, write_whole
from luthier.ground.locks import folder_lock
from luthier.ground.task import Task

R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class Run:
    """An open run directory: where to write, and whom to tell."""

    path: Path
    tell: Tell

    def finish(self, result: BaseModel) -> None:
        """Write the result as `report.json`, whole: from now on the run counts as ended."""
        write_whole(self.path / "report.json", result.model_dump_json(indent=1) + "\n")


def runs_folder(task: Task) -> Path:
    """Return the folder that holds the task's runs."""
    return task.folder / "runs"


@contextlib.contextmanager
def open_run(
    task: Task, verb: str, out: str | Path | None, tell: Tell, *, key: str = "", resume: bool = False
) -> Iterator[Run]:
    """Make or reopen a run directory, lock it, and log everything told to it.

    Args:
        out: the run directory; None makes the next `runs/<verb>-NNN`.
        key: hash of all that the result depends on; lets a later verb find this run again.
        resume: go on in a run of this verb, ended or not.

    Raises:
        BadInput: another process works in the directory, it holds something else, or it cannot be written.
    """
    path = expanded(out).resolve() if out is not None else _next(runs_folder(task), verb)
    with _writable(path), folder_lock(path):
        _refuse_taken(path, verb, resume)
        sweep_drafts(path)
        (path / "report.json").unlink(missing_ok=True)  # a run that goes on has not ended
        write_json(
            path / "spec.json",
            {
                "verb": verb,
                "key": key,
                "task_file": str(task.path),
                "overrides": list(task.overrides),
                "spec": task.spec.model_dump(mode="json", by_alias=True),
            },
        )
        log = event_log(path / "events.jsonl")
        log({"kind": "begin", "verb": verb})
        yield Run(path, both(tell, log))
        log({"kind": "end", "verb": verb})


def find_run(task: Task, verb: str, kind: type[R], key: str | None = None) -> tuple[Path, R] | None:
    """Return the newest ended run of `verb` (with this key, if one is given) and its result, or None."""
    for path in sorted(runs_folder(task).glob(f"{verb}-*"), key=_number, reverse=True):
        found = _read(path, kind)
        if found is not None and (key is None or _key_of(path) == key):
            return path, found
    return None


def read_run(path: Path, kind: type[R], verb: str) -> R:
    """Return the result in a run directory that a person named.

    Raises:
        BadInput: there is no ended run of this verb.
    """
    found = _read(path, kind)
    if found is None:
        raise BadInput(f"this is not an ended `{verb}` run", where=str(path), fix=f"run `luthier {verb}` first")
    return found


def _read(path: Path, kind: type[R]) -> R | None:
    with contextlib.suppress(OSError, ValidationError, ValueError):
        return kind.model_validate_json((path / "report.json").read_text(encoding="utf-8"))
    return None


def _key_of(path: Path) -> str:
    match = re.search(r'"key": "([0-9a-f]*)"', (path / "spec.json").read_text(encoding="utf-8"))
    return match.group(1) if match else ""


def _refuse_taken(path: Path, verb: str, resume: bool) -> None:
    """Refuse a directory that holds another verb's run, an ended run, or no run at all."""
    again = "add --resume, or choose another --out" if verb == "train" else "choose another --out"
    held = _verb_of(path)
    if held is None:
        others = [entry.name for entry in path.iterdir() if entry.name not in ("lock", "events.jsonl")]
        if [name for name in others if not name.startswith(".")]:
            raise BadInput("this folder is not empty and not a run", where=str(path), fix="choose another --out")
    elif held != verb:
        raise BadInput(f"this folder holds a `{held}` run", where=str(path), fix="choose another --out")
    elif (path / "report.json").exists() and not resume:
        raise BadInput("this folder holds an ended run", where=str(path), fix=again)


def _verb_of(path: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((path / "spec.json").read_text(encoding="utf-8"))["verb"])
    return None


def _number(path: Path) -> int:
    digits = re.search(r"-(\d+)$", path.name)
    return int(digits.group(1)) if digits else -1


def _next(folder: Path, verb: str) -> Path:
    taken = [_number(path) for path in folder.glob(f"{verb}-*")]
    return folder / f"{verb}-{max(taken, default=0) + 1:03d}"


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"this run directory cannot be made ({error.strerror})", where=str(path), fix="name another with --out"
        ) from None
    yield
