"""`luthier compare`: answer the test items with every system, and compare them paired, with intervals.

What the systems need is made if it is not there yet: the index, the best prompt (on dev), the adapters. What was made
before and would come out the same is taken from its run. The test items are read once, here.

    result = compare("task.yaml"); result.verdict
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from luthier.evaluation.classification import classification
from luthier.evaluation.classifier import MajoritySystem
from luthier.evaluation.comparison import compare_systems
from luthier.evaluation.scoring import SystemRun, run_system, write_items
from luthier.evaluation.sentences import headline
from luthier.evaluation.systems import SYSTEMS, Item, Passages, System, SystemContext, TrainedSystem
from luthier.generation.endpoint import Endpoint
from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.ground.objective_results import ClassificationResult
from luthier.ground.results import CompareResult, PromptResult, TrainResult
from luthier.ground.task import Task, load_task
from luthier.machine.describe import environment
from luthier.objectives.classify import Classification
from luthier.rows.compose import Prompt, compose
from luthier.verbs.classifying import classifier_system
from luthier.verbs.compare_context import context_result
from luthier.verbs.compare_text import compare_text, text_systems
from luthier.verbs.prompt import chosen_prompt
from luthier.verbs.runs import Run, open_run
from luthier.verbs.train import train_system, trained
from luthier.verbs.trained import trained_in
from luthier.verbs.workbench import SPLITS, Workbench

PROMPTED = {"prompt", "rag", "endpoint"}
RETRIEVING = {"rag", "finetuned+rag"}
FINETUNED = {"finetuned", "finetuned+rag"}
WRITING = {"base", "prompt", "rag"}


def compare(task: Task | str | Path, *, out: str | Path | None = None, tell: Tell = silent) -> CompareResult:
    """Compare the task's systems on its test items.

    Args:
        out: the run directory (default: a new one); gets `report.json` and `items.jsonl`.

    Raises:
        BadInput: there are no test items, or a named system cannot run on this task.
        Refused: an adapter must be trained and the data check says that it would be meaningless.
    """
    task = task if isinstance(task, Task) else load_task(task)
    bench = Workbench(task, tell)
    is_text = bench.objective.answers == "likelihood"
    names = text_systems(bench) if is_text else system_names(task, writes=bench.writes)
    with open_run(task, "compare", out, tell) as run:
        result = compare_text(bench, run) if is_text else _compare(bench, names, run)
        run.finish(result)
    return result


def system_names(task: Task, *, writes: bool = True) -> list[str]:
    """Return the systems to run: those that the task names, or all that it can run.

    Args:
        writes: whether the base model can write; an encoder only reads.

    Raises:
        BadInput: a named system is not known, or needs what the task has not.
    """
    spec = task.spec
    if not spec.compare.systems:
        classifies = bool(spec.labels) or spec.train.objective == "classify"
        wanted = ["majority"] if classifies and spec.data.train else []
        wanted += ["base"] if writes else []
        wanted += ["prompt"] if writes and spec.data.dev else []
        wanted += ["rag"] if writes and spec.data.dev and spec.documents else []
        wanted += ["finetuned"] if spec.data.train else []
        wanted += ["finetuned+rag"] if spec.data.train and spec.documents else []
        return wanted + (["endpoint"] if spec.endpoint else [])
    for name in spec.compare.systems:
        SYSTEMS.get(name)
        needs = {
            "data.dev": name in PROMPTED and not spec.data.dev,
            "documents": name in RETRIEVING and not spec.documents,
            "data.train": name in FINETUNED | {"majority"} and not spec.data.train,
            "a model that writes": name in WRITING and not writes,
            "endpoint": name == "endpoint" and not spec.endpoint,
        }
        lacking = [key for key, missing in needs.items() if missing]
        if lacking:
            raise BadInput(
                f"the system {name} needs {' and '.join(lacking)}",
                where=f"{task.path} (compare.systems)",
                fix=f"set {lacking[0]}, or leave the system out" if "." in lacking[0] else "leave the system out",
            )
    return list(dict.fromkeys(spec.compare.systems))


@dataclass(frozen=True)
class _Made:
    """What had to be there before the first answer."""

    prompt: PromptResult | None
    training: dict[str, TrainResult]
    context: SystemContext


def _compare(bench: Workbench, names: Sequence[str], run: Run) -> CompareResult:
    started = time.perf_counter()
    spec = bench.spec
    if spec.data.test is None:
        raise BadInput(
            "the task names no test items, so nothing can be compared",
            where=str(bench.task.path),
            fix="set data.test to examples that nothing is trained or chosen on",
        )
    if spec.endpoint is not None and "endpoint" in names:
        Endpoint(spec.endpoint)  # a wrong address or a missing key is told before the work
    if not bench.writes:
        run.tell({"kind": "warning", "text": f"{spec.model} reads and cannot write: base, prompt and rag are left out"})
    items = bench.items("test")
    made = _make(bench, names)
    runs: list[SystemRun] = []
    for name in names:
        runs.append(_answers(bench, name, items, made, run))
        write_items(run.path / "items.jsonl", runs)  # what was answered stays, whatever happens to the next
    comparison = compare_systems(
        runs,
        bench.metric,
        bench.metric_context,
        confidence=spec.compare.confidence,
        margin=spec.compare.margin,
        seed=spec.compare.seed,
    )
    return CompareResult(
        task=spec.name,
        run=str(run.path),
        metric=spec.metric,
        model=spec.model,
        n_test=len(items),
        n_dev=len(bench.rows("dev")) if spec.data.dev else 0,
        n_train=len(bench.rows("train")) if spec.data.train else 0,
        sampled=_sampled(bench),
        verdict=headline(
            comparison.systems, comparison.contrasts, binary=bench.metric.binary, target=spec.compare.target
        ),
        systems=list(comparison.systems),
        contrasts=list(comparison.contrasts),
        items=str(run.path / "items.jsonl"),
        examples=list(comparison.examples),
        target=spec.compare.target,
        margin=spec.compare.margin,
        confidence=spec.compare.confidence,
        has_documents=spec.documents is not None,
        prompt=made.prompt,
        training=made.training,
        index=bench.index if RETRIEVING & set(names) else None,
        check=bench.sheet,
        provenance=bench.model(spec.generation.precision).provenance,
        environment=environment(spec.compare.seed),
        context=context_result(bench, made.training.get("finetuned"), run.tell),
        classification=_classification(bench, runs),
        seconds=time.perf_counter() - started,
    )


def _classification(bench: Workbench, runs: Sequence[SystemRun]) -> ClassificationResult | None:
    """Return what the systems are as classifiers; None if the task has no labels."""
    if not bench.classifies:
        return None
    compare = bench.spec.compare
    return classification(runs, bench.labels, confidence=compare.confidence, seed=compare.seed)


def _make(bench: Workbench, names: Sequence[str]) -> _Made:
    """Make, or find, the index, the prompt and the adapters that the systems need."""
    spec = bench.spec
    own = Prompt(bench.task.instruction)
    result, best = chosen_prompt(bench) if PROMPTED & set(names) else (None, own)
    counts = {"finetuned": 0, "finetuned+rag": spec.train.passages or spec.retrieval.passages}
    training = {}
    for name in names:
        if name in FINETUNED:
            training[name] = trained(bench, counts[name]) or train_system(bench, counts[name])
    context = SystemContext(
        generator=bench.generator() if bench.writes else None,
        ask=bench.ask if bench.writes else None,
        settings=bench.settings,
        own_prompt=own,
        best_prompt=best,
        passages_prompt=_with_passages(bench, best) if "rag" in names or spec.endpoint else best,
        train_prompt=bench.train_prompt,
        passages=bench.retriever(),
        train_passages=bench.retriever(counts["finetuned+rag"]),
        adapter=lambda name: _adapter(bench, Path(training[name].adapter)),
        endpoint=spec.endpoint,
        trained_ask=bench.objective.ask,
        trained_generator=bench.trained_generator() if training and bench.objective.answers == "text" else None,
        trained=_classifier(bench, training) if isinstance(bench.objective, Classification) else None,
        majority=MajoritySystem(bench.labels.commonest) if "majority" in names else None,
    )
    return _Made(result, training, context)


def _classifier(bench: Workbench, training: dict[str, TrainResult]) -> TrainedSystem:
    """Return what makes the systems that a trained head is."""

    def make(name: str, passages: Passages | None) -> System:
        folder = Path(training[name].adapter)
        return classifier_system(bench, name, bench.train_prompt, passages, prepare=lambda: _adapter(bench, folder))

    return make


def _with_passages(bench: Workbench, prompt: Prompt) -> Prompt:
    """Return the prompt with each worked example showing the passages found for it, so that it shows their use."""
    find = bench.retriever()
    if find is None or not prompt.examples:
        return prompt
    found = find([Item.of(row) for row in prompt.examples])
    shown = [
        compose(row, Prompt(), [passage.text for passage in passages], with_answer=True)
        for row, passages in zip(prompt.examples, found, strict=True)
    ]
    return Prompt(prompt.instruction, tuple(shown))


def _adapter(bench: Workbench, folder: Path) -> AbstractContextManager[None]:
    model = bench.model(bench.spec.generation.precision).model
    return trained_in(model, bench.objective.extensions, folder)


def _answers(bench: Workbench, name: str, items: Sequence[Item], made: _Made, run: Run) -> SystemRun:
    system = SYSTEMS.get(name)(made.context)
    needs_dev = name in {"rag", "finetuned"} and "finetuned+rag" in made.training
    dev_score = _dev_score(bench, system, run) if needs_dev else None
    run.tell({"kind": "stage", "text": f"{system.title}: answering {len(items)} test items"})
    training = made.training.get(name)
    return run_system(
        system,
        items,
        bench.metric,
        bench.metric_context,
        train_seconds=training.seconds if training else None,
        dev_score=dev_score,
        tell=run.tell,
    )


def _dev_score(bench: Workbench, system: System, run: Run) -> float | None:
    """Score a rival on dev, where the choice between rivals is made."""
    if bench.spec.data.dev is None:
        return None
    items = bench.items("dev")[: bench.spec.prompt.dev_items]
    run.tell({"kind": "stage", "text": f"{system.title}: answering {len(items)} dev items"})
    return bench.mean_score(system.answer(items, run.tell), items)


def _sampled(bench: Workbench) -> str | None:
    used = []
    for split in SPLITS:
        result = bench.read(split)
        if result is not None and len(bench.rows(split)) < len(result.rows):
            used.append(f"{len(bench.rows(split))} of {len(result.rows)} {split} rows")
    return f"A sample was used: {', '.join(used)}." if used else None
