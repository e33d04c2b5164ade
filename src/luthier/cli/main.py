"""The `luthier` command: parse, call the verb of the same name, print its result.

`--json` prints exactly one JSON object on standard output; progress and words go to standard error. Exit codes: 0 done,
1 a check or gate says no, 2 bad input or environment, 130 or 143 interrupted after a clean save. Nothing heavy is
imported before a verb runs, so that `luthier --help` answers at once.

    luthier check task.yaml --set train.epochs=1 --json
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.cli import classify, infill
from luthier.cli.session import session

if TYPE_CHECKING:
    from luthier.ground.task import Task

app = typer.Typer(
    name="luthier",
    help="Decide whether to finetune a language model, finetune it, and prove that it helped.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

TaskFile = Annotated[Path, typer.Argument(metavar="TASK", help="The task file, such as task.yaml.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the task file.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The run directory (default: a new one).")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
FromRun = Annotated[Path | None, typer.Option("--run", metavar="DIR", help="A compare run (default: the newest).")]


class Strategy(StrEnum):
    """What several devices hold: the whole model each, or shards of it."""

    ddp = "ddp"
    fsdp = "fsdp"


def main() -> None:
    """Run the command line; the console script calls this."""
    app()


def _task(path: Path, overrides: list[str] | None) -> Task:
    from luthier.ground.task import load_task

    return load_task(path, overrides or [])


def _version(wanted: bool) -> None:
    if wanted:
        from luthier import __version__

        typer.echo(f"luthier {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Decide whether to finetune a language model, finetune it, and prove that it helped."""


@app.command()
def doctor(
    task: Annotated[
        Path | None, typer.Argument(metavar="[TASK]", help="A task file: try its model in each precision too.")
    ] = None,
    set_: Set = None,
    out: Out = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again, even if measured within a week.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """What can this machine do, in which precision?

    With a task: what each precision does to its model, on dev rows.
    """
    with session(json, quiet, debug) as here:
        import luthier as lu
        from luthier.reports.terminal_doctor import doctor_view

        if task is None and set_:
            from luthier.ground.errors import BadInput

            raise BadInput("--set needs a task file", fix="name one: luthier doctor task.yaml --set KEY=VALUE")
        read = None if task is None else _task(task, set_)
        here.show(lu.doctor(read, out=out, fresh=fresh, tell=here.tell), doctor_view)


@app.command()
def start(
    folder: Annotated[Path, typer.Argument(help="A folder of examples and documents, or one file of examples.")],
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Begin from a folder: write a commented task.yaml."""
    with session(json, quiet, debug) as here:
        import luthier as lu
        from luthier.reports.terminal import start_view

        here.show(lu.start(folder, tell=here.tell), start_view)


@app.command()
def schema() -> None:
    """Print the JSON schema of task files."""
    with session(True, True, False) as here:
        from luthier.ground.task import json_schema

        here.print_json(json_schema())


@app.command()
def check(
    task: TaskFile, set_: Set = None, out: Out = None, json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Is my data what I think it is?

    Exits 1 when training would be meaningless.
    """
    with session(json, quiet, debug) as here:
        import luthier as lu
        from luthier.reports.terminal import check_view

        result = lu.check(_task(task, set_), out=out, tell=here.tell)
        here.show(result, check_view)
        here.exit_code = 0 if result.ok else 1


@app.command()
def index(
    task: TaskFile, set_: Set = None, out: Out = None, json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Index the task's documents.

    Only changed files are read again.
    """
    with session(json, quiet, debug) as here:
        import luthier as lu
        from luthier.reports.terminal import index_view

        here.show(lu.index(_task(task, set_), out=out, tell=here.tell), index_view)


@app.command()
def search(
    task: TaskFile,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    passages: Annotated[int | None, typer.Option("-k", "--passages", min=1, max=50, help="How many passages.")] = None,
    set_: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find passages in the task's documents."""
    with session(json, quiet, debug) as here:
        import luthier as lu
        from luthier.reports.terminal import search_view

        here.show(lu.search(_task(task, set_), query, passages=passages, tell=here.tell), search_view)


@app.command()
def prompt(
    task: TaskFile, set_: Set = None, out: Out = None, json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Is a better prompt enough?

    Chooses an instruction and worked examples on the dev items.
    """
    with session(json, quiet, debug) as here:
        import luthier as lu
        from luthier.reports.terminal import prompt_view

        here.show(lu.prompt(_task(task, set_), out=out, tell=here.tell), prompt_view)


@app.command()
def plan(
    task: Annotated[Path | None, typer.Argument(metavar="[TASK]", help="A task file; or plan free-hand.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Free-hand: a preset, hub id, folder, GGUF file or config.json.")
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="Free-hand: lora, qlora, full, inference, or an adapter kind.")
    ] = "lora",
    seq: Annotated[int, typer.Option("--seq", min=2, help="Free-hand: tokens of a row.")] = 1024,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Free-hand: rows of a step.")] = 8,
    targets: Annotated[
        float, typer.Option("--targets", min=0.0, max=1.0, help="Free-hand: share of the tokens that is trained.")
    ] = 1.0,
    optimizer: Annotated[str | None, typer.Option("--optimizer", help="As train.optimizer.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="As train.precision.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="As train.base.")] = None,
    checkpointing: Annotated[str | None, typer.Option("--checkpointing", help="As train.checkpointing.")] = None,
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="As train.adapter.rank.")] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", help="A device of the catalogue, such as RTX 4090 (default: this machine)."),
    ] = None,
    devices: Annotated[int, typer.Option("--devices", min=1, help="How many of them.")] = 1,
    strategy: Annotated[
        Strategy | None, typer.Option("--strategy", help="With several devices (default: the task's, or ddp).")
    ] = None,
    memory: Annotated[str | None, typer.Option("--memory", help="What may be used of one device, such as 3GB.")] = None,
    prices: Annotated[Path | None, typer.Option("--prices", metavar="FILE", help="A price list of your own.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Take the heaviest steps, and compare.")] = False,
    set_: Set = None,
    out: Out = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """What will it need, what fits, how long, at what price?

    For a task, or free-hand for any model: `--model meta-llama/Llama-3.1-70B --method qlora --device H100`. No weights
    are read.
    """
    with session(json, quiet, debug) as here:
        import luthier as lu
        from luthier.ground.task import train_values
        from luthier.reports.terminal import plan_view
        from luthier.verbs.plan import Hardware

        levers = {
            "optimizer": optimizer,
            "precision": precision,
            "base": base,
            "checkpointing": checkpointing,
            "adapter.rank": rank,
        }
        overrides = [*(set_ or []), *(f"train.{key}={value}" for key, value in levers.items() if value is not None)]
        result = lu.plan(
            _task(task, overrides) if task else None,
            model=model,
            method=method,
            seq=seq,
            batch=batch,
            targets=targets,
            settings=None if task else train_values(overrides),
            hardware=Hardware(device, devices, strategy.value if strategy else None, memory, prices),
            measure=measure,
            out=out,
            tell=here.tell,
        )
        here.show(result, plan_view)


@app.command()
def train(
    task: TaskFile,
    set_: Set = None,
    out: Out = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out (or the newest); start it if empty.")
    ] = False,
    procs: Annotated[
        int, typer.Option("--procs", metavar="N", min=1, help="Share the work among N processes on this machine.")
    ] = 1,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Finetune the model.

    Ctrl-C once saves and says how to resume.
    """
    with session(json, quiet, debug) as here:
        import luthier as lu
        from luthier.reports.terminal import train_view

        here.show(lu.train(_task(task, set_), out=out, resume=resume, procs=procs, tell=here.tell), train_view)


@app.command()
def compare(
    task: TaskFile, set_: Set = None, out: Out = None, json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Did it help? Compare every system.

    Answers the test items with base, prompt, rag, finetuned and finetuned + rag, training what is not yet trained,
    and compares them on the same items, with intervals.
    """
    with session(json, quiet, debug) as here:
        import luthier as lu
        from luthier.reports.terminal import compare_view

        here.show(lu.compare(_task(task, set_), out=out, tell=here.tell), compare_view)


@app.command()
def advise(
    task: TaskFile,
    set_: Set = None,
    run: FromRun = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """What should I do next?

    Each sentence names its rule, its numbers and the command to run.
    """
    with session(json, quiet, debug) as here:
        import luthier as lu
        from luthier.reports.terminal import advice_view

        here.show(lu.advise(_task(task, set_), run=run, tell=here.tell), advice_view)


@app.command()
def report(
    task: TaskFile,
    set_: Set = None,
    run: FromRun = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The page (default: report.html in the run).")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the evidence as one self-contained page."""
    with session(json, quiet, debug) as here:
        import luthier as lu

        result = lu.report(_task(task, set_), run=run, out=out, tell=here.tell)
        here.show(result, lambda page: f"{page.verdict}\n\n{page.page}  ({page.bytes:,} bytes)")


classify.register(app)
infill.register(app)
