"""`luthier start FOLDER`: begin from what people have, and write a commented `task.yaml`.

Recognises the shape of the examples, splits them by group without leakage, guesses metric and schema, and explains
every guess in the file. Existing files are never overwritten, and what was found is left as it was.

    start("my-folder").task_file
"""

from __future__ import annotations

from pathlib import Path

from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.ground.files import write_whole
from luthier.ground.results import StartResult
from luthier.ground.task import load_task
from luthier.rows.guess import files_of, guess_task
from luthier.rows.guess_yaml import render_task_yaml


def start(folder: str | Path, *, tell: Tell = silent) -> StartResult:
    """Write `task.yaml` (and the splits and the schema that it names) into a folder of examples and documents.

    Args:
        folder: the folder, or one file of examples.

    Raises:
        BadInput: the folder holds nothing to begin from, or a task file already.
    """
    tell({"kind": "stage", "text": f"looking at {folder}"})
    guess = guess_task(Path(folder))
    task_file = guess.folder / "task.yaml"
    files = files_of(guess)
    taken = [path for path in [task_file, *(guess.folder / name for name in files)] if path.exists()]
    if taken:
        raise BadInput(
            "this file is there already and is never overwritten",
            where=str(taken[0]),
            fix="move it away to begin anew, or go on with `luthier check`",
        )
    for name, text in files.items():
        path = guess.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    write_whole(task_file, render_task_yaml(guess))
    load_task(task_file)  # what is written must be readable
    for fault in guess.faults[:5]:
        tell({"kind": "warning", "text": f"{fault.file}:{fault.line}: {fault.message}"})
    for name in guess.left_out:
        tell({"kind": "warning", "text": f"left out: {name}"})
    return StartResult(
        task_file=str(task_file),
        shape=guess.shape,
        guesses=dict(guess.why),
        written=["task.yaml", *files],
        rows={split: len(rows) for split, rows in guess.splits.items()},
    )
