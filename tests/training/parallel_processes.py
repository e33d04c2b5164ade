"""Start `parallel_run.py` in several processes that form a group, and read what each of them reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from luthier.training.parallel.launch import worker_environment

SCRIPT = Path(__file__).with_name("parallel_run.py")
Reports = list[list[dict[str, Any]] | None]  # of each rank, of each run; None for a rank that was killed


def run_ranks(procs: int, *wanted: dict[str, Any], timeout_s: float = 120.0) -> Reports:
    """Do the wanted runs, one after the other, in `procs` processes; none may hang or fail without a word."""
    with tempfile.TemporaryDirectory(prefix="luthier-test-") as folder:
        processes = [_process(Path(folder) / "store", procs, rank, wanted) for rank in range(procs)]
        try:
            ended = [(*process.communicate(timeout=timeout_s), process.returncode) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
    assert all(code <= 0 for *_, code in ended), "\n".join(err for _, err, code in ended if code > 0)
    return [json.loads(out.splitlines()[-1]) if code == 0 else None for out, _, code in ended]


def _process(store: Path, procs: int, rank: int, wanted: tuple[dict[str, Any], ...]) -> subprocess.Popen[str]:
    environment = worker_environment(procs, rank, store, {**os.environ, "OMP_NUM_THREADS": "1"})
    command = [sys.executable, str(SCRIPT), json.dumps(wanted)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
