"""The exceptions that a person may see: one sentence each, with place, want and fix.

Every error that Luthier raises on purpose derives from `LuthierError` and knows the exit code of the command line:

    LuthierError
    ├── BadInput      2   a file, a key, a value or the environment is not usable
    ├── Refused       1   a check or gate says no
    └── Interrupted 130   stopped by Ctrl-C (130) or SIGTERM (143) after a clean save

This file does not print anything; `luthier.cli` does.

    >>> str(BadInput("the line is not JSON", where="train.jsonl:3", fix="delete or mend the line"))
    'train.jsonl:3: the line is not JSON; delete or mend the line.'
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LuthierError(Exception):
    """A fault told in one sentence: `where: what; fix.`

    Args:
        what: what is wrong, and what was wanted.
        where: the place, such as `train.jsonl:1204` or `task.yaml:7 (train.epochs)`.
        fix: what to do, in the imperative.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(_sentence(what, where, fix))


class BadInput(LuthierError):
    """A file, key, value or the environment is not usable (exit code 2)."""

    exit_code = 2


class Refused(LuthierError):
    """A check or gate says no (exit code 1)."""

    exit_code = 1


class Interrupted(LuthierError):
    """Stopped by a signal after a clean save.

    Args:
        signal_number: 2 (Ctrl-C, exit code 130) or 15 (SIGTERM, exit code 143).
    """

    def __init__(self, what: str, *, signal_number: int = 2, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, where=where, fix=fix)
        self.exit_code = 128 + signal_number


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean "x"?)` for the known word nearest to `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f' (did you mean "{close[0]}"?)' if close else ""


def _sentence(what: str, where: str | None, fix: str | None) -> str:
    place = f"{where}: " if where else ""
    advice = f"; {fix}" if fix else ""
    text = f"{place}{what}{advice}"
    return text if text.endswith((".", "!", "?")) else text + "."
