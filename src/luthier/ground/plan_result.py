"""What `luthier plan` returns: bytes by term, time, money, and the choices that there are.

The names are promises, like those of `luthier.ground.results`; nothing is computed here but sums.

    >>> Terms(weights_bytes=3, overhead_bytes=4).total
    7
"""

from __future__ import annotations

from typing import Any, Literal

from luthier.ground.result import Result
from luthier.ground.results import Environment

TERMS = (
    "weights", "adapters", "gradients", "optimizer", "activations", "attention", "loss", "kv_cache", "temporary",
    "overhead",
)  # fmt: skip


class Terms(Result):
    """The bytes that are there at the moment of the peak, each in one term; they sum to `peak_bytes`."""

    weights_bytes: int = 0  # of the model as it computes, scales of quantised formats included
    adapters_bytes: int = 0  # what was added to the model and is trained
    gradients_bytes: int = 0
    optimizer_bytes: int = 0  # the optimizer's state, and float32 masters
    activations_bytes: int = 0  # kept for the backward
    attention_bytes: int = 0  # what attention needs while it works, and keeps beside the activations
    loss_bytes: int = 0  # logits and what the loss works with
    kv_cache_bytes: int = 0
    temporary_bytes: int = 0
    overhead_bytes: int = 0  # the process and its libraries, and what the allocator holds beside what is used

    @property
    def total(self) -> int:
        return sum(getattr(self, f"{name}_bytes") for name in TERMS)


class TermNote(Result):
    """How one term comes about."""

    term: str  # weights, adapters …
    formula: str  # with this plan's numbers
    source: str  # a paper, or "traced: the real step on tensors without memory"


class Moment(Result):
    """The most bytes at one stage of the run."""

    stage: str  # loading, forward, loss, backward, update; prompt, decode
    peak_bytes: int


class Concession(Result):
    """What one change of the settings would do."""

    option: str  # "checkpointing: full"
    settings: dict[str, Any]  # dotted keys of the task file and their values
    peak_bytes: int  # with it
    bytes_change: int  # against the plan; negative saves
    step_s: float
    step_change: float  # +0.31 is 31 % slower
    fits: bool | None
    same_mathematics: bool  # whether the trained weights are the same but for rounding
    tier: int = 2  # 1 same mathematics, 2 another algorithm, 3 another thing trained
    sentence: str  # "full checkpointing: −1.9 GB, +31 % time"


class FrontierPoint(Result):
    """A configuration that nothing else beats in both memory and time, or the chosen one."""

    label: str
    settings: dict[str, Any]
    peak_bytes: int
    step_s: float
    fits: bool | None
    chosen: bool
    on_frontier: bool


class Parallel(Result):
    """Several devices: what each moves and what sets the pace. `terms` of the plan are then those of one device."""

    devices: int
    strategy: Literal["ddp", "fsdp"]
    moved_bytes: int  # by each device, in a step
    network_bytes_s: float
    network_s: float
    arithmetic_s: float
    bound: Literal["network", "arithmetic"]
    sentence: str


class Pace(Result):
    """How long, and where the number comes from."""

    step_s: float
    steps: int | None
    total_s: float | None
    tokens_per_s: float
    flops: float  # of a step
    bytes_moved: float  # of a step, to and from memory
    products_flops_s: float  # the speed of matrix products that was assumed
    bandwidth_bytes_s: float
    efficiency: float
    bound: Literal["arithmetic", "bandwidth"]
    source: str  # "measured on this machine" or the catalogue's source, and the stated efficiency


class Cost(Result):
    """Money and energy of the whole run."""

    hours: float
    energy_kwh: float | None
    price: float | None
    currency: str
    per_hour: float | None
    source: str  # of the price


class BreakEven(Result):
    """After how many requests the finetuned model's shorter prompts have repaid the training."""

    prompt_tokens_before: float
    prompt_tokens_after: float
    price_per_million_tokens: float
    training_price: float
    requests: float | None  # None: never
    sentence: str


class MeasuredPlan(Result):
    """What `--measure` found."""

    peak_bytes: int
    predicted_peak_bytes: int
    error: float  # of the prediction, on the bytes above the process's baseline; 0.02 is 2 % too much
    baseline_bytes: int
    step_s: float
    predicted_step_s: float
    sentence: str


class PlanResult(Result):
    """A plan: what the run will need, how long it takes, whether it fits, and what else there is."""

    task: str | None
    run: str | None
    model: str
    architecture: str  # "LlamaForCausalLM, 134.5M parameters, 30 layers"
    parameters: int
    trainable_parameters: int
    method: str  # full | lora | qlora | inference, or the adapter kind
    settings: dict[str, Any]  # the settings that were planned, dotted keys of the task file
    device: str
    device_source: str
    verified: bool  # whether such predictions have been held against measurements on this kind of device
    seq: int  # tokens of the longest row
    batch: int  # rows of the heaviest step, or of inference
    terms: Terms
    notes: list[TermNote]
    peak_bytes: int
    peak_at: str  # "backward, block 29"
    moments: list[Moment]
    baseline_bytes: int  # interpreter and imports, part of overhead
    textbook_bytes: int | None  # inference: weights + 20 %
    rules: dict[str, int]  # what rules of thumb say: name -> bytes
    step_s: float
    total_s: float | None
    pace: Pace
    fits: bool | None  # None: no budget and no device memory known
    limit_bytes: int | None  # the budget, or the device's memory
    limit_source: str  # budget.memory, memory of the device
    choice: dict[str, Any]  # what was chosen to fit: dotted keys and values; empty: nothing had to change
    choice_tier: int = 0  # 0 nothing changed, 1 same mathematics, 2 another algorithm, 3 another thing trained
    concessions: list[Concession]
    frontier: list[FrontierPoint]
    smallest_bytes: int | None  # the smallest peak of all that was tried
    parallel: Parallel | None
    cost: Cost | None
    break_even: BreakEven | None
    measured: MeasuredPlan | None
    warnings: list[str]
    sentence: str  # the answer in one sentence
    environment: Environment
    seconds: float
