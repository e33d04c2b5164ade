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


def begin_ranks(folder: Path, procs: int, **wanted: Any) -> list[subprocess.Popen[str]]:
    """Start the processes of a run in `folder`."""
    store = Path(tempfile.mkdtemp(prefix="luthier-test-")) / "store"
    return [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), json.dumps(wanted)],
            env=worker_environment(procs, rank, store, {**os.environ, "OMP_NUM_THREADS": "1"}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(procs)
    ]


def end_ranks(processes: list[subprocess.Popen[str]], timeout_s: float = 60.0) -> list[dict[str, Any] | None]:
    """Return each rank's report; None for one that was killed. None may hang or fail without a word."""
    reports: list[dict[str, Any] | None] = []
    for process in processes:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            for other in processes:
                other.kill()
            raise
        assert process.returncode <= 0, err
        reports.append(json.loads(out.splitlines()[-1]) if process.returncode == 0 else None)
    return reports


def run_ranks(folder: Path, procs: int, **wanted: Any) -> list[dict[str, Any]]:
    """Run to the end; all ranks must report."""
    reports = [report for report in end_ranks(begin_ranks(folder, procs, **wanted)) if report is not None]
    assert len(reports) == procs
    return reports
