"""Content hashes of files and values.

>>> key_of({"b": 1, "a": 2}) == key_of({"a": 2, "b": 1})
True
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def key_of(value: Any) -> str:
    """Return a 16-digit key of a JSON-like value; equal values have equal keys, whatever the order of their fields."""
    return sha256_text(json.dumps(value, sort_keys=True, ensure_ascii=True, default=str))[:16]
