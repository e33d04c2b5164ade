"""Luthier: decide whether to finetune, plan what fits, finetune, and prove that it helped.

Each verb of the command line is one function here, with the same name and the same result. Nothing heavy is imported
before a verb is used.

    import luthier as lu
    task = lu.load_task("task.yaml")
    result = lu.compare(task)
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luthier.ground.errors import BadInput, Interrupted, LuthierError, Refused
    from luthier.ground.task import Task, json_schema, load_task
    from luthier.verbs.advise import advise
    from luthier.verbs.check import check
    from luthier.verbs.classify import classify
    from luthier.verbs.compare import compare
    from luthier.verbs.doctor import doctor
    from luthier.verbs.infill import infill
    from luthier.verbs.prompt import prompt
    from luthier.verbs.report import report
    from luthier.verbs.retrieve import index, search
    from luthier.verbs.start import start
    from luthier.verbs.train import train

__version__ = "0.1.0"

# Idle OpenMP threads sleep instead of spinning: on a machine that does anything else, spinning costs most of the time.
# Read once, when torch is first imported; whoever sets it keeps his setting.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# oneDNN keeps a kernel with its buffers for every matrix shape that it meets, up to 1,024 of them, and texts have ever
# new lengths. 64 hold all shapes of a training step.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

_HOMES = {
    "BadInput": "luthier.ground.errors",
    "Interrupted": "luthier.ground.errors",
    "LuthierError": "luthier.ground.errors",
    "Refused": "luthier.ground.errors",
    "Task": "luthier.ground.task",
    "json_schema": "luthier.ground.task",
    "load_task": "luthier.ground.task",
    "advise": "luthier.verbs.advise",
    "check": "luthier.verbs.check",
    "classify": "luthier.verbs.classify",
    "compare": "luthier.verbs.compare",
    "doctor": "luthier.verbs.doctor",
    "index": "luthier.verbs.retrieve",
    "infill": "luthier.verbs.infill",
    "plan": "luthier.verbs.plan",
    "prompt": "luthier.verbs.prompt",
    "report": "luthier.verbs.report",
    "search": "luthier.verbs.retrieve",
    "start": "luthier.verbs.start",
    "train": "luthier.verbs.train",
}

__all__ = [
    "BadInput",
    "Interrupted",
    "LuthierError",
    "Refused",
    "Task",
    "advise",
    "check",
    "classify",
    "compare",
    "doctor",
    "index",
    "infill",
    "json_schema",
    "load_task",
    "plan",
    "prompt",
    "report",
    "search",
    "start",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'luthier' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
