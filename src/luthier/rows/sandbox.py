"""Render chat templates in a process of their own, with caps on time, memory and output.

One child process (`sandbox_child.py`) serves all templates of this process; it starts at the first use, in about a
quarter of a second, and ends with it. A template that asks for too much ends the child, not the program; the next
render starts a new one. What a template means is not known here.

    >>> render("k1", "{{ messages[0].content|upper }}", {}, [Job([{"role": "user", "content": "hi"}], False)])
    ['HI']
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from luthier.ground.errors import BadInput


class Job(NamedTuple):
    """One conversation to be rendered, as a template gets it."""

    messages: Sequence[Mapping[str, Any]]
    add_generation_prompt: bool
    tools: Sequence[Mapping[str, Any]] | None = None


_START_S = 60.0  # a busy machine may start a process slowly
_WAIT_S = 60.0  # wall clock; the child's own limit is processor time
_PASSED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")  # no keys or tokens reach a template's process
_CHILD = Path(__file__).with_name("sandbox_child.py")

_SENTENCES = {
    "security": "the chat template does what a chat template may not do ({message})",
    "syntax": "the chat template is not valid Jinja ({message})",
    "memory": "the chat template asks for more than 64 MB, or writes far too much",
    "recursion": "the chat template calls itself without end",
    "died": "the chat template ran for more than 0.5 s of processor time, or crashed",
    "error": "the chat template fails ({message})",
    "refused": "the chat template refuses this conversation ({message})",
}


@dataclass(frozen=True)
class TemplateFault:
    """Why one render gave no text: `kind` is a key of the sentences above."""

    kind: str
    message: str = ""

    @property
    def sentence(self) -> str:
        return _SENTENCES.get(self.kind, _SENTENCES["error"]).format(message=self.message.rstrip(". "))


def render(key: str, source: str, variables: Mapping[str, str], jobs: Sequence[Job]) -> list[str]:
    """Return the text of each job.

    Raises:
        BadInput: the first job that has no text says why.
    """
    texts = []
    for result in try_render(key, source, variables, jobs):
        if isinstance(result, TemplateFault):
            raise BadInput(result.sentence, fix="use a model or a template that you trust")
        texts.append(result)
    return texts


def try_render(key: str, source: str, variables: Mapping[str, str], jobs: Sequence[Job]) -> list[str | TemplateFault]:
    """Return a text or a fault for each job; `key` names `source`, which is sent and compiled once."""
    with _LOCK:
        child = _living_child()
        request: dict[str, Any] = {"key": key, "variables": variables, "jobs": jobs}
        if key not in child.known:
            request["source"] = source
        try:
            replies = child.ask(request)
        except (OSError, EOFError):
            _end_child()
            return [TemplateFault("died")] * len(jobs)
        if len(replies) < len(jobs) or (len(replies) == 1 and replies[0].get("error") in ("syntax", "security")):
            return [_result(replies[0])] * len(jobs)  # it did not compile
        child.known.add(key)
        return [_result(reply) for reply in replies]


def _result(reply: Mapping[str, str]) -> str | TemplateFault:
    if "error" in reply:
        return TemplateFault(reply["error"], reply.get("message", ""))
    return reply["text"]


@dataclass
class _Child:
    """The process and the pipes to it. `owner` is the process that started it: a fork must not share its pipes."""

    process: subprocess.Popen[bytes]
    owner: int
    known: set[str] = field(default_factory=set)
    rest: bytes = b""

    def ask(self, request: Mapping[str, Any]) -> list[dict[str, str]]:
        stdin = _pipe(self.process.stdin)
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
        replies: list[dict[str, str]] = json.loads(self.line(_WAIT_S))
        return replies

    def line(self, wait_s: float) -> bytes:
        """Return the next line of the child, or raise EOFError when it ends or stays silent."""
        stdout = _pipe(self.process.stdout)
        deadline = time.monotonic() + wait_s
        chunks = [self.rest]
        while b"\n" not in chunks[-1]:
            ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(stdout.fileno(), 1 << 16) if ready else b""
            if not chunk:
                raise EOFError
            chunks.append(chunk)
        line, _, self.rest = b"".join(chunks).partition(b"\n")
        return line


_LOCK = threading.Lock()
_CHILDREN: list[_Child] = []  # none or one


def _living_child() -> _Child:
    if _CHILDREN and _CHILDREN[0].owner == os.getpid() and _CHILDREN[0].process.poll() is None:
        return _CHILDREN[0]
    _end_child()
    process = subprocess.Popen(
        # -P: the folder of the child's own file is no place to import from
        [sys.executable, "-P", str(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _PASSED if name in os.environ} | {"PYTHONUTF8": "1"},
        start_new_session=True,
    )
    child = _Child(process, os.getpid())
    _CHILDREN.append(child)
    try:
        child.line(_START_S)
    except EOFError:
        _end_child()
        raise BadInput("the process that renders chat templates could not be started", where=sys.executable) from None
    return child


@atexit.register
def _end_child() -> None:
    while _CHILDREN:
        child = _CHILDREN.pop()
        if child.owner != os.getpid():
            continue
        child.process.kill()
        for stream in (child.process.stdin, child.process.stdout):
            with contextlib.suppress(OSError):
                _pipe(stream).close()
        child.process.wait()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # both pipes are asked for above
    return stream
