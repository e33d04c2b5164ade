"""Train the same rows with Luthier and with other tools, side by side, and print who is faster, leaner, and as exact.

What is measured and how stands in `benchmarks/README.md`. Standard library only: each tool runs in a process and an
environment of its own, made here on first use.

    python benchmarks/train.py --workload lora --peers luthier,trl,hf --rounds 3 --out lora.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.training.compare import best_of, summarise  # noqa: E402
from benchmarks.training.machine import cores, describe  # noqa: E402
from benchmarks.training.peers import BEST, BEST_PATCHED, DEFAULT, DEFAULT_FULL, EXACT, SEARCH, WORDS, Peer, parse_peer  # noqa: E402
from benchmarks.training.plot import loss_plot  # noqa: E402
from benchmarks.training.rounds import run_rounds  # noqa: E402
from benchmarks.training.tables import markdown_table, notes, terminal_table, write_results  # noqa: E402
from benchmarks.training.workloads import WORKLOADS  # noqa: E402

SEARCH_STEPS = 3
README = ROOT / "benchmarks" / "README.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 0 when it was measured, 2 when it cannot be."""
    args = _arguments(argv)
    if args.readme:
        results = [json.loads(file.read_text(encoding="utf-8")) for file in args.readme]
        README.write_text(write_results(README.read_text(encoding="utf-8"), results), encoding="utf-8")
        return 0
    if not args.data.is_dir():
        print(f"the folder of shared data is not at {args.data}; name it with --data FOLDER", file=sys.stderr)
        return 2
    try:
        names = args.peers.split(",") if args.peers else _default_peers(args.workload)
        for name in [*names, *([args.reference] if args.reference != "none" else [])]:
            if name not in (BEST, BEST_PATCHED):
                parse_peer(name)
    except ValueError as error:
        print(f"--peers: {error}", file=sys.stderr)
        return 2
    for file in (args.out, args.plot):
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="luthier-benchmark-") as work:
        result = measure(args, names, Path(work))
    rows = summarise(result)
    print(terminal_table(rows), *notes(result, rows), "", markdown_table(rows), sep="\n")
    if args.plot:
        args.plot.write_text(loss_plot(rows, args.workload), encoding="utf-8")
    return 0


def _default_peers(workload: str) -> list[str]:
    return list(DEFAULT_FULL if WORKLOADS[workload].adapter == "full" else DEFAULT)


def measure(args: argparse.Namespace, names: Sequence[str], work: Path) -> dict[str, Any]:
    """Prepare the rows, look for TRL's best variants if they are wanted, run all rounds; return the result."""
    job = _prepare(args, work, args.steps)
    result: dict[str, Any] = {
        "workload": args.workload,
        "command": _command(args),
        "date": datetime.date.today().isoformat(),
        "machine": describe(),
        "threads": cores(),
        "rounds": args.rounds,
        "model_is": job["model_is"],
        "totals": job["totals"],
        "steps": job["steps"],
        "learning_rate": job["learning_rate"],
    }
    if args.search:
        result["search"] = _search(args, work)
    else:
        result["search"] = args.best.split(",") if args.best else []
    result["reference"] = None if args.reference == "none" else args.reference
    once = [result["reference"]] if result["reference"] and result["reference"] not in names else []
    chosen = _resolve([*names, *once], result["search"])
    print(f"rows: {job['totals']}", file=sys.stderr)
    print(f"peers: {', '.join(peer.name for peer in chosen)}", file=sys.stderr)

    def keep(runs: list[dict[str, Any]]) -> None:
        result["runs"] = runs
        if args.out:
            args.out.write_text(json.dumps({**result, "summary": summarise(result)}, indent=1), encoding="utf-8")

    run_rounds({**job, "ceiling": not args.no_ceiling}, work, chosen, args.rounds, args.envs, keep, once)
    return result


def _search(args: argparse.Namespace, work: Path) -> list[str]:
    """Run every variant of TRL for a few steps; return the fastest without and with the patch."""
    folder = work / "search"
    folder.mkdir()
    job = _prepare(args, folder, min(SEARCH_STEPS, args.steps or SEARCH_STEPS))
    found: dict[str, list[dict[str, Any]]] = {"runs": []}
    peers = [parse_peer(name) for name in _fitting(SEARCH, WORKLOADS[args.workload].rows_per_step)]
    run_rounds({**job, "ceiling": False}, folder, peers, 1, args.envs, lambda runs: found.update(runs=runs))
    rows = summarise(found)
    print(terminal_table(rows), file=sys.stderr)
    return [name for patched in (False, True) if (name := best_of(rows, patched=patched))]


def _fitting(names: Sequence[str], rows_per_step: int) -> list[str]:
    """Return the variants that differ at this step size: micro-batches must be smaller than a step."""
    fitting = [name for name in names if parse_peer(name).options.get("micro", 1) <= rows_per_step]
    return [name for name in fitting if rows_per_step > 1 or not {"micro", "grouped"} & parse_peer(name).options.keys()]


def _resolve(names: Sequence[str], best: Sequence[str]) -> list[Peer]:
    """Return the peers; `best` and `best-patched` become what was found, and fall away if nothing was."""
    found = {BEST: [name for name in best if "patched" not in name], BEST_PATCHED: [n for n in best if "patched" in n]}
    wanted = [real for name in names for real in found.get(name, [name])]
    return [parse_peer(name) for name in dict.fromkeys(wanted)]


def _prepare(args: argparse.Namespace, work: Path, steps: int | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training.prepare", args.workload, str(args.data.resolve()), str(work)]
    command += ["--steps", str(steps)] if steps else []
    command += ["--learning-rate", str(args.learning_rate)] if args.learning_rate else []
    subprocess.run(command, cwd=ROOT, check=True)
    job: dict[str, Any] = json.loads((work / "job.json").read_text())
    return job


def _command(args: argparse.Namespace) -> str:
    words = ["python", "benchmarks/train.py", "--workload", args.workload, "--rounds", str(args.rounds)]
    words += ["--peers", args.peers] if args.peers else []
    words += ["--learning-rate", str(args.learning_rate)] if args.learning_rate else []
    words += ["--steps", str(args.steps)] if args.steps else []
    words += ["--search"] if args.search else ["--best", args.best] if args.best else []
    words += ["--reference", args.reference] if args.reference != EXACT else []
    return shlex.join(words)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "luthier" / "benchmarks" / "envs"
    options = "; ".join(f"{word}: {says}" for word, says in WORDS.items())
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0] if __doc__ else None,
        epilog=f"A peer is a tool and options, such as trl-bf16-grouped-micro4. {options}; microN: rows a micro-batch.",
    )
    parser.add_argument("--workload", choices=list(WORKLOADS), default="lora")
    parser.add_argument("--peers", help=f"comma-separated (default: {','.join(DEFAULT)})")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, help="of the first step (default: the workload's)")
    parser.add_argument("--steps", type=int, help="optimizer steps (default: one epoch)")
    parser.add_argument(
        "--search", action="store_true", help="find TRL's best variants first, for best and best-patched"
    )
    parser.add_argument("--best", help="TRL's best variants as found before, comma-separated, instead of --search")
    parser.add_argument(
        "--reference", default=EXACT, help="runs once for its curve; none for none (default: %(default)s)"
    )
    parser.add_argument("--no-ceiling", action="store_true", help="do not replay Luthier's matrix products")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--envs", type=Path, default=cache, help="where the tools' environments are kept")
    parser.add_argument("--out", type=Path, help="write everything measured into this JSON file")
    parser.add_argument("--plot", type=Path, help="write the loss curves into this SVG file")
    parser.add_argument("--readme", type=Path, nargs="+", metavar="FILE", help="put results into benchmarks/README.md")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
