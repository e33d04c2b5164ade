"""The process in which `code_runner` runs a program; it imports nothing of Luthier and is started for one program.

Arguments: seconds of processor time, bytes of memory, the word to say in the end, and the modules that the program may
import. The program comes on standard input. It says the word if the program reached its end, otherwise the exception's
name.

    python -I -S -B code_runner_child.py 4 500000000 word math re < program.py
"""

from __future__ import annotations

import importlib
import sys

REFUSED = (
    "open", "os.", "socket.", "subprocess.", "shutil.", "tempfile.", "glob.", "pty.", "mmap.", "fcntl.", "ctypes.",
    "signal.", "resource.", "syslog.", "sqlite3.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.",
    "sys.settrace", "sys.setprofile", "builtins.input",
)  # fmt: skip
RECURSION = 2000


class Nowhere:
    """What a program prints goes here."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing is kept."""


def main() -> None:
    """Run the program on standard input and say how it ended."""
    seconds, memory_bytes, word, *modules = sys.argv[1:]
    del sys.argv[1:]
    for module in modules:
        importlib.import_module(module)
    limit(int(seconds), int(memory_bytes))
    text = sys.stdin.buffer.read().decode("utf-8", "surrogatepass")
    said = sys.stdout  # kept, or its end would be closed
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = Nowhere()  # type: ignore[assignment,misc]
    said.write(ended(text, word))
    said.flush()


def limit(seconds: int, memory_bytes: int) -> None:
    """Ask the operating system for limits, where it knows them."""
    try:
        import resource
    except ImportError:  # Windows: the time limit of the parent and the hook remain
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def ended(text: str, word: str) -> str:
    """Run a program and return the word, or `x` and the name of what stopped it."""
    sys.setrecursionlimit(RECURSION)
    try:
        program = compile(text, "program", "exec")
        sys.addaudithook(refuse)
        exec(program, {"__name__": "__main__"})
    except BaseException as error:  # the program may raise anything, SystemExit included
        return f"x{type(error).__name__}"
    return word


def refuse(event: str, _arguments: tuple[object, ...], refused: tuple[str, ...] = REFUSED) -> None:
    """An audit hook: files, network, processes and the like are not for these programs."""
    if event.startswith(refused):
        raise PermissionError(f"this program may not use {event}")


if __name__ == "__main__":
    main()
