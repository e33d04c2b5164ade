"""What the verbs need of classification: the trained head as a system.

system = classifier_system(bench, "finetuned", bench.train_prompt, None, prepare=adapter_in)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from luthier.evaluation.classifier import ClassifierSystem, predict
from luthier.evaluation.systems import Passages
from luthier.models.load import LoadedModel
from luthier.objectives.classify import Classification
from luthier.rows.compose import Prompt
from luthier.verbs.workbench import Workbench


def classifier_system(
    bench: Workbench,
    name: str,
    prompt: Prompt,
    passages: Passages | None,
    *,
    prepare: Callable[[], AbstractContextManager[object]] = nullcontext,
    loaded: LoadedModel | None = None,
) -> ClassifierSystem:
    """Return the trained head as a system; `loaded` is the model that carries it, else that of `generation`."""
    objective = bench.objective
    assert isinstance(objective, Classification)
    return ClassifierSystem(
        name,
        lambda rows: predict((loaded or bench.model(bench.spec.generation.precision)).model, objective, rows),
        objective,
        prompt,
        passages,
        prepare=prepare,
    )
