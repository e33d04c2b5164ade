"""The process in which chat templates run: a template is a program by a stranger, so it gets no room to do harm.

It reads one JSON request per line from standard input and answers each with one JSON line. Jinja's immutable sandbox
keeps a template away from Python's internals; the kernel keeps it from more than its share of memory (`RLIMIT_AS`),
processor time (`SIGPROF` ends the process) and disk (no file may be written). It imports nothing of Luthier, so that it
starts quickly. `luthier.rows.sandbox` is the other end; nobody else talks to it.

    echo '{"key": "k", "source": "{{ 1 + 1 }}", "variables": {}, "jobs": [[[], false, null]]}' | python sandbox_child.py
"""

from __future__ import annotations

import contextlib
import datetime
import json
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

MEMORY_BYTES = 64 * 2**20  # what one render may use beyond the process itself
CPU_S = 0.5  # processor time of one render
SOURCE_CHARS = 256 * 1024
OUTPUT_CHARS = 2**20  # beyond 16 times the request
DAY = datetime.datetime(2025, 1, 1, 12, 0, 0)

_READERS = (jinja2.nodes.Include, jinja2.nodes.Import, jinja2.nodes.FromImport, jinja2.nodes.Extends)


class Refusal(Exception):
    """The template itself says no, by `raise_exception`."""


class Generation(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}`, by which some templates mark answers: transparent here."""

    tags = {"generation"}  # noqa: RUF012  # jinja's own contract

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which says no aloud where it would render an empty text."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        name = type(obj).__name__
        raise jinja2.exceptions.SecurityError(f"access to attribute {attribute!r} of {name!r} object is unsafe")


class Namespace(jinja2.utils.Namespace):
    """A namespace that holds no underscored names."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace may not hold the name {name!r}")
        super().__setitem__(name, value)


def main() -> None:
    """Answer requests until standard input ends."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair; end of input ends this process
    templates: dict[str, jinja2.Template] = {}
    print("ready", flush=True)
    for line in sys.stdin:
        with _memory(_virtual_bytes() + MEMORY_BYTES + 24 * len(line)):
            answer = _answer(line, templates)
        print(json.dumps(answer), flush=True)


def _answer(line: str, templates: dict[str, jinja2.Template]) -> list[dict[str, str]]:
    request = json.loads(line)
    limit = OUTPUT_CHARS + 16 * len(line)
    try:
        with _cpu(CPU_S):
            if "source" in request:
                templates[request["key"]] = _compile(request["source"])
            template = templates[request["key"]]
    except BaseException as error:  # whatever a template does to the compiler is told, not died of
        return [_fault(error)]
    answers = []
    for messages, add_generation_prompt, tools in request["jobs"]:
        told = {"messages": messages, "add_generation_prompt": add_generation_prompt, "tools": tools, "documents": None}
        try:
            with _cpu(CPU_S):
                answers.append({"text": _render(template, told | request["variables"], limit)})
        except BaseException as error:
            answers.append(_fault(error))
    return answers


def _compile(source: str) -> jinja2.Template:
    if len(source) > SOURCE_CHARS:
        raise jinja2.exceptions.SecurityError(f"the template has {len(source):,} characters")
    environment = _environment()
    if next(environment.parse(source).find_all(_READERS), None) is not None:
        raise jinja2.exceptions.SecurityError("the template wants to read another template")
    return environment.from_string(source)


def _render(template: jinja2.Template, told: dict[str, Any], limit: int) -> str:
    parts: list[str] = []
    size = 0
    for part in template.generate(told):
        size += len(part)
        if size > limit:
            raise MemoryError
        parts.append(part)
    return "".join(parts)


def _environment() -> Sandbox:
    """Return what published chat templates expect, and no more."""
    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    for name in ("lipsum", "cycler", "joiner"):
        del environment.globals[name]
    environment.globals |= {"raise_exception": _raise, "strftime_now": DAY.strftime, "namespace": Namespace}
    environment.filters["tojson"] = _tojson
    return environment


def _raise(message: str) -> None:
    raise Refusal(str(message))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML, which no chat template means.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _fault(error: BaseException) -> dict[str, str]:
    kinds: dict[type[BaseException], str] = {
        Refusal: "refused",
        jinja2.exceptions.TemplateSyntaxError: "syntax",
        jinja2.exceptions.SecurityError: "security",
        MemoryError: "memory",
        RecursionError: "recursion",
    }
    kind = next((name for cls, name in kinds.items() if isinstance(error, cls)), "error")
    return {"error": kind, "message": f"{error}"[:300] or type(error).__name__}


@contextlib.contextmanager
def _memory(limit_bytes: int) -> Iterator[None]:
    if not sys.platform.startswith("linux"):  # elsewhere the limit is not kept by the kernel; time and output still are
        yield
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


@contextlib.contextmanager
def _cpu(limit_s: float) -> Iterator[None]:
    """End the process when the block needs more processor time; the parent sees the end and tells it."""
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _virtual_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 256 * 2**20


if __name__ == "__main__":
    main()
