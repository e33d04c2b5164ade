"""Trace what a stretch of the real code allocates, on tensors without memory.

The code runs as it is, on tensors of the `meta` device, under a dispatch mode that sees every operator. Each storage
that an operator makes is an event, and its end another; where in Luthier's own code it was made, and at which stage of
the step, is noted beside it. So nothing about a model's memory is a rule of thumb. Tensors of whole numbers (token ids,
positions, targets) are real and lie on the CPU, since shapes follow from their values; a number that is read from a
tensor without memory is 0. What operators use inside of themselves is not seen here.

    with MemoryTrace() as trace: step.run(packs, 1e-3)
    print(trace.live_peak_bytes())
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from luthier.models.planned import device_type
from luthier.planning.hidden import hidden_bytes
from luthier.planning.work import Work, work_of_call

_OWN = "luthier."
_MODES = frozenset({__name__, "luthier.planning.fused"})  # every call passes through these
_aten = torch.ops.aten
_READ = {_aten._local_scalar_dense.default: 0, _aten.equal.default: True}  # what is read where there is no memory
_INDEX_MAKERS = frozenset({_aten._to_copy.default, _aten.arange.default, _aten.arange.start, _aten.arange.start_step})


@dataclass
class Block:
    """One piece of memory: its size, when it came and went (numbers of events), and where it was made.

    Attributes:
        freed: the event of its end; None while it is there.
        place: `module.function` of the innermost of Luthier's own frames.
        stage: what the run was doing: `forward`, `loss`, `backward` …
        label: what it is, if somebody said so: `weights`, `adapters`, `gradients`, `optimizer`.
    """

    bytes: int
    made: int
    place: str
    stage: str
    freed: int | None = None
    label: str = ""


class MemoryTrace(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not type it
    """Everything that was allocated and freed within the block, in order.

    Attributes:
        events: numbers of `blocks`, as they came (n + 1) and went (−n − 1).
        work: matrix products and bytes moved, by stage.
        stage: set by whoever drives the run; inside of autograd's backward it is `backward` by itself.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.blocks: list[Block] = []
        self.events: list[int] = []
        self.work: dict[str, Work] = {}
        self.stage = "preparing"
        self.marks: dict[str, list[int]] = {}
        self._numbers: dict[int, int] = {}
        self._watched: list[weakref.ref[torch.UntypedStorage]] = []

    # -- what is there ---------------------------------------------------------------------------------------------

    def adopt(self, tensors: Iterable[Tensor], label: str) -> None:
        """Count tensors that were made before, or give a label to what has been seen already."""
        for tensor in tensors:
            number = self._number_of(tensor)
            if number is not None:
                self.blocks[number].label = label

    def mark(self, name: str) -> None:
        """Note that the run is here, between two events."""
        self.marks.setdefault(name, []).append(len(self.events))

    def total_work(self) -> Work:
        """Return the work so far."""
        return sum(self.work.values(), Work())

    def live_peak_bytes(self, begin: int = 0, end: int | None = None) -> int:
        """Return the most bytes that were there at one time in the events from `begin` on and before `end`.

        As if no allocator wasted any.
        """
        live = most = 0
        for number, event in enumerate(self.events[:end]):
            live += self.blocks[abs(event) - 1].bytes * (1 if event > 0 else -1)
            most = max(most, live if number >= begin else 0)
        return most

    def hear(self, attention_flops: float, moved_bytes: float) -> None:
        """Count what a native kernel did, which is no operator of torch's."""
        self._count(Work(other_bytes=moved_bytes, other_flops=attention_flops, calls=1))

    def _count(self, work: Work) -> None:
        stage = self._stage_now()
        self.work[stage] = self.work[stage] + work if stage in self.work else work

    # -- the mode --------------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, function: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = _tensors((*args, *kwargs.values()))
        if any(tensor.is_meta for tensor in tensors):
            if function in _READ:
                return _READ[function]
            if any(not tensor.is_meta for tensor in tensors):
                args = tuple(_without_memory(value) for value in args)
                kwargs = {key: _without_memory(value) for key, value in kwargs.items()}
            if function is _aten._to_copy.default:
                kwargs = {**kwargs, "device": torch.device("meta")}  # there is nothing to move elsewhere
            if kwargs.get("generator") is not None:
                kwargs = {**kwargs, "generator": None}
        elif function in _INDEX_MAKERS and str(kwargs.get("device")) == "meta" and _is_index(tensors, kwargs):
            kwargs = {**kwargs, "device": torch.device("cpu")}  # what decides shapes is real
        out = function(*args, **kwargs)
        made = _tensors((out,))
        name = function._schema.name.removeprefix("aten::")
        inside = hidden_bytes(name, tensors, made[0].dtype if made else None) if _is_on_cpu(tensors) else 0
        if inside:
            self._come_and_go(inside)
        for tensor in made:
            self._number_of(tensor)
        if not function.is_view:
            self._add_work(name, tensors, made)
        return out

    def _number_of(self, tensor: Tensor) -> int | None:
        """Return the number of a tensor's block; a storage that was not seen yet becomes one."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._numbers:
            size = storage.nbytes()
            if size == 0:
                return None
            number = len(self.blocks)
            self._numbers[key] = number
            self.blocks.append(Block(size, len(self.events), _place(), self._stage_now()))
            self.events.append(number + 1)
            self._watched.append(weakref.ref(storage, self._end_of(key, number)))
        return self._numbers[key]

    def _come_and_go(self, size: int) -> None:
        """Note memory that an operator uses inside of itself."""
        number = len(self.blocks)
        self.blocks.append(Block(size, len(self.events), _place(), self._stage_now(), freed=len(self.events) + 1))
        self.events += [number + 1, -number - 1]

    def _end_of(self, key: int, number: int) -> Callable[[object], None]:
        def ended(_: object) -> None:
            self._numbers.pop(key, None)
            self.blocks[number].freed = len(self.events)
            self.events.append(-number - 1)

        return ended

    def _stage_now(self) -> str:
        return "backward" if torch._C._current_graph_task_id() != -1 else self.stage

    def _add_work(self, name: str, tensors: list[Tensor], made: list[Tensor]) -> None:
        shapes = [tuple(tensor.shape) for tensor in tensors], [tuple(tensor.shape) for tensor in made]
        sizes = [tensor.itemsize for tensor in tensors], [tensor.itemsize for tensor in made]
        self._count(work_of_call(name, shapes[0], sizes[0], shapes[1], sizes[1]))


def _is_on_cpu(tensors: list[Tensor]) -> bool:
    return any(tensor.is_meta and device_type(tensor.device) == "cpu" for tensor in tensors)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """Return the tensors among an operator's values, which may be lists of them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [one for one in value if isinstance(one, Tensor)]
    return found


def _without_memory(leaf: Any) -> Any:
    if isinstance(leaf, list | tuple):
        return type(leaf)(_without_memory(one) for one in leaf)
    if not isinstance(leaf, Tensor) or leaf.is_meta:
        return leaf
    return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="meta")


def _is_index(tensors: list[Tensor], kwargs: dict[str, Any]) -> bool:
    """Whether what is made holds whole numbers that may be read, such as ids and positions (codes are uint8)."""
    dtype = kwargs.get("dtype") or (tensors[0].dtype if tensors else torch.int64)
    return dtype in (torch.int64, torch.int32, torch.bool)


def _place() -> str:
    """Return `module.function` of the innermost frame that is Luthier's own, other than of the modes."""
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_OWN) and module not in _MODES:
            return f"{module.removeprefix(_OWN)}.{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]  # ends at None
    return ""
