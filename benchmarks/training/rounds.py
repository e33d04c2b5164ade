"""Run peers in fresh processes, one after the other, round by round, and keep every result at once.

What a run measures is its runner's affair; here are only processes, the environment they get, and the order.

    result = run_rounds(work, peers, rounds=3, envs=folder, keep=lambda result: ...)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.training.envs import DoesNotInstall, ensure_env, one_line
from benchmarks.training.machine import cores
from benchmarks.training.peers import Peer
from benchmarks.training.runners.meter import RESULT

RUNNERS = Path(__file__).resolve().parent / "runners"
LIMIT_S = 7200


def run_rounds(
    job: dict[str, Any],
    work: Path,
    peers: Sequence[Peer],
    rounds: int,
    envs: Path,
    keep: Callable[[Any], None],
    once: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return all runs; `keep` gets them after each. Round 1 runs every peer, then round 2 every peer, and so on.

    Args:
        once: names of peers that run in the first round only.
    """
    pythons = {peer.name: _python(peer, envs) for peer in peers}
    runs: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for number in range(rounds):
        for peer in peers:
            python = pythons[peer.name]
            if isinstance(python, str):
                failed[peer.name] = python
            if number and (peer.name in failed or peer.name in once):
                continue
            print(f"round {number + 1}/{rounds}  {peer.name}", file=sys.stderr)
            run = {"failed": failed[peer.name]} if peer.name in failed else _run(job, work, peer, Path(python))
            if "failed" in run:
                failed[peer.name] = run["failed"]
                print(f"  {run['failed']}", file=sys.stderr)
            runs.append({"peer": peer.name, "round": number, **run})
            keep(runs)
    return runs


def _python(peer: Peer, envs: Path) -> Path | str:
    """Return the Python that runs a peer, or why there is none."""
    if peer.tool.env is None:
        return Path(sys.executable)
    try:
        return ensure_env(peer.tool.env, envs)
    except DoesNotInstall as error:
        return f"does not install: {error}"


def _run(job: dict[str, Any], work: Path, peer: Peer, python: Path) -> dict[str, Any]:
    file = work / "run.json"
    file.write_text(json.dumps({**job, "options": peer.options, "work": str(work)}))
    command = [str(python), str(RUNNERS / peer.tool.runner), str(file)]
    began = time.perf_counter()
    with open(work / "output.txt", "w+") as output, open(work / "errors.txt", "w+") as errors:
        try:
            done = subprocess.run(command, stdout=output, stderr=errors, env=_environment(), timeout=LIMIT_S, cwd=work)
        except subprocess.TimeoutExpired:
            return {"failed": f"took longer than {LIMIT_S} s"}
    lines = [line for line in (work / "output.txt").read_text().splitlines() if line.startswith(RESULT)]
    if done.returncode or not lines:
        why = (
            f"killed by signal {-done.returncode}"
            if done.returncode < 0
            else one_line((work / "errors.txt").read_text())
        )
        return {"failed": f"does not run: {why}"}
    return {**json.loads(lines[-1].removeprefix(RESULT)), "process_s": time.perf_counter() - began}


def _environment() -> dict[str, str]:
    """Return the environment of every run: all cores, no network, no trackers, each tool's own way of waiting."""
    threads = str(cores())
    dropped = ("PYTHONPATH", "VIRTUAL_ENV", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT", "MALLOC_ARENA_MAX")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return kept | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "WANDB_MODE": "disabled",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
        "CUDA_VISIBLE_DEVICES": "",
    }
