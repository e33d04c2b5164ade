"""One registry for what is built in and for what plug-ins bring.

A room that can be extended owns one `Registry`. Its own entries are registered by a decorator in the modules that the
registry names; they are imported only when somebody asks. A plug-in is an installed distribution with an entry point in
the registry's group; it is imported only when its own name is asked for. It does not install or search for anything.

    METRICS: Registry[Metric] = Registry("luthier.metrics", "metric", modules=("luthier.evaluation.metrics.text",))
    metric = METRICS.get("exact_match")
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from luthier.ground.errors import BadInput, nearest

T = TypeVar("T")
R = TypeVar("R")


class Registry(Generic[T]):
    """Names of one kind of thing.

    Args:
        group: the entry-point group of plug-ins, such as `luthier.metrics`.
        kind: what one entry is called in messages, such as `metric`.
        modules: the modules whose import registers what is built in.
        missing: tells what an object of a plug-in lacks to be one of this kind (`None`: nothing).
    """

    def __init__(
        self,
        group: str,
        kind: str,
        modules: tuple[str, ...] = (),
        missing: Callable[[object], str | None] | None = None,
    ) -> None:
        self.group = group
        self.kind = kind
        self._modules = modules
        self._missing = missing
        self._built_in: dict[str, T] = {}
        self._plugged_in: dict[str, T] = {}

    def register(self, name: str) -> Callable[[R], R]:
        """Return a decorator that registers its object as the built-in `name` and hands it back unchanged."""

        def enter(entry: R) -> R:
            known = self._built_in.get(name)
            if known is not None and _origin(known) != _origin(entry):
                raise BadInput(f'the {self.kind} "{name}" is registered twice', fix="choose another name")
            self._built_in[name] = entry  # type: ignore[assignment]  # R is a T: Python's types have no lower bounds
            return entry

        return enter

    def get(self, name: str) -> T:
        """Return the entry called `name`; plug-ins are looked at only when it is not built in.

        Raises:
            BadInput: nobody has this name, a plug-in takes the name of another entry, or the plug-in is broken.
        """
        self._import_built_in()
        if name in self._built_in:
            return self._built_in[name]
        if name not in self._plugged_in:
            self._plugged_in[name] = self._load(self._find(name))
        return self._plugged_in[name]

    def names(self) -> list[str]:
        """Return all names in order, built in or from plug-ins (which are not imported for that)."""
        self._import_built_in()
        return sorted({*self._built_in, *self._entry_points()})

    def _import_built_in(self) -> None:
        for module in self._modules:
            importlib.import_module(module)

    def _entry_points(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            other = "a built-in one" if point.name in self._built_in else _maker(found.get(point.name))
            if other:
                what = f'the {self.kind} "{point.name}" of {_maker(point)} has the name of {other}'
                raise BadInput(what, fix="uninstall one of them")
            found[point.name] = point
        return found

    def _find(self, name: str) -> EntryPoint:
        points = self._entry_points()
        if name not in points:
            known = sorted({*self._built_in, *points})
            what = f'there is no {self.kind} called "{name}"{nearest(name, known)}'
            raise BadInput(what, fix=f"choose one of {', '.join(known)}" if known else None)
        return points[name]

    def _load(self, point: EntryPoint) -> T:
        try:
            entry = point.load()
        except Exception as error:  # a plug-in may fail in any way, and its fault must not look like ours
            fault: str | None = f"it fails to load with {type(error).__name__}: {_one_line(error)}"
        else:
            fault = self._missing(entry) if self._missing else None
        if fault is not None:
            what = f'the {self.kind} "{point.name}" of {_maker(point)} cannot be used: {fault}'
            raise BadInput(what, fix="mend or uninstall the plug-in")
        loaded: T = entry
        return loaded


def _origin(entry: object) -> tuple[str, str]:
    """Where an entry was written: running a notebook cell or a module again may replace its own entry."""
    cls = type(entry)
    return getattr(entry, "__module__", cls.__module__), getattr(entry, "__qualname__", cls.__qualname__)


def _maker(point: EntryPoint | None) -> str:
    if point is None:
        return ""
    return f"the plug-in {point.dist.name} {point.dist.version}" if point.dist else f"the plug-in {point.value}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or "no message"
