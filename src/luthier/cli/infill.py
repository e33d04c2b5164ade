"""`luthier infill`: fill a gap in a file.

register(app)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from luthier.cli.session import session
from luthier.ground.errors import BadInput


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(infill)


def infill(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The text; - for standard input.")],
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            metavar="LINE[:COL][-LINE[:COL]]",
            help="Where the gap is (default: where <gap> stands in the text).",
        ),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option("--adapter", metavar="DIR", help="A training run, or its adapter's folder.")
    ] = None,
    task: Annotated[
        Path | None, typer.Option("--task", metavar="TASK", help="Or a task file: its newest training.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The base model; alone, one that has sentinel tokens.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest filling, in tokens.")] = 128,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of a sampled filling.")] = 0,
    whole: Annotated[bool, typer.Option("--whole", help="Print the whole text with the filling in it.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Write what is missing in the middle of a text.

    Prints the filling alone; what stands at the place now is not shown to the model.
    """
    with session(json, quiet, debug) as here:
        import luthier as lu

        result = lu.infill(
            _read(file),
            at=at or (),
            adapter=adapter,
            task=task,
            model=model,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            name="standard input" if str(file) == "-" else str(file),
            tell=here.tell,
        )
        if here.json:
            here.show(result, lambda _: None)
        elif whole:
            sys.stdout.write(result.text)
        else:
            print("\n".join(filling.text for filling in result.fillings))


def _read(file: Path) -> str:
    try:
        if str(file) == "-":
            return sys.stdin.read()
        return file.read_bytes().decode("utf-8")
    except OSError as error:
        raise BadInput(f"this file cannot be read ({error.strerror})", where=str(file)) from None
    except UnicodeDecodeError as error:
        raise BadInput("this file is not UTF-8", where=f"{file}, byte {error.start}", fix="convert it") from None
