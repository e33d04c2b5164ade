"""Where Luthier keeps what it can make again: models, compiled kernels, measured speeds.

Fills and clears nothing; each room looks after its own folder in it.

    >>> cache_root().is_absolute()
    True
"""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """Return the cache folder: `$LUTHIER_CACHE`, or `~/.cache/luthier`."""
    named = os.environ.get("LUTHIER_CACHE")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "luthier"
