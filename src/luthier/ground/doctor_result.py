"""What `luthier doctor` returns: the machine, what it does in each precision, and what a task's model does in each.

The names are promises, like those of `luthier.ground.results`; nothing is computed here.

    >>> Feature(name="liger kernels", ready=False, needs="pip install luthier[liger]", note="GPU only").ready
    False
"""

from __future__ import annotations

from typing import Literal

from luthier.ground.result import Result
from luthier.ground.results import Environment


class Processor(Result):
    """The device that Luthier would use here."""

    name: str
    kind: Literal["cpu", "gpu", "apple"]
    cores: int
    threads: int  # that PyTorch uses
    instructions: list[str]  # of those that matter: avx2, avx512f, avx512_bf16, avx512_vnni, amx_bf16, neon, sve …
    memory_bytes: int
    memory_free_bytes: int
    bandwidth_bytes_s: float | None  # measured
    kernels: str  # native | partly native | plain: Luthier's own


class Storage(Result):
    """Where Luthier writes."""

    what: str  # cache folder, runs folder
    path: str
    free_bytes: int


class Feature(Result):
    """Something that Luthier can do, and what it would need."""

    name: str
    ready: bool
    needs: str  # "" or a command to type
    note: str


class PrecisionRow(Result):
    """One precision on this machine."""

    name: str  # fp32 tf32 bf16 fp16 fp8 int8 int4
    status: Literal["native", "emulated", "absent"]
    bits: int
    exponent_bits: int
    mantissa_bits: int
    largest: float
    smallest_normal: float
    epsilon: float  # gap after 1
    products_flops_s: float | None  # measured matrix products; None: cannot be done here
    relative_speed: float | None  # against fp32
    relative_bytes: float  # of a stored number, against fp32
    practical: Literal["yes", "only to save memory", "no"]
    note: str


class PrecisionTrial(Result):
    """The task's model on dev rows in one precision."""

    precision: str
    loss: float | None  # per target token; None: not a finite number
    loss_change: float | None  # against fp32
    kl: float | None  # mean over target positions of KL(fp32 ‖ this), in nats
    agreement: float | None  # share of target positions with the same likeliest token
    largest_activation: float
    largest_at: str  # module path
    share_of_range: float  # largest activation / largest finite number of the precision
    not_finite: int  # values that were NaN or infinite
    seconds: float
    weights_bytes: int


class Warned(Result):
    """A precision that would go wrong, and why."""

    rule: str
    text: str
    fix: str


class DoctorResult(Result):
    """What this machine can do, and, with a task, in which precision the task's model should work."""

    processor: Processor
    storage: list[Storage]
    precisions: list[PrecisionRow]
    features: list[Feature]
    task: str | None
    run: str | None
    rows: int  # dev rows that were used
    trials: list[PrecisionTrial]
    warnings: list[Warned]
    recommendation: str  # "bf16"
    reasons: list[str]
    sentence: str
    environment: Environment
    seconds: float
