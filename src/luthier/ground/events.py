"""The event log of a run, and the one channel through which long work tells how far it is.

An event is a flat mapping with a `kind`; a run appends each as one line of `events.jsonl`. Work that takes long gets a
`Tell` and calls it; who listens (a progress bar, the log, nobody) is the caller's affair.

    >>> seen = []
    >>> both(seen.append, silent)({"kind": "step", "step": 1}); seen[0]["step"]
    1
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]
Tell = Callable[[Event], None]


def silent(event: Event) -> None:
    """Tell nobody."""


def both(*listeners: Tell) -> Tell:
    """Tell several listeners, in order."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell


def event_log(path: Path) -> Tell:
    """Return a listener that appends each event, with the time, as one line written by one call."""

    def tell(event: Event) -> None:
        line = json.dumps({"time": round(time.time(), 3), **event}, ensure_ascii=False, default=str) + "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    return tell
