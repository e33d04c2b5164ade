"""Trains a tiny model in children that are killed with SIGKILL again and again, then once more to the end.

python killed_run.py FOLDER KILLS SEED     # FOLDER/killed and FOLDER/whole then hold the same run
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tiny_training import tiny_rows, tiny_run, tiny_spec

from luthier.ground.events import event_log
from luthier.training.batches import plan_steps
from luthier.training.checkpoint import saved_steps

SPEC = tiny_spec(epochs=4, save_every=1, keep=2)
LAST = len(plan_steps([len(row) for row in tiny_rows(16)], SPEC))


def main(folder: Path, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    assert os.waitstatus_to_exitcode(os.waitpid(_begin(folder / "whole"), 0)[1]) == 0
    hit = 0
    for _ in range(kills):
        child = _begin(folder / "killed")
        _wait_for_steps(folder / "killed", draw.choice([0, 1, 2]))
        time.sleep(draw.uniform(0.0, 0.04))  # anywhere in the next step, or in the middle of saving
        os.kill(child, signal.SIGKILL)
        hit += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert os.waitstatus_to_exitcode(os.waitpid(_begin(folder / "killed"), 0)[1]) == 0
    events = [json.loads(line) for line in (folder / "killed.jsonl").read_text().splitlines()]
    resumed = sorted({event["step"] for event in events if event["kind"] == "resume"})
    print(json.dumps({"kills": hit, "resumed": resumed}))


def _wait_for_steps(run: Path, more: int) -> None:
    start, deadline = _newest(run), time.monotonic() + 5
    while _newest(run) < min(start + more, LAST) and time.monotonic() < deadline:
        time.sleep(0.001)


def _newest(run: Path) -> int:
    return max(saved_steps(run), default=0)


def _begin(run: Path) -> int:
    """Start a real process that trains, or goes on, in `run`; no thread lives in this one, so it may fork."""
    child = os.fork()
    if child == 0:
        try:
            outcome = tiny_run(run, SPEC, dropout=0.2, resume=True, tell=event_log(run.with_suffix(".jsonl")))
            losses = [[record.step, record.loss, record.grad_norm] for record in outcome.history]
            evals = [record.model_dump() for record in outcome.evals]
            (run / "outcome.json").write_text(json.dumps([losses, evals, outcome.best_step]))
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
