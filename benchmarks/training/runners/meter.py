"""What every runner shares: reading the job, the clock, the memory, and the one line of JSON at the end.

Standard library only, because it runs in every peer's environment. A step's time is the time from the end of the step
before (or from the start of training), so that fetching and collating are in it; loading and saving are not.

    meter = Meter(); ...; meter.start(); ...; meter.step(loss=2.0, grad_norm=1.0); ...; meter.finish(dtype="bf16")
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

RESULT = "RESULT "  # what stands before the line of JSON


class Meter:
    """The job of this process and what it measures."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
        self.options: dict[str, Any] = self.job["options"]
        self.rows = [json.loads(line) for line in Path(self.job["rows"]).read_text().splitlines()]
        self.steps: list[dict[str, Any]] = []
        self.load_s = self.last = 0.0
        self.rss_before_bytes = self.peak_before_bytes = 0

    def examples(self) -> list[list[dict[str, list[int]]]]:
        """Return each step's rows, in order, as ids and labels (-100: no target)."""
        return [[self._example(index) for index in rows] for rows in self.job["steps"]]

    def micro_batches(self) -> tuple[list[list[dict[str, list[int]]]], int]:
        """Return all micro-batches in order, and how many make one step; `grouped` sorts within a step by length."""
        per_step = len(self.job["steps"][0])
        micro = min(self.options.get("micro", per_step), per_step)
        if per_step % micro:
            raise SystemExit(f"micro-batches of {micro} do not divide steps of {per_step} rows")
        batches = []
        for step in self.examples():
            rows = sorted(step, key=lambda row: -len(row["input_ids"])) if self.options.get("grouped") else step
            batches += [rows[start : start + micro] for start in range(0, len(rows), micro)]
        return batches, per_step // micro

    def start(self) -> None:
        """Training begins now."""
        self.load_s = time.perf_counter() - self.began
        self.rss_before_bytes, self.peak_before_bytes = resident_bytes(), peak_bytes()
        self.last = time.perf_counter()

    def step(self, loss: float, grad_norm: float | None) -> None:
        """One optimizer step is over."""
        now = time.perf_counter()
        rows = [self.rows[index] for index in self.job["steps"][len(self.steps)]]
        self.steps.append(
            {
                "loss": float(loss),
                "grad_norm": None if grad_norm is None else float(grad_norm),
                "seconds": now - self.last,
                "tokens": sum(len(row["ids"]) for row in rows),
                "targets": sum(sum(row["target"]) for row in rows),
            }
        )
        self.peak_after_bytes = max(self.peak_before_bytes, peak_bytes())
        said = f"step {len(self.steps)}/{len(self.job['steps'])}  loss {loss:.4f}  {now - self.last:.1f} s"
        print(said, file=sys.stderr)
        self.last = time.perf_counter()

    def finish(self, *, dtype: str, packages: tuple[str, ...] = (), **more: Any) -> None:
        """Print the result, the last line of standard output."""
        if len(self.steps) != len(self.job["steps"]):
            raise SystemExit(f"{len(self.steps)} steps were taken instead of {len(self.job['steps'])}")
        versions = {"python": platform.python_version()}
        versions |= {name: metadata.version(name) for name in ("torch", *packages)}
        result = {
            "steps": self.steps,
            "load_s": self.load_s,
            "rss_before_bytes": self.rss_before_bytes,
            "peak_rss_bytes": self.peak_after_bytes,
            "dtype": dtype,
            "versions": versions,
            **more,
        }
        print(RESULT + json.dumps(result), flush=True)

    def _example(self, index: int) -> dict[str, list[int]]:
        row = self.rows[index]
        labels = [token if is_target else -100 for token, is_target in zip(row["ids"], row["target"], strict=True)]
        return {"input_ids": row["ids"], "labels": labels}


def peak_bytes() -> int:
    """Return the highest resident size of this process so far.

    `VmHWM` is what `ru_maxrss` tells, without the parent's size that a child's `ru_maxrss` begins with.
    """
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def resident_bytes() -> int:
    """Return the resident size of this process now (0 where the system does not tell)."""
    return _status("VmRSS")


def _status(key: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":")), 0)
