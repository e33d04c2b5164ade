"""One call of the command line: where words go, how errors are told, which code it exits with.

with session(json=True, quiet=False, debug=False) as here:
    here.show(result, view)
"""

from __future__ import annotations

import contextlib
import json as json_module
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from luthier.ground.errors import BadInput, Interrupted, LuthierError
from luthier.ground.events import Tell, silent
from luthier.training.parallel.launch import as_worker, is_worker

if TYPE_CHECKING:
    from pydantic import BaseModel

R = TypeVar("R", bound="BaseModel")


class Session:
    """What a command needs of its surroundings."""

    def __init__(self, json: bool, tell: Tell) -> None:
        self.json = json
        self.tell = tell
        self.exit_code = 0

    def show(self, result: R, view: Callable[[R], Any]) -> None:
        """Print a result: as one JSON object, or as its view; of many processes the first speaks."""
        if _rank():
            return
        if self.json:
            print(result.model_dump_json())
            return
        from rich.console import Console

        Console(highlight=False).print(view(result))

    def print_json(self, value: Any) -> None:
        """Print one JSON value."""
        print(json_module.dumps(value, indent=1, ensure_ascii=False))


@contextlib.contextmanager
def session(json: bool, quiet: bool, debug: bool) -> Iterator[Session]:
    """Run a command: progress to standard error, errors as one sentence there, and the right exit code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    signal.signal(signal.SIGTERM, _terminated)
    here = Session(json, silent)
    with contextlib.ExitStack() as stack:
        if (parent := as_worker()) is not None:
            here.tell = parent
        elif not quiet and not _rank():
            here.tell = stack.enter_context(_progress())
        try:
            yield here
            sys.stdout.flush()
        except LuthierError as error:
            stack.close()
            _fail(str(error), error.exit_code, debug)
        except KeyboardInterrupt:
            stack.close()
            _fail("interrupted; what was finished before is kept.", 130, debug)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except typer.Exit:
            raise
        except Exception as error:  # the last resort: a fault of Luthier itself, still told in one sentence
            stack.close()
            name = type(error).__name__
            _fail(f"this is a fault in Luthier: {name}: {error}; run again with --debug to see where.", 2, debug)
    raise typer.Exit(here.exit_code)


def _terminated(number: int, _frame: FrameType | None) -> None:
    raise Interrupted("terminated; what was finished before is kept", signal_number=number)


@contextlib.contextmanager
def _progress() -> Iterator[Tell]:
    from luthier.cli.progress import progress

    with progress() as tell:
        yield tell


def _fail(sentence: str, code: int, debug: bool) -> None:
    if debug:
        raise
    if is_worker():
        traceback.print_exc()  # into a file of the parent's, which shows it with `--debug`
    if not _rank() or is_worker() or code == BadInput.exit_code:  # what all refuse together, the first one says
        print(f"luthier: {sentence}", file=sys.stderr)
    raise typer.Exit(code)


def _rank() -> int:
    """Return which process of a group this is (torchrun and `--procs` set RANK)."""
    text = os.environ.get("RANK", "")
    return int(text) if text.isdecimal() else 0
