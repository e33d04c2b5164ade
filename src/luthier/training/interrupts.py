"""Ctrl-C and SIGTERM as a wish that the loop reads between steps; the second one leaves at once.

with stop_wish() as wish:
    while not wish.signal_number: ...
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from luthier.ground.events import Tell, silent

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class StopWish:
    """`signal_number` is 0 until somebody wants the run to stop."""

    signal_number: int = 0


@contextlib.contextmanager
def stop_wish(tell: Tell = silent) -> Iterator[StopWish]:
    """Yield a wish that the first SIGINT or SIGTERM sets; from then on the default handlers hold.

    Outside the main thread signals cannot be handled, and the wish is never set.
    """
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return

    def receive(number: int, _frame: FrameType | None) -> None:
        wish.signal_number = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        tell({"kind": "stopping", "signal": number, "text": "finishing this step and saving; once more leaves at once"})

    before = {number: signal.signal(number, receive) for number in _SIGNALS}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
