"""The whole way on one task: check, index, prompt, train, compare, advise, report. `--full` takes every row.

    python examples/tickets/quickstart.py [--full]

By default it trains on a sample and tests on a sample, so that it ends within ten minutes on two cores; the page says
so. Everything it makes lies under `runs/` beside this file.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console

import luthier as lu
from luthier.cli.progress import progress
from luthier.reports.terminal import advice_view, check_view, compare_view, index_view, prompt_view

TASK = Path(__file__).resolve().parent / "task.yaml"
SAMPLE = ["data.sample.train=240", "data.sample.dev=24", "data.sample.test=60"]


def main(full: bool) -> None:
    """Run every verb on the tickets task and print what each found."""
    console = Console(highlight=False)
    began = time.monotonic()
    task = lu.load_task(TASK, [] if full else SAMPLE)
    with progress() as tell:
        console.rule("Is the data what we think it is?  luthier check")
        console.print(check_view(lu.check(task, tell=tell)))
        console.rule("Where do the facts stand?  luthier index")
        console.print(index_view(lu.index(task, tell=tell)))
        console.rule("Is a better prompt enough?  luthier prompt")
        console.print(prompt_view(lu.prompt(task, tell=tell)))
        console.rule("Does finetuning help?  luthier compare (trains both adapters)")
        console.print(compare_view(lu.compare(task, tell=tell)))
        console.rule("What next?  luthier advise")
        console.print(advice_view(lu.advise(task, tell=tell)))
        page = lu.report(task, tell=tell).page
    console.rule()
    console.print(f"{time.monotonic() - began:.0f} s. The page: {page}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main("--full" in sys.argv[1:]))
