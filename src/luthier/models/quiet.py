"""Keep the libraries' own progress bars and advice off the terminal while they load; Luthier tells its own.

>>> with no_progress_bars(): pass
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silence transformers (bars and warnings) and the hub's bars for the length of the block, then restore them."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_off = are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
        if not hub_off:
            enable_progress_bars()
