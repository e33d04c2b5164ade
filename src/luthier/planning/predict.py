"""Predict the memory and the work of training, from a config and the packs of a few steps, by tracing the real step.

The model is built without memory, the adapter injected, the engine put in its place and the optimizer made by the same
functions that train; then the step runs (`luthier.planning.trace`). Its allocations are replayed in the order in which
they came through a model of the C library's allocator, and what is there at the peak is told by term. Loading,
choosing, time and money are not here.

    predict_training(config, spec, [packs], baseline_bytes=500_000_000).peak_bytes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from luthier.adapters.base import get_kind
from luthier.ground.plan_result import TERMS, Moment, Terms
from luthier.ground.spec import TrainSpec
from luthier.models.architecture import architecture_of
from luthier.models.masters import Master
from luthier.models.planned import hearing, planned_for
from luthier.models.quantized import parameter_count, quantize_model, weight_counts
from luthier.objectives.base import Objective, ObjectiveContext, make_objective
from luthier.planning.fused import fused_attention
from luthier.planning.replay import Profile, replayed
from luthier.planning.stages import places_of, stage_of, term_of
from luthier.planning.subject import meta_model, plannable
from luthier.planning.trace import MemoryTrace
from luthier.planning.work import Work
from luthier.rows.types import Encoded, Pack, Row
from luthier.training.engine.body import engine_for
from luthier.training.precision import base_precision, base_quantized
from luthier.training.step import TorchStep

# What the process has beside its tensors once it trains, above the imports: the tokenizer, oneDNN's kernels and
# scratch, threads, autograd. And what the model of the allocator does not see: small objects between large blocks that
# keep them apart, as do gradients of the earlier packs of a step. All are fitted on the ten calibration cells of
# benchmarks/plan_accuracy.py, which are not judged, and towards the safe side: runs of one cell differ by up to 10 %.
PROCESS_BYTES = 98_000_000
SCATTERED = 0.05  # of all tensors at the peak
SCATTERED_PACKS = 0.03  # of the activations, where a step has several packs
SCATTERED_LAYERS = 0.12  # of what the forward frees, where the model's own modules checkpoint and leave objects between
# Of encoder-decoders on a processor: kernels that oneDNN keeps for the shapes of their attention, and what packs of
# ever new shapes leave between them. Fitted on the trainings of a T5 and a BART in docs/encoder_decoder.md.
ENCODER_BYTES = 180_000_000
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Prediction:
    """What a process needs.

    Attributes:
        terms: the bytes at the peak of training; they sum to it.
        moments: the most bytes at each stage.
        work: of the last step that was traced.
        live_bytes: the most bytes in tensors at one time of the steps.
        waste_bytes: what the allocator holds at the peak beside what is used; part of the overhead.
        profile: of the last step, as `Replay` has it.
    """

    terms: Terms
    moments: tuple[Moment, ...]
    peak_at: str
    work: Work
    live_bytes: int
    parameters: int
    trainable_parameters: int
    engine: str
    outside_parameters: int = 0
    block_parameters: int = 0
    largest_trained: int = 0
    waste_bytes: int = 0
    profile: Profile = field(default_factory=dict, repr=False)

    @property
    def peak_bytes(self) -> int:
        """The most bytes while training."""
        return self.terms.total


def predict_training(
    config: PretrainedConfig,
    spec: TrainSpec,
    steps: Sequence[Sequence[Pack]],
    *,
    baseline_bytes: int,
    device: str = "cpu",
    objective: Objective | None = None,
    prepared: bool = False,
) -> Prediction:
    """Return what training needs.

    Args:
        steps: the packs of a few steps in order, the heaviest last and at least twice: memory is the fullest when the
            optimizer's state is there, and the allocator has been used.
        baseline_bytes: of the process before the model is loaded (on a GPU: of its runtime).
        device: cpu, or cuda, where the allocator is not modelled.
        objective: whose loss is traced (default: supervised finetuning); the packs are its own.
        prepared: make the optimizer's state before the first step, so that one step is enough to see it.
    """
    with plannable(config), planned_for(device), fused_attention(), MemoryTrace() as trace, hearing(trace.hear):
        traced = _trace_steps(trace, config, spec, steps, objective, prepared)
    return told(trace, traced, baseline_bytes, device)


@dataclass
class Traced:
    """What the trace is about."""

    parameters: int
    trainable: int
    engine: str
    work: Work
    outside: int
    block: int
    largest_trained: int
    recomputes: bool  # whether a decoder-only model's own modules checkpoint
    has_encoder: bool


def _trace_steps(
    trace: MemoryTrace,
    config: PretrainedConfig,
    spec: TrainSpec,
    steps: Sequence[Sequence[Pack]],
    objective: Objective | None,
    prepared: bool,
) -> Traced:
    model = meta_model(config, DTYPES[base_precision(spec)])
    if (quantized := base_quantized(spec)) is not None:
        quantize_model(model, quantized)
    trace.adopt([*model.parameters(), *model.buffers()], "weights")
    parameters = parameter_count(model)
    kind = get_kind(spec.adapter.kind)
    objective = objective or make_objective("sft", ObjectiveContext(None, architecture=architecture_of(config)))
    extra: dict[str, nn.Parameter] = {}
    for extension in objective.extensions:
        extra.update(extension.apply(model, seed=spec.seed))
    kind.inject(model, spec.adapter, seed=spec.seed)
    trainable = {**kind.trainable(model), **extra}
    _label_trained(trace, trainable, model)
    step = TorchStep(model, _Staged(trace, objective), trainable, spec)
    if prepared and not spec.layers_in_turn:
        step.prepare()
    trace.mark("trim")
    with engine_for(model, spec) as engine:
        trace.adopt(_own_tensors(model), "weights")
        trace.mark("trim")
        before = Work()
        for packs in steps:
            before = trace.total_work()
            trace.mark("step")
            step.run(packs, spec.learning_rate)
            trace.mark("step_end")
        work = trace.total_work() - before
        trace.adopt([value for name, value in step.tensors().items() if not name.startswith("weight/")], "optimizer")
        name, recomputes = engine.sentence, engine.name == "general" and spec.checkpointing != "none"
    has_encoder = bool(model.config.is_encoder_decoder)
    sizes = [weight.numel() for weight in trainable.values()]
    outside, block = _parts(model)
    return Traced(
        parameters,
        sum(sizes),
        name,
        work,
        outside,
        block,
        max(sizes, default=0),
        recomputes and not has_encoder,
        has_encoder,
    )


def _parts(model: PreTrainedModel) -> tuple[int, int]:
    """Return the weights outside of numbered blocks, and those of the largest block."""
    outside, blocks = 0, Counter[str]()
    for name, count in weight_counts(model).items():
        parts = name.split(".")
        number = next((place for place, part in enumerate(parts) if part.isdigit()), None)
        if number is None:
            outside += count
        else:
            blocks[".".join(parts[: number + 1])] += count
    return outside, max(blocks.values(), default=0)


def _label_trained(trace: MemoryTrace, trainable: Mapping[str, nn.Parameter], model: PreTrainedModel) -> None:
    """Say what is trained, and watch for its gradients."""
    own = {id(weight) for weight in _own_tensors(model)}
    for weight in trainable.values():
        if id(weight) not in own:
            trace.adopt([weight], "optimizer" if isinstance(weight, Master) else "adapters")

        def label(of: Tensor) -> None:
            if of.grad is not None:
                trace.adopt([of.grad], "gradients")

        weight.register_post_accumulate_grad_hook(label)  # type: ignore[no-untyped-call]


def _own_tensors(model: PreTrainedModel) -> list[Tensor]:
    """Return the weights and buffers of the model itself, without what an adapter added."""
    return [weight for name, weight in model.named_parameters() if "lora_" not in name] + list(model.buffers())


class _Staged(Objective):
    """An objective that tells the trace where it is."""

    name = "staged"

    def __init__(self, trace: MemoryTrace, objective: Objective) -> None:
        super().__init__(objective.context)
        self._trace = trace
        self._objective = objective

    def encode(self, row: Row) -> Encoded:
        return self._objective.encode(row)

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, float]:
        self._trace.stage = "forward"
        try:
            return self._objective.loss(model, pack)
        finally:
            self._trace.mark("forward_end")
            self._trace.stage = "backward"


# -- what is told --------------------------------------------------------------------------------------------------


def told(trace: MemoryTrace, traced: Traced, baseline_bytes: int, device: str) -> Prediction:
    """Return what a trace of steps says."""
    ends = trace.marks["forward_end"]
    replay = replayed(trace, device, stage_of, lambda block: term_of(block, ends), places_of(trace))
    process = PROCESS_BYTES + (ENCODER_BYTES if traced.has_encoder else 0)
    beside = baseline_bytes + (process if device == "cpu" else 0)
    scattered = _scattered_bytes(trace, replay.sizes, traced.recomputes) if device == "cpu" else 0
    return Prediction(
        terms=replay.terms(beside + scattered),
        moments=replay.moments(beside + scattered),
        peak_at=replay.peak_at,
        work=traced.work,
        live_bytes=trace.live_peak_bytes(trace.marks["step"][0], trace.marks["step_end"][-1]),
        parameters=traced.parameters,
        trainable_parameters=traced.trainable,
        engine=traced.engine,
        outside_parameters=traced.outside,
        block_parameters=traced.block,
        largest_trained=traced.largest_trained,
        waste_bytes=replay.waste_bytes + scattered,
        profile=replay.profile,
    )


def _scattered_bytes(trace: MemoryTrace, sizes: Sequence[int], recomputes: bool) -> int:
    """Return what lies unused between blocks beyond what the model of the allocator finds."""
    several = len(trace.marks["forward_end"]) > len(trace.marks["step"])
    freed = _freed_in_forward(trace) if recomputes else 0
    packs = SCATTERED_PACKS * sizes[TERMS.index("activations")] * several
    return round(SCATTERED * sum(sizes) + packs + SCATTERED_LAYERS * freed)


def _freed_in_forward(trace: MemoryTrace) -> int:
    """Return the bytes that came and went within the last forward."""
    begin, end = trace.marks["step"][-1], trace.marks["forward_end"][-1]
    inside = (block for block in trace.blocks if begin <= block.made < end)
    return sum(block.bytes for block in inside if block.freed is not None and block.freed < end)
