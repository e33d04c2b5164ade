"""Which kind of device a tensor without memory stands for.

A plan runs the real step on tensors of the `meta` device, which have shapes and no memory. What the code decides by a
tensor's device, it then decides by the device that is planned for. Nothing is measured or predicted here.

    >>> device_type(torch.device("meta")), device_type(torch.device("cpu"))
    ('cpu', 'cpu')
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch

Hear = Callable[[float, float], None]
_HEAR: ContextVar[Hear | None] = ContextVar("planned_work", default=None)
_PLANNED: ContextVar[str] = ContextVar("planned_device", default="cpu")


def device_type(device: torch.device) -> str:
    """Return the kind of device (cpu, cuda, mps): of a tensor without memory, the one that is planned for."""
    return _PLANNED.get() if device.type == "meta" else device.type


@contextlib.contextmanager
def planned_for(kind: str) -> Iterator[None]:
    """Let tensors without memory stand for tensors on this kind of device within the block."""
    token = _PLANNED.set(kind)
    try:
        yield
    finally:
        _PLANNED.reset(token)


def note_work(attention_flops: float = 0.0, moved_bytes: float = 0.0) -> None:
    """Say what a native kernel would have done, had its tensors memory: operators that torch does not see."""
    if (hear := _HEAR.get()) is not None:
        hear(attention_flops, moved_bytes)


@contextlib.contextmanager
def hearing(hear: Hear) -> Iterator[None]:
    """Hand on what `note_work` is told within the block."""
    token = _HEAR.set(hear)
    try:
        yield
    finally:
        _HEAR.reset(token)
