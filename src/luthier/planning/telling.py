"""What a plan says in words and in its smaller parts: settings, moments, cost, warnings, the answer in one sentence.

sentence_of(question, terms, settings, smallest, fits, step_s, total_s)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

from luthier.ground.plan_result import Cost, Moment, Terms
from luthier.ground.spec import TrainSpec
from luthier.ground.words import exact_size, seconds
from luthier.machine.prices import electricity, price_of
from luthier.planning.choose import Chosen
from luthier.planning.cost import cost_of
from luthier.planning.predict import Prediction
from luthier.planning.question import VERIFIED, Question


def rate_of(pace: Any, step_s: float) -> float:
    """Return tokens a second for another time of a step."""
    return float(pace.tokens_per_s * pace.step_s / step_s) if step_s else 0.0


def moments_of(predicted: Prediction, terms: Terms) -> list[Moment]:
    """Return the stages, none above the peak; with several devices they are those of one, whose terms are smaller."""
    less = predicted.terms.total - terms.total
    return [replace_bytes(moment, max(0, min(moment.peak_bytes - less, terms.total))) for moment in predicted.moments]


def replace_bytes(moment: Moment, peak_bytes: int) -> Moment:
    """Return the moment with another peak."""
    return moment.model_copy(update={"peak_bytes": peak_bytes})


def architecture_of(config: PretrainedConfig, predicted: Prediction) -> str:
    """Return class, parameters and layers in one phrase."""
    name = (getattr(config, "architectures", None) or [config.model_type])[0]
    layers = getattr(config, "num_hidden_layers", None)
    return f"{name}, {predicted.parameters / 1e6:,.1f}M parameters" + (f", {layers} layers" if layers else "")


_SHOWN = (
    "precision", "base", "checkpointing", "mlp_tile", "optimizer", "optimizer_in_backward", "layers_in_turn",
    "pack_tokens", "rows_per_step", "tokens_per_step", "max_length",
)  # fmt: skip


def settings_of(spec: TrainSpec, method: str) -> dict[str, Any]:
    """Return the settings that are shown, dotted keys."""
    if method == "inference":
        return {"precision": spec.precision} | ({"base": spec.base} if spec.base else {})
    shown = {f"train.{key}": value for key in _SHOWN if (value := getattr(spec, key)) not in (None, False)}
    adapter: dict[str, Any] = {"train.adapter.kind": spec.adapter.kind}
    if spec.adapter.kind == "full":
        adapter["train.adapter.masters"] = spec.adapter.masters
    else:
        of_adapter = {"rank": spec.adapter.rank, "layers": spec.adapter.layers}
        adapter |= {f"train.adapter.{key}": value for key, value in of_adapter.items() if value is not None}
    return {**adapter, **shown}


def run_cost(question: Question, total_s: float | None) -> Cost | None:
    """Return what the whole run costs; None if its length is not known."""
    if total_s is None:
        return None
    price = price_of(question.device, question.prices)
    return cost_of(total_s, question.device, question.devices, price, electricity(question.prices))


def overridden_warnings(chosen: Chosen | None) -> list[str]:
    """Say which keys of the task file would have to change."""
    keys = chosen.choice.overridden if chosen else ()
    return [f"Nothing fits with what the task file sets: {', '.join(keys)} would have to change."] if keys else []


def warnings_of(question: Question, spec: TrainSpec) -> list[str]:
    """Say what the plan cannot vouch for."""
    said = []
    if question.device.kind not in VERIFIED:
        said.append("Unverified: predictions for such devices were never held against a measurement.")
    if spec.precision == "fp16" or (spec.base, spec.precision) == ("fp32", "bf16"):
        said.append("Casts of mixed arithmetic are not traced: what is told is the memory of float32 arithmetic.")
    return said


def sentence_of(
    question: Question,
    terms: Terms,
    settings: Mapping[str, Any] | None,
    smallest: int | None,
    fits: bool | None,
    step_s: float,
    total_s: float | None,
) -> str:
    """Return the answer in one sentence."""
    how = f" with {_said(settings)}" if settings else ""
    what = f"{question.name}, {question.method}, needs {exact_size(terms.total)}{how}"
    where = f" on {'each of ' + str(question.devices) + ' x ' if question.devices > 1 else ''}{question.device.name}"
    time = f" {seconds(step_s)} a {'token' if question.method == 'inference' else 'step'}"
    time += f", {seconds(total_s)} in all" if total_s is not None else ""
    if fits is None:
        return f"{what}{where};{time}."
    limit = f"{exact_size(question.limit_bytes or 0)} ({question.limit_source})"
    if fits:
        return f"{what}{where} and fits into {limit};{time}."
    least = f"; the smallest that was found needs {exact_size(smallest)}" if smallest else ""
    return f"{what}{where} and does not fit into {limit}{least}."


def _said(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.removeprefix('train.')}: {value}" for key, value in settings.items())
