"""`luthier train`: finetune the base model on the task's rows.

Checks the data first and refuses when training would be meaningless; then composes, encodes and trains. What a step
computes, when checkpoints are made and how a run resumes is the training room's affair.

    result = train("task.yaml"); result.adapter
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from luthier.adapters.base import AdapterKind, get_kind
from luthier.evaluation.systems import Item, LocalSystem
from luthier.generation.seq2seq import generator_for
from luthier.ground.errors import Refused
from luthier.ground.events import Tell, silent
from luthier.ground.hashes import key_of
from luthier.ground.results import TrainResult
from luthier.ground.task import Task, load_task
from luthier.ground.units import seconds_of
from luthier.machine.describe import environment
from luthier.models.load import LoadedModel
from luthier.objectives.base import Objective
from luthier.objectives.classify import Classification
from luthier.planning.choose import applied
from luthier.rows.types import Row
from luthier.training.loop import PACK_TOKENS, train_rows
from luthier.training.optimizers.base import OPTIMIZERS
from luthier.training.parallel.group import SOLO, Group, joined
from luthier.training.parallel.launch import is_worker
from luthier.training.precision import autocast_of, float32_products
from luthier.verbs.classifying import classifier_system
from luthier.verbs.corpora import TRAINED, corpus_key, tokenise
from luthier.verbs.encoding import encoded_split
from luthier.verbs.fitting import Fitted, fit
from luthier.verbs.injection import injected
from luthier.verbs.processes import run_of_all, train_in_processes
from luthier.verbs.runs import Run, find_run, open_run, runs_folder
from luthier.verbs.workbench import Workbench


def train(
    task: Task | str | Path,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    procs: int = 1,
    tell: Tell = silent,
) -> TrainResult:
    """Finetune.

    Args:
        out: the run directory (default: a new one; with `resume`, the newest that has not ended).
        resume: go on from the last whole checkpoint; an empty run directory is begun.
        procs: processes on this machine that share the work. Where RANK and WORLD_SIZE are set (torchrun, Slurm), this
            process is one of a group already.

    Raises:
        Refused: the data check says that training would be meaningless, or the loss is not finite.
        Interrupted: Ctrl-C or SIGTERM, after the step was saved; the sentence says how to go on.
    """
    task = task if isinstance(task, Task) else load_task(task)
    if procs > 1:
        return train_in_processes(task, procs, out=out, resume=resume, tell=tell)
    with joined() as group:
        bench = Workbench(task, tell if group.is_first else silent)
        return train_system(bench, task.spec.train.passages, out=out, resume=resume, group=group)


def train_system(
    bench: Workbench,
    passages: int,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    group: Group = SOLO,
) -> TrainResult:
    """Train the task's adapter with `passages` retrieved passages in each prompt (0: none)."""
    _ = bench.objective  # a name that nobody knows is told before the work
    get_kind(bench.spec.train.adapter.kind)
    OPTIMIZERS.get(bench.spec.train.optimizer)
    refuse_meaningless(bench)
    task = bench.task
    if passages:
        group.first(lambda: bench.documents_key)  # one process makes the index
    key = train_key(bench, passages)

    def open_here() -> contextlib.AbstractContextManager[Run]:
        folder = _newest_unended(task) if resume and out is None else out
        return open_run(task, "train", folder, bench.tell, key=key, resume=resume)

    with run_of_all(group, open_here) as run:
        result = _train(bench, passages, run, resume, group)
        if group.is_first:
            run.finish(result)
    return result


def trained(bench: Workbench, passages: int) -> TrainResult | None:
    """Return an ended training run that this one would repeat exactly, if its adapter still lies there."""
    found = find_run(bench.task, "train", TrainResult, train_key(bench, passages))
    return found[1] if found and Path(found[1].adapter).is_dir() else None


def train_key(bench: Workbench, passages: int) -> str:
    """Return a hash of all that the trained weights depend on."""
    spec = bench.spec
    return key_of(
        {
            **bench.base_key(),
            **bench.extended_key(),
            "data": _data_key(bench),
            "train": spec.train.model_dump(mode="json", exclude={"passages", "strategy"}),
            "instruction": bench.train_prompt.instruction,
            "passages": passages,
            "documents": bench.documents_key if passages else None,
            "time": spec.budget.time,
            "memory": [spec.budget.memory, spec.budget.choose],
            "metric": bench.metric_key() if spec.train.best_by == "metric" else None,
        }
    )


def _data_key(bench: Workbench) -> dict[str, str]:
    """Return a hash of the rows of each split that training reads."""
    if bench.objective.reads_corpora:
        return {split: corpus_key(bench, split) for split in TRAINED}
    return bench.data_key("train", "dev")


def refuse_meaningless(bench: Workbench) -> None:
    """Refuse when the data check says that training would be meaningless."""
    sheet = bench.sheet
    if not sheet.ok:
        reasons = "; ".join(sheet.reasons)
        raise Refused(
            f"training would be meaningless: {reasons}",
            where=str(bench.task.path),
            fix="`luthier check` shows the rows",
        )


def _train(bench: Workbench, passages: int, run: Run, resume: bool, group: Group) -> TrainResult:
    objective = bench.objective
    run.tell({"kind": "stage", "text": f"preparing rows{f' with {passages} passages each' if passages else ''}"})
    if objective.reads_corpora:
        group.first(lambda: tokenise(bench, run.tell))  # one process writes what all read
    rows = encoded_split(bench, objective, "train", passages, run.tell)
    dev = encoded_split(bench, objective, "dev", passages, run.tell)
    fitted = Fitted(**group.first(lambda: asdict(fit(bench, objective, rows, run.path, group.size))))
    spec = applied(bench.spec.train, fitted.settings)
    bench = bench.with_train(spec)
    kind = get_kind(spec.adapter.kind)
    with injected(bench, kind, objective, group) as (loaded, trainable, root):
        run.tell({"kind": "stage", "text": f"training {spec.adapter.kind} on {len(rows)} rows{_by(group)}"})
        with float32_products(spec, group.device.type, run.tell):
            outcome = train_rows(
                loaded.model,
                objective,
                rows,
                dev,
                spec,
                run.path,
                trainable=trainable,
                save_adapter=_saver(bench, objective, kind, loaded),
                fingerprint={**bench.base_key(), **bench.extended_key(), "passages": passages},
                autocast=autocast_of(spec),
                score_dev=_scorer(bench, loaded, bench.rows("dev"), passages) if spec.best_by == "metric" else None,
                deadline_s=seconds_of(bench.spec.budget.time) if bench.spec.budget.time else None,
                resume=resume,
                resume_command=_resume_command(bench.task, run, group),
                pack_tokens=spec.pack_tokens or PACK_TOKENS,
                group=group,
                root=root,
                tell=run.tell,
            )
    return TrainResult(
        run=str(run.path),
        name="finetuned+rag" if passages else "finetuned",
        objective=spec.objective,
        adapter_kind=spec.adapter.kind,
        passages=passages,
        provenance=loaded.provenance,
        environment=environment(spec.seed),
        predicted_peak_bytes=fitted.predicted_peak_bytes,
        baseline_bytes=fitted.baseline_bytes,
        planned=fitted.settings,
        **outcome.facts(),
    )


def _saver(bench: Workbench, objective: Objective, kind: AdapterKind, loaded: LoadedModel) -> Callable[[Path], None]:
    """Return what writes all that was trained into a folder: the adapter, and what was put in before it."""

    def save(folder: Path) -> None:
        kind.save(
            loaded.model, folder, bench.spec.train.adapter, loaded.provenance, template_key=objective.renderer.key
        )
        for extension in objective.extensions:
            extension.save(loaded.model, folder)

    return save


def _scorer(bench: Workbench, loaded: LoadedModel, dev: Sequence[Row], passages: int) -> Callable[[], float]:
    chosen = list(dev[: bench.spec.train.metric_items])
    items = [Item.of(row) for row in chosen]
    if isinstance(bench.objective, Classification):
        head = classifier_system(bench, "dev", bench.train_prompt, bench.retriever(passages), loaded=loaded)
        return lambda: bench.mean_score(head.answer(items), items)
    system = LocalSystem(
        "dev",
        generator_for(loaded.model, bench.objective.renderer.tokenizer, bench.objective.renderer.end_ids),
        bench.objective.ask,
        bench.train_prompt,
        bench.retriever(passages),
        bench.settings,
    )
    return lambda: bench.mean_score(system.answer(items), items)


def _resume_command(task: Task, run: Run, group: Group) -> str:
    """Return what a person types to go on, with the same overrides and as many processes."""
    words = ["luthier", "train", str(task.path), "--resume", "--out", str(run.path)]
    words += [word for override in task.overrides for word in ("--set", override)]
    if group.size == 1:
        return shlex.join(words)
    if is_worker():
        return shlex.join([*words, "--procs", str(group.size)])
    return f"{shlex.join(words)} (under the same torchrun command)"


def _by(group: Group) -> str:
    return f" in {group.size} processes" if group.size > 1 else ""


def _newest_unended(task: Task) -> Path | None:
    runs = sorted(runs_folder(task).glob("train-*"), key=lambda path: int(re.sub(r"\D", "", path.name) or 0))
    open_runs = [path for path in runs if not (path / "report.json").exists()]
    return open_runs[-1] if open_runs else None
