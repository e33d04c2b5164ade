"""Run a small Python text in another process, with limits, and say whether it reached its end.

The child has no files, no network, no processes and no environment: an audit hook, which Python cannot take off again,
refuses them; the operating system limits its memory and processor time; its folder is an empty one; it is killed when
its time is up. The modules of `OPEN_MODULES` can be imported, others cannot. This keeps honest mistakes from doing
harm. It is no prison for hostile code: for that, use a container.

    run_python("assert 1 + 1 == 2").passed
"""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from luthier.ground.errors import BadInput

TIME_S = 10.0  # wall clock: a busy machine may start a process slowly
PROCESSOR_S = 2
MEMORY_BYTES = 512 << 20
OPEN_MODULES = (
    "abc", "array", "bisect", "calendar", "cmath", "collections", "collections.abc", "contextlib", "copy",
    "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "heapq", "itertools", "json", "math",
    "numbers", "operator", "random", "re", "statistics", "string", "textwrap", "time", "typing", "unicodedata",
    "_strptime",
)  # fmt: skip
_CHILD = Path(__file__).with_name("code_runner_child.py")


@dataclass(frozen=True)
class Ran:
    """Whether a program reached its end; or else why not: an exception's name, `time`, or `ended` (it said nothing)."""

    passed: bool
    cause: str | None = None


def run_python(text: str, time_s: float = TIME_S) -> Ran:
    """Run a program; ending it early (`exit()`, a crash) is not reaching its end.

    Raises:
        BadInput: this machine cannot start another process of Python.
    """
    word = secrets.token_hex(16)
    limits = [str(PROCESSOR_S), str(MEMORY_BYTES), word]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(_CHILD), *limits, *OPEN_MODULES],
                input=text.encode("utf-8", "surrogatepass"),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={},
                timeout=time_s,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Ran(False, "time")
        except OSError as error:
            raise BadInput(f"no process can be started to run code in ({error.strerror})") from None
    answer = done.stdout.decode("utf-8", "replace")
    if answer == word:
        return Ran(True)
    killed = done.returncode in (-signal.SIGXCPU, -signal.SIGKILL)
    return Ran(False, answer[1:] if answer.startswith("x") else "time" if killed else "ended")
