"""Put a plan together: what is predicted, how long it takes, whether it fits, what else there is, what it costs.

The parts come from the other modules of this room; here is only which of them answers which question.

    answer(Question(...)).sentence
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from transformers import PretrainedConfig

from luthier.ground.errors import BadInput
from luthier.ground.plan_result import Pace, Parallel, PlanResult, Terms
from luthier.ground.spec import TrainSpec
from luthier.machine.describe import environment
from luthier.planning.choose import Chosen, Outcome, choose
from luthier.planning.config import is_encoder_decoder
from luthier.planning.notes import notes_of
from luthier.planning.pace import pace_of
from luthier.planning.parallel import ModelSizes, network_of, parallel_notes, parallel_plan, step_s_of
from luthier.planning.predict import Prediction, predict_training
from luthier.planning.predict_inference import InferencePrediction, predict_inference
from luthier.planning.question import VERIFIED, Question
from luthier.planning.scaled import TRACED_IN_FULL, depth_of, predict_quickly, predict_scaled
from luthier.planning.telling import (
    architecture_of,
    moments_of,
    overridden_warnings,
    rate_of,
    run_cost,
    sentence_of,
    settings_of,
    warnings_of,
)
from luthier.planning.textbook import inference_bytes, rules
from luthier.planning.workload import Workload

_TIMES_AGAIN, _MARGIN_BYTES = 3, 5_000_000  # a choice that does not keep the limit as a whole is made again
_SHALLOW = (2, 3)  # layers of the models on which other settings are tried
# How many other settings are tried, where something has to change and where nothing has to. Of wide and deep models and
# of encoder-decoders a trial takes longer, and an answer is wanted in seconds.
_TRIALS, _TRIALS_WITHOUT_NEED = 40, 14
_FEW_TRIALS, _FEW_TRIALS_WITHOUT_NEED = 6, 4


def answer(question: Question) -> PlanResult:
    """Return the plan.

    Raises:
        BadInput: the model or the device cannot be planned as asked, such as several devices without a link.
    """
    workload = question.load(question.spec)
    predicted = _predict(question, question.spec, workload)
    if not question.look_around or question.method == "inference":
        return _told(question, question.spec, workload, predicted, None)
    limit = question.limit_bytes
    for _ in range(_TIMES_AGAIN):
        chosen = _chosen(question, predicted, limit)
        if not chosen.choice.settings:
            return _told(question, question.spec, workload, predicted, chosen)
        spec = chosen.choice.spec
        other_load = question.load(spec)
        other = _predict(question, spec, other_load)
        needed = _one_device(question, spec, other, other_load)[0]
        if _fits(question, needed) is not False:
            return _told(question, spec, other_load, other, chosen, settings=chosen.choice.settings)
        if limit is None or question.limit_bytes is None or not chosen.choice.fits:
            break
        limit -= needed.total - question.limit_bytes + _MARGIN_BYTES  # more than its few layers promised
    return _told(question, question.spec, workload, predicted, chosen, smallest=needed.total)


def prompt_tokens_per_s(question: Question, tokens: int) -> float:
    """Return how fast the device reads a prompt of so many tokens."""
    predicted = _predict_answering(question, tokens, 1)
    pace = pace_of(predicted.prompt_work, question.device, _precision_of(question.spec), tokens=tokens, mode="prompt")
    return pace.tokens_per_s


def _predict(question: Question, spec: TrainSpec, workload: Workload) -> Prediction:
    if question.method == "inference":
        return _predict_answering(question, workload.longest, workload.rows)
    if spec.adapter.layers is not None:  # the last so many of all layers: no pattern that few layers would show
        return _predict_with(question, question.config, spec, workload)
    # Only the allocator of a processor is modelled, and it is fuller after a first step.
    steps = 2 if question.traced_as == "cpu" or spec.layers_in_turn else 1
    return predict_quickly(lambda config: _predict_with(question, config, spec, workload, steps), question.config)


def _predict_answering(question: Question, seq: int, batch: int) -> InferencePrediction:
    return predict_quickly(
        lambda config: predict_inference(
            config,
            precision=question.spec.precision,
            base=question.spec.base,
            seq=seq,
            batch=batch,
            baseline_bytes=question.baseline_bytes,
            device=question.traced_as,
        ),
        question.config,
    )


def _predict_with(
    question: Question, config: PretrainedConfig, spec: TrainSpec, workload: Workload, steps: int = 2
) -> Prediction:
    predicted = predict_training(
        config,
        spec,
        [workload.traced] * steps,
        baseline_bytes=question.baseline_bytes,
        device=question.traced_as,
        objective=question.objective,
        prepared=steps == 1,
    )
    return replace(predicted, work=predicted.work * workload.untraced)


# -- choosing ------------------------------------------------------------------------------------------------------


def _chosen(question: Question, predicted: Prediction, limit_bytes: int | None) -> Chosen:
    """Try other settings on a model of few layers, held to the whole prediction of the spec as written."""
    written = question.load(question.spec)
    few = _few_layers(question, question.spec)
    correction = predicted.peak_bytes - few.peak_bytes  # what few layers do not show of the allocator

    def evaluate(spec: TrainSpec) -> Outcome:
        if question.devices > 1 and spec.optimizer_in_backward:
            raise BadInput("weights cannot be updated before the gradients of several processes are added up")
        workload = question.load(spec)
        found = few if spec == question.spec else _few_layers(question, spec)
        step_s = _pace(question, spec, workload, found).step_s * written.tokens / workload.tokens
        return Outcome(_one_device(question, spec, found, workload)[0].total + correction, step_s)

    return choose(
        question.spec,
        evaluate,
        limit_bytes,
        time_limit_s=question.time_limit_s,
        steps=written.steps,
        has_gpu=question.device.kind == "gpu",
        layers=None if _is_deep(question.config) else depth_of(question.config) or None,
        evaluations=_trials(question, predicted),
    )


def _trials(question: Question, predicted: Prediction) -> int:
    needed = _fits(question, predicted.terms) is False
    if _is_deep(question.config):
        return _FEW_TRIALS if needed else _FEW_TRIALS_WITHOUT_NEED
    return _TRIALS if needed else _TRIALS_WITHOUT_NEED


def _is_deep(config: PretrainedConfig) -> bool:
    return is_encoder_decoder(config) or depth_of(config) > TRACED_IN_FULL


def _fits(question: Question, terms: Terms) -> bool | None:
    return None if question.limit_bytes is None else terms.total <= question.limit_bytes


def _few_layers(question: Question, spec: TrainSpec) -> Prediction:
    workload = question.load(spec)
    steps = 2 if spec.layers_in_turn else 1
    if spec.adapter.layers is not None:
        return _predict_with(question, question.config, spec, workload, steps)
    return predict_scaled(
        lambda config: _predict_with(question, config, spec, workload, steps), question.config, _SHALLOW
    )


def _precision_of(spec: TrainSpec) -> str:
    return "tf32" if spec.precision == "fp32" and spec.tf32 else spec.precision


def _pace(question: Question, spec: TrainSpec, workload: Workload, predicted: Prediction) -> Pace:
    """Return the pace of one device's share, without what the devices exchange."""
    is_inference = question.method == "inference"
    return pace_of(
        predicted.work * (1 / question.devices),
        question.device,
        _precision_of(spec),
        tokens=workload.rows if is_inference else workload.tokens,
        mode="decode" if is_inference else "training",
    )


def _one_device(
    question: Question, spec: TrainSpec, predicted: Prediction, workload: Workload
) -> tuple[Terms, Parallel | None]:
    """Return the terms of one of the devices, and what they exchange; each computes a whole pack at a time."""
    if question.devices < 2 or question.method == "inference":
        return predicted.terms, None
    return parallel_plan(
        predicted.terms,
        _sizes(predicted, spec),
        spec.strategy,
        question.devices,
        arithmetic_s=_pace(question, spec, workload, predicted).step_s,
        network=network_of(question.device, question.devices),
        packs=max(1, -(-len(workload.heaviest) // question.devices)),
    )


def _sizes(predicted: Prediction, spec: TrainSpec) -> ModelSizes:
    whole = predicted.trainable_parameters >= predicted.parameters
    itemsize = {"int8": 1.0, "nf4": 0.52, "fp32": 4.0, "bf16": 2.0}.get(str(spec.base))
    return ModelSizes(
        frozen=0 if whole else predicted.parameters,
        trained=predicted.trainable_parameters,
        outside=predicted.outside_parameters,
        block=predicted.block_parameters,
        weight_bytes=itemsize or (4.0 if spec.precision == "fp32" else 2.0),
        largest_trained=predicted.largest_trained,
        whole_trained=whole,
    )


# -- what is told --------------------------------------------------------------------------------------------------


def _told(
    question: Question,
    spec: TrainSpec,
    workload: Workload,
    predicted: Prediction,
    chosen: Chosen | None,
    settings: Mapping[str, Any] | None = None,
    smallest: int | None = None,
) -> PlanResult:
    terms, parallel = _one_device(question, spec, predicted, workload)
    is_inference = question.method == "inference"
    steps = None if workload.steps is None or not workload.all_tokens else workload.all_tokens / workload.tokens
    pace = _pace(question, spec, workload, predicted)
    step_s = step_s_of(parallel) if parallel else pace.step_s
    total_s = None if steps is None else steps * step_s
    pace = pace.model_copy(
        update={"step_s": step_s, "steps": workload.steps, "total_s": total_s, "tokens_per_s": rate_of(pace, step_s)}
    )
    fits = _fits(question, terms)
    notes = notes_of(question.config, spec, predicted, workload, question.method, question.traced_as)
    if parallel:
        notes = [*notes, *parallel_notes(_sizes(predicted, spec), parallel.strategy, parallel.devices)]
    precision = str(spec.base or spec.precision)
    return PlanResult(
        task=question.task,
        run=question.run,
        model=question.name,
        architecture=architecture_of(question.config, predicted),
        parameters=predicted.parameters,
        trainable_parameters=predicted.trainable_parameters,
        method=question.method,
        settings=settings_of(spec, question.method),
        device=question.device.name,
        device_source=question.device.source,
        verified=question.device.kind in VERIFIED and question.device.measured and not parallel,
        seq=workload.longest,
        batch=workload.rows,
        terms=terms,
        notes=notes,
        peak_bytes=terms.total,
        peak_at=predicted.peak_at,
        moments=moments_of(predicted, terms),
        baseline_bytes=question.baseline_bytes,
        textbook_bytes=inference_bytes(predicted.parameters, precision) if is_inference else None,
        rules=rules(
            predicted.parameters,
            spec.precision,
            question.method,
            adapter_parameters=predicted.trainable_parameters,
            base=spec.base,
        ),
        step_s=step_s,
        total_s=total_s,
        pace=pace,
        fits=fits,
        limit_bytes=question.limit_bytes,
        limit_source=question.limit_source,
        choice=dict(settings or {}),
        choice_tier=chosen.choice.tier if chosen and settings else 0,
        concessions=chosen.concessions if chosen else [],
        frontier=chosen.frontier if chosen else [],
        smallest_bytes=smallest or (min(chosen.smallest_bytes, terms.total) if chosen else None),
        parallel=parallel,
        cost=run_cost(question, total_s),
        break_even=None,
        measured=None,
        warnings=[*warnings_of(question, spec), *overridden_warnings(chosen if settings else None)],
        sentence=sentence_of(question, terms, settings, smallest, fits, step_s, total_s),
        environment=environment(spec.seed),
        seconds=0.0,
    )
