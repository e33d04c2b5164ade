"""What is asked of a plan: a model, how it is trained, on what, and within which limits.

Question(name, config, spec, "lora", load, device, baseline_bytes=0)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import PretrainedConfig

from luthier.ground.spec import TrainSpec
from luthier.machine.catalogue import Device
from luthier.objectives.base import Objective
from luthier.planning.workload import Workload

TRACED_AS: Mapping[str, str] = {"cpu": "cpu", "apple": "mps", "gpu": "cuda", "tpu": "cuda"}
VERIFIED = ("cpu",)  # kinds of devices on which predictions were held against measurements


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        method: full, lora, qlora, inference, or another adapter kind.
        load: the heaviest step for a spec; for inference, of its length and batch.
        baseline_bytes: of the process before the model is loaded, or of the device's runtime.
        limit_bytes: what may be used of one device.
        devices: how many; what each holds is `spec.strategy`.
        time_limit_s: of the whole run.
        prices: a price list of the user's.
        look_around: whether to try other settings too.
    """

    name: str
    config: PretrainedConfig
    spec: TrainSpec
    method: str
    load: Callable[[TrainSpec], Workload]
    device: Device
    baseline_bytes: int
    limit_bytes: int | None = None
    limit_source: str = ""
    devices: int = 1
    time_limit_s: float | None = None
    prices: Path | None = None
    objective: Objective | None = None
    look_around: bool = True
    task: str | None = None
    run: str | None = None

    @property
    def strategy(self) -> Literal["ddp", "fsdp"]:
        """What each of several devices holds, as the spec is written."""
        return self.spec.strategy

    @property
    def traced_as(self) -> str:
        """The kind of device that tensors without memory stand for."""
        return TRACED_AS[self.device.kind]
