"""Progress on standard error, from the events that verbs tell.

On a terminal, a stage is a spinner and a long one a bar with loss, tokens per second, memory and time left; elsewhere
(a log file, CI) a line a stage and one a few steps.

    with progress() as tell: tell({"kind": "stage", "text": "loading"})
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from luthier.ground.events import Event, Tell

_LINE_EVERY_S = 10.0


@contextlib.contextmanager
def progress() -> Iterator[Tell]:
    """Yield a listener that shows events until the block ends."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _Lines(console)
        return
    with _Bars(console) as bars:
        yield bars


def step_words(event: Event) -> str:
    """Return a training step in words: loss, speed, memory, time left."""
    eta_s = float(event.get("eta_s") or 0.0)
    return (
        f"loss {float(event['loss']):.3f} · {float(event['tokens_per_s']):,.0f} tokens/s · "
        f"{float(event['memory_bytes']) / 1e9:.1f} GB · {_clock(eta_s)} left"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


class _Lines:
    """One line a stage, and one every ten seconds of a long one."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last = 0.0

    def __call__(self, event: Event) -> None:
        words = _words(event)
        if words is None:
            return
        now = time.monotonic()
        counted = event["kind"] in ("step", "answers")
        done = counted and event.get("step", event.get("done")) == event.get("total")
        if counted and not done and now - self.last < _LINE_EVERY_S:
            return
        self.last = now
        self.console.print(words, markup=False)


class _Bars:
    """A spinner for the stage, and a bar for what is counted."""

    def __init__(self, console: Console) -> None:
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[words]}", markup=False),
            console=console,
            transient=True,
        )
        self.stage = "working"
        self.row = self.bars.add_task(self.stage, total=None, words="")

    def __enter__(self) -> _Bars:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def __call__(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "stage":
            self.bars.remove_task(self.row)
            self.stage = str(event["text"])
            self.row = self.bars.add_task(self.stage, total=None, words="")
        elif kind == "step":
            self.bars.update(self.row, completed=event["step"], total=event["total"], words=step_words(event))
        elif kind in ("answers", "embed"):
            self.bars.update(self.row, completed=event["done"], total=event["total"], words="")
        elif (words := _words(event)) is not None:
            self.bars.console.print(words, markup=False)


def _words(event: Event) -> str | None:
    kind = event["kind"]
    if "text" in event:
        return f"· {event['text']}"
    if kind == "resume":
        return f"· going on from step {event['step']} of {event['total']}"
    if kind == "step":
        return f"  step {event['step']}/{event['total']} · {step_words(event)}"
    if kind == "eval" and event.get("dev_loss") is not None:
        return f"  step {event['step']}: dev loss {float(event['dev_loss']):.3f}"
    if kind == "answers":
        return f"  {event['done']}/{event['total']} answers"
    if kind == "prompt":
        return f"  prompt {event['done']}/{event['total']}: {100 * float(event['score']):.1f}% right on dev"
    return None
