"""Find what can fill gaps: a trained adapter with its base model and its settings, or a base model that knows how.

infiller = find_infiller(adapter="runs/train-001"); model = infiller.load().model
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from luthier.adapters.base import kind_of_folder
from luthier.ground.errors import BadInput, Refused
from luthier.ground.events import Tell, silent
from luthier.ground.files import expanded
from luthier.ground.results import TrainResult
from luthier.ground.spec import AdapterSpec, TrainSpec
from luthier.ground.task import Task, load_task
from luthier.models.architecture import architecture_of
from luthier.models.extension import Extension
from luthier.models.find import Found, find_model
from luthier.models.folder import read_json_file
from luthier.models.load import LoadedModel, load_config, load_model
from luthier.objectives.base import ObjectiveContext, make_objective
from luthier.objectives.infill import FillInTheMiddle
from luthier.objectives.span_infill import SpanInfill
from luthier.verbs.runs import find_run
from luthier.verbs.trained import base_of, renderer_of, saved_extensions

Precision = Literal["bf16", "fp32"]


@dataclass(frozen=True)
class Infiller:
    """What fills gaps: how a text is asked about, the trained adapter (None: the base model itself), the model."""

    objective: FillInTheMiddle | SpanInfill
    folder: Path | None
    load: Callable[[], LoadedModel]


@dataclass(frozen=True)
class _Trained:
    """An adapter, and what is known of its training."""

    folder: Path
    train: TrainSpec


def find_infiller(
    *,
    adapter: str | Path | None = None,
    task: Task | str | Path | None = None,
    model: str | None = None,
    precision: Precision = "bf16",
    tell: Tell = silent,
) -> Infiller:
    """Return what fills gaps, by whatever is named.

    Raises:
        BadInput: nothing is named, or what is named is not there or was trained for something else.
        Refused: a base model alone has no sentinel tokens.
    """
    if adapter is None and task is None and model is None:
        raise BadInput("nothing is named that could fill the gap", fix="add --adapter, --task or --model")
    here = Path.cwd()
    if task is not None:
        task = task if isinstance(task, Task) else load_task(task)
        model, here = model or task.spec.model, task.folder
    trained = _of_adapter(expanded(adapter)) if adapter is not None else _newest(task) if task is not None else None
    name = model or base_of(trained.folder if trained else Path())
    found = find_model(name, folder=here, tell=tell)
    objective = _objective(found, trained)
    if trained is None and objective.extensions:
        raise Refused(
            f"{name} has no tokens that mark a gap, so it was never trained to fill one",
            fix="train an adapter with train.objective: infill, or name a model that has them",
        )

    def load() -> LoadedModel:
        tell({"kind": "stage", "text": f"loading {name} ({precision})"})
        return load_model(found, precision)

    return Infiller(objective, trained.folder if trained else None, load)


def _newest(task: Task) -> _Trained:
    run = find_run(task, "train", TrainResult)
    if run is None:
        raise BadInput("the task has no ended training", where=str(task.path), fix="run `luthier train` first")
    return _of_adapter(run[0])


def _of_adapter(path: Path) -> _Trained:
    """Return the adapter in a folder, or of a run, and the settings that its run knows."""
    if not path.is_dir():
        raise BadInput("there is no such folder", where=str(path), fix="name a training run, or its adapter's folder")
    run = path if (path / "spec.json").is_file() else path.parent.parent
    folder = _adapter_of_run(path) if run == path else path
    kind = kind_of_folder(folder)
    said = read_json_file(run / "spec.json") if (run / "spec.json").is_file() else {}
    if said.get("verb") != "train":
        return _Trained(folder, TrainSpec(objective="infill", adapter=AdapterSpec(kind=kind)))
    spec = said.get("spec")
    train = TrainSpec.model_validate(spec.get("train", {}) if isinstance(spec, dict) else {})
    if train.objective != "infill":
        raise BadInput(
            f"this adapter was trained by {train.objective}, and not to fill gaps",
            where=str(path),
            fix="train one with train.objective: infill",
        )
    return _Trained(folder, train)


def _adapter_of_run(run: Path) -> Path:
    with contextlib.suppress(OSError, ValueError, KeyError):
        named = Path(json.loads((run / "report.json").read_text(encoding="utf-8"))["adapter"])
        moved = run / named.parent.name / named.name  # a run may have been moved since
        return moved if moved.is_dir() else named
    raise BadInput(
        "this run has not ended, so it has no adapter yet", where=str(run), fix="add --resume to its training"
    )


def _objective(found: Found, trained: _Trained | None) -> FillInTheMiddle | SpanInfill:
    config, renderer = load_config(found), renderer_of(found)
    extensions: tuple[Extension, ...] = ()
    if trained is not None:
        renderer, extensions = saved_extensions(renderer, trained.folder)
    context = ObjectiveContext(
        renderer,
        train=trained.train if trained else TrainSpec(objective="infill", max_length=_window(config)),
        architecture=architecture_of(config),
        config=config,
        extensions=extensions,
    )
    objective = make_objective("infill", context)
    assert isinstance(objective, FillInTheMiddle | SpanInfill)
    return objective


def _window(config: Any) -> int:
    window = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return window if isinstance(window, int) else 2048
