"""`luthier classify`: label texts with a trained head.

register(app)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from luthier.cli.session import session


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(classify)


def classify(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="The texts (default: the lines of standard input).")
    ] = None,
    adapter: Annotated[
        Path, typer.Option("--adapter", metavar="DIR", help="The folder that a training by classify wrote.")
    ] = ...,  # type: ignore[assignment]  # typer's way of saying that an option must be given
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The base model (default: as the adapter says).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Which label does a text get from a trained head, and how sure is it?"""
    with session(json, quiet, debug) as here:
        import luthier as lu
        from luthier.reports.classification_section import classify_view

        given = list(texts) if texts else [line for line in sys.stdin.read().splitlines() if line.strip()]
        here.show(lu.classify(given, adapter=adapter, model=model, tell=here.tell), classify_view)
