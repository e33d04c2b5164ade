"""Find the metric that a task names: a registered one, or a function in the user's own Python file.

A file `score.py` (or `score.py:function`) holds

    def score(output: str, reference: str, context) -> float:     # or bool, or luthier's Score
        return float(output.strip() == reference.strip())

The file is the user's own code and is run. A function annotated `-> bool` is binary. Sub-scores are declared as
`PARTS = {"polite": True}` (name: binary) in the file, and the function then returns a `Score` with them.

    metric = load_metric("score.py:score", Path("examples/tickets"))
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from luthier.evaluation.metrics.base import METRICS, FunctionMetric, Metric, MetricContext, Part, Score, as_score
from luthier.ground.errors import BadInput, LuthierError, nearest

_FILE = re.compile(r"(?P<path>.+\.py)(?::(?P<function>\w+))?")


def load_metric(name_or_path: str, folder: Path) -> Metric:
    """Return the metric called so, or the one in the file called so (relative to `folder`).

    Raises:
        BadInput: there is no such metric, file or function, or the file cannot be run.
    """
    file = _FILE.fullmatch(name_or_path)
    if not file:
        return METRICS.get(name_or_path)
    path = folder / file["path"]
    module = _run(path, file["path"])
    function = _function(module, file["function"] or "score", file["path"])
    return FunctionMetric(
        name=name_or_path,
        function=_guarded(function, path, file["path"]),
        binary=_returns_bool(function),
        parts=_parts(module, file["path"]),
    )


def _run(path: Path, shown: str) -> ModuleType:
    if not path.is_file():
        raise BadInput("there is no such file", where=shown, fix="name a Python file that exists, or a metric")
    name = f"luthier_user_metric_{abs(hash(path.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput("this is not a Python file", where=shown)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in the user's file look their module up here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _told(error, path, shown, "the file cannot be run") from error
    return module


def _function(module: ModuleType, name: str, shown: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if callable(function):
        return function  # type: ignore[no-any-return]  # a user's function returns what it likes; as_score judges
    known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
    raise BadInput(f'it has no function "{name}"{nearest(name, known)}', where=shown, fix=f"write def {name}(...)")


def _guarded(function: Callable[..., Any], path: Path, shown: str) -> Callable[[str, str, MetricContext], Score]:
    """Return the function with its faults told in one sentence; a function of two arguments gets no context."""
    takes_context = _takes_context(function, shown)

    def score(output: str, reference: str, context: MetricContext) -> Score:
        try:
            return as_score(function(output, reference, context) if takes_context else function(output, reference))
        except LuthierError as error:
            raise BadInput(error.what, where=shown, fix="mend the function") from None
        except Exception as error:
            raise _told(error, path, shown, "the metric fails") from error

    return score


def _takes_context(function: Callable[..., Any], shown: str) -> bool:
    signature = inspect.signature(function)
    for arguments in (3, 2):
        try:
            signature.bind(*[None] * arguments)
        except TypeError:
            continue
        return arguments == 3
    raise BadInput("the function must take (output, reference, context)", where=shown, fix="mend the function")


def _returns_bool(function: Callable[..., Any]) -> bool:
    return getattr(function, "__annotations__", {}).get("return") in (bool, "bool")


def _parts(module: ModuleType, shown: str) -> tuple[Part, ...]:
    declared = getattr(module, "PARTS", {})
    if not isinstance(declared, dict) or not all(
        isinstance(k, str) and isinstance(v, bool) for k, v in declared.items()
    ):
        raise BadInput(
            "PARTS must map names to true (binary) or false", where=shown, fix='write PARTS = {"name": True}'
        )
    return tuple(Part(name, binary=binary) for name, binary in declared.items())


def _told(error: BaseException, path: Path, shown: str, what: str) -> BadInput:
    """Return the one sentence for a fault in the user's file, with its line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    place = f"{shown}:{lines[-1]}" if lines else shown
    message = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return BadInput(f"{what} with {type(error).__name__}: {message:.200}", where=place, fix="mend it there")
