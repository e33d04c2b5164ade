"""`luthier classify`: what a trained head says about texts, with its probabilities.

The adapter's folder knows all that is needed: base model, labels, and what the model was told in training.

    classify(["My card was refused."], adapter="runs/train-001/step-000038/adapter").answers[0].label
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from luthier.evaluation.classifier import ClassifierSystem, predict
from luthier.evaluation.systems import Item
from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.ground.label_results import ClassifiedText, ClassifyResult
from luthier.models.architecture import architecture_of
from luthier.models.find import find_model
from luthier.models.head import HeadFacts, head_facts
from luthier.models.load import LoadedModel, load_model
from luthier.objectives.base import ObjectiveContext
from luthier.objectives.classify import Classification, labels_of
from luthier.rows.compose import Prompt
from luthier.rows.types import Message, Row
from luthier.verbs.trained import base_of, renderer_of, saved_extensions, trained_in


def classify(
    texts: Sequence[str],
    *,
    adapter: str | Path,
    model: str | None = None,
    precision: Literal["bf16", "fp32"] = "bf16",
    tell: Tell = silent,
) -> ClassifyResult:
    """Return label and probabilities of each text.

    Args:
        adapter: the folder that a training by `classify` wrote.
        model: the base model (default: the name that the adapter was trained with).

    Raises:
        BadInput: there are no texts, the folder holds no such adapter, or its base model is not named and not known.
        Refused: the base model is another than the adapter was trained on.
    """
    if isinstance(texts, str):
        texts = [texts]
    if not texts:
        raise BadInput("there is nothing to classify", fix="give a text")
    folder = Path(adapter)
    facts = head_facts(folder)
    name = model or base_of(folder)
    tell({"kind": "stage", "text": f"loading {name} ({precision})"})
    loaded = load_model(find_model(name, tell=tell), precision)
    return _classified(loaded, folder, facts, texts, tell)


def _classified(
    loaded: LoadedModel, folder: Path, facts: HeadFacts, texts: Sequence[str], tell: Tell
) -> ClassifyResult:
    objective = _objective(loaded, folder, facts)
    items = [Item.of(_row(number, text)) for number, text in enumerate(texts, 1)]
    system = ClassifierSystem(
        "finetuned",
        lambda rows: predict(loaded.model, objective, rows),
        objective,
        Prompt(facts.instruction),
        None,
    )
    began = time.perf_counter()
    with trained_in(loaded.model, objective.extensions, folder):
        answers = system.answer(items, tell)
    said = [
        ClassifiedText(text=text, label=answer.text, probabilities=dict(answer.probabilities or {}), cause=answer.cause)
        for text, answer in zip(texts, answers, strict=True)
    ]
    return ClassifyResult(
        kind=facts.kind,
        labels=list(facts.labels),
        answers=said,
        adapter=str(folder),
        provenance=loaded.provenance,
        seconds=time.perf_counter() - began,
    )


def _objective(loaded: LoadedModel, folder: Path, facts: HeadFacts) -> Classification:
    renderer, extensions = saved_extensions(renderer_of(loaded.found), folder)
    context = ObjectiveContext(
        renderer,
        labels=labels_of(facts),
        instruction=facts.instruction,
        architecture=architecture_of(loaded.model.config),
        config=loaded.model.config,
        extensions=extensions,
    )
    return Classification(context)


def _row(number: int, text: str) -> Row:
    if not text.strip():
        raise BadInput(f"text {number} is empty", fix="leave it out")
    return Row(id=str(number), place=f"text {number}", messages=(Message("user", text),))
