"""What the verbs share while one task is on the bench: its rows, base model, renderer, prompts and passages.

Everything is made when first asked for and kept. This is wiring: which room's function gets which other room's result.

    bench = Workbench(load_task("task.yaml"))
    rows = bench.rows("train")
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from transformers import PretrainedConfig

from luthier.evaluation.metrics.base import Metric, MetricContext, check_references
from luthier.evaluation.metrics.load import load_metric
from luthier.evaluation.scoring import context_of, mean_score, score_answers
from luthier.evaluation.systems import Answer, Ask, Item, Passages
from luthier.generation.engine import Generator
from luthier.generation.seq2seq import generator_for
from luthier.generation.settings import Settings
from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.ground.hashes import key_of, sha256_file
from luthier.ground.results import CheckResult, IndexResult, Passage
from luthier.ground.spec import TrainSpec
from luthier.ground.task import Task
from luthier.models.architecture import architecture_of
from luthier.models.context import ContextExtension, refuse_longer_rows
from luthier.models.extension import Extension
from luthier.models.find import Found, find_model
from luthier.models.load import LoadedModel, load_config, load_model
from luthier.models.quantized import QuantizedKind
from luthier.objectives.added_tokens import extended_by
from luthier.objectives.base import Objective, ObjectiveContext, make_objective
from luthier.retrieval.embed import Embedder, SentenceEmbedder
from luthier.retrieval.index import build_index
from luthier.retrieval.search import open_index
from luthier.rows.compose import Prompt, compose
from luthier.rows.label_sheet import with_labels
from luthier.rows.labels import LabelSet, find_labels
from luthier.rows.read import ReadResult, joined, read_rows
from luthier.rows.sheet import truth_sheet
from luthier.rows.split import sample_rows
from luthier.rows.template import Renderer
from luthier.rows.types import Row
from luthier.verbs.corpora import sheet_of
from luthier.verbs.runs import runs_folder
from luthier.verbs.trained import renderer_of

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")


class Workbench:
    """One task and all that has been loaded for it."""

    def __init__(self, task: Task, tell: Tell = silent) -> None:
        self.task = task
        self.spec = task.spec
        self.tell = tell
        self._read: dict[Split, ReadResult] = {}
        self._loaded: dict[str, LoadedModel] = {}

    def with_train(self, train: TrainSpec) -> Workbench:
        """Return a bench that trains by other settings and shares everything that is loaded."""
        other = copy.copy(self)
        other.__dict__.pop("objective", None)
        other.spec = self.spec.model_copy(update={"train": train})
        other.task = replace(self.task, spec=other.spec)
        return other

    # -- rows ------------------------------------------------------------------------------------------------------

    def read(self, split: Split) -> ReadResult | None:
        """Return what was read of a split, faults included; None when the task names no such split."""
        source = getattr(self.spec.data, split)
        if source is None:
            return None
        if split not in self._read:
            self._read[split] = self._read_train() if split == "train" else self._read_source(source)
        return self._read[split]

    def _read_source(self, source: str) -> ReadResult:
        data = self.spec.data
        return read_rows(source, folder=self.task.folder, id_field=data.id, group_field=data.group)

    def _read_train(self) -> ReadResult:
        """Return the rows of all sources, each with the name of its own; a capped one is a seeded sample."""
        parts = []
        for source in self.spec.data.sources:
            part = self._read_source(source.source)
            if source.cap is not None:
                part.rows = sample_rows(part.rows, source.cap, seed=self.spec.compare.seed)
            if len(self.spec.data.sources) > 1:
                part.rows = [replace(row, id=f"{source.source}#{row.id}", origin=source.source) for row in part.rows]
            parts.append(part)
        return joined(parts)

    def rows(self, split: Split) -> list[Row]:
        """Return the usable rows of a split, sampled as the task says.

        Raises:
            BadInput: the split is missing, or has bad rows and `data.on_bad` is refuse.
        """
        result = self.read(split)
        if result is None:
            raise BadInput(f"the task names no {split} split", where=str(self.task.path), fix=f"set data.{split}")
        rows = self._usable(result)
        count = getattr(self.spec.data.sample, split)
        return rows if count is None else sample_rows(rows, count, seed=self.spec.compare.seed)

    def _usable(self, result: ReadResult) -> list[Row]:
        if result.faults and self.spec.data.on_bad == "refuse":
            first = result.faults[0]
            more = f" (and {len(result.faults) - 1} more)" if len(result.faults) > 1 else ""
            raise BadInput(
                f"{first.message}{more}",
                where=f"{first.file}:{first.line}",
                fix="mend the rows (`luthier check` lists them) or set data.on_bad: skip",
            )
        return result.rows

    def general_rows(self) -> list[Row]:
        """Return the held-out general text."""
        if self.spec.data.general is None:
            return []
        return self._usable(self._read_source(self.spec.data.general))

    def items(self, split: Split) -> list[Item]:
        """Return the items of a split; their references are held to what the metric needs.

        Raises:
            BadInput: a reference cannot be scored, or there is none.
        """
        items = [Item.of(row) for row in self.rows(split)]
        for item in items:
            about = context_of(item, self.metric_context)
            check_references(self.metric, [(item.row.place, item.reference)], about)
        return items

    @cached_property
    def sheet(self) -> CheckResult:
        """The data truth sheet of all splits."""
        self.tell({"kind": "stage", "text": "checking the data"})
        if self.objective.reads_corpora:
            return sheet_of(self)
        train = self.spec.train
        splits: dict[str, ReadResult] = {split: result for split in SPLITS if (result := self.read(split)) is not None}
        sheet = truth_sheet(
            self.spec.name,
            splits,
            self.objective.renderer,
            encode=self.objective.encode_all,
            prompt_of=self.training_row,
            turns="last" if architecture_of(self.config) == "encoder-decoder" else train.turns,
            max_length=self.max_length,
            on_long=train.on_long,
            on_bad=self.spec.data.on_bad,
        )
        if self.objective.answers != "label":
            return sheet
        return with_labels(sheet, self.labels, {split: result.rows for split, result in splits.items()})

    @property
    def max_length(self) -> int:
        """The longest row that is trained, in tokens: what the task allows, and the model can read."""
        window = self.objective.window
        return self.spec.train.max_length if window is None else min(self.spec.train.max_length, window)

    def data_key(self, *splits: Split) -> dict[str, str]:
        """Return a hash of the usable rows of each split that the task names."""
        return {
            split: key_of([dataclasses.asdict(row) for row in rows])
            for split in splits
            if getattr(self.spec.data, split) and (rows := self.rows(split))
        }

    # -- model -----------------------------------------------------------------------------------------------------

    @cached_property
    def found(self) -> Found:
        """The base model's files and where they came from."""
        return find_model(self.spec.model, folder=self.task.folder, tell=self.tell)

    @cached_property
    def renderer(self) -> Renderer:
        """The one render function that the check, training and generation share."""
        return renderer_of(self.found)

    @cached_property
    def config(self) -> PretrainedConfig:
        """The base model's config."""
        return load_config(self.found)

    @property
    def writes(self) -> bool:
        """Whether the base model can write; an encoder only reads."""
        return architecture_of(self.config) != "encoder"

    @property
    def classifies(self) -> bool:
        """Whether answers are labels or numbers, by whichever means they are given."""
        return bool(self.spec.labels) or self.spec.train.objective == "classify"

    @cached_property
    def objective(self) -> Objective:
        """What the task trains by: encodes rows, gives the loss, and asks the trained model."""
        spec = self.spec
        renderer, words = extended_by(self.renderer, self.task.words, spec.train)
        context = ObjectiveContext(
            renderer=renderer,
            train=spec.train,
            labels=self.labels if spec.train.objective == "classify" else None,
            instruction=self.train_prompt.instruction,
            architecture=architecture_of(self.config),
            config=self.config,
            extensions=(*self._extensions(), *words),
        )
        return make_objective(spec.train.objective, context)

    @cached_property
    def labels(self) -> LabelSet:
        """What the task's answers may be: the labels that it lists, or those of its training rows."""
        result, count = self.read("train"), self.spec.data.sample.train
        rows = result.rows if result is not None else []
        if count is not None:
            rows = sample_rows(rows, count, seed=self.spec.compare.seed)
        found = find_labels(self.spec.labels_kind, self.spec.labels, rows)
        if not found.listed and found.labels:
            self.tell({"kind": "labels", "text": f"labels of the training rows: {', '.join(found.labels)}"})
        return found

    def _extensions(self) -> tuple[Extension, ...]:
        """Return what the task puts into the base model, whatever the objective."""
        if self.spec.context is None:
            return ()
        refuse_longer_rows(self.config, self.spec.context, self.spec.train)
        return (ContextExtension(self.spec.context, beside=self.spec.train.adapter.kind != "full"),)

    def extended_key(self) -> dict[str, object]:
        """Return what was put into the base model before the adapter, for hashes and fingerprints."""
        spec = self.spec
        if spec.train.objective == "classify":
            labels: object = [spec.labels_kind, *spec.labels]
        else:
            labels = None
        context = spec.context.model_dump(mode="json") if spec.context else None
        words = [spec.train.vocabulary.init, *self.task.words] if self.task.words else None
        return {"context": context, "labels": labels, "vocabulary": words}

    def model(self, precision: Literal["bf16", "fp32"], quantized: QuantizedKind | None = None) -> LoadedModel:
        """Return the base model in a precision, its linear layers quantised if that is asked for; loaded once."""
        how = f"{quantized}, {precision}" if quantized else precision
        if how not in self._loaded:
            self._loaded.clear()  # one model in memory at a time
            self.tell({"kind": "stage", "text": f"loading {self.spec.model} ({how})"})
            self._loaded[how] = load_model(self.found, precision, quantized)
        return self._loaded[how]

    def generator(self) -> Generator:
        """Return what writes answers with the base model, in the precision of `generation`."""
        model = self.model(self.spec.generation.precision)
        return generator_for(model.model, self.renderer.tokenizer, self.renderer.end_ids)

    def trained_generator(self) -> Generator:
        """Return what writes answers with the trained model, which may have more tokens than the base model."""
        model = self.model(self.spec.generation.precision)
        renderer = self.objective.renderer
        return generator_for(model.model, renderer.tokenizer, renderer.end_ids)

    @cached_property
    def ask(self) -> Ask:
        """How the base model is asked."""
        context = ObjectiveContext(self.renderer, architecture=architecture_of(self.config), config=self.config)
        return make_objective("sft", context).ask

    @property
    def settings(self) -> Settings:
        return Settings.from_spec(self.spec.generation)

    # -- metric ----------------------------------------------------------------------------------------------------

    @cached_property
    def metric(self) -> Metric:
        return load_metric(self.spec.metric, self.task.folder)

    @cached_property
    def metric_context(self) -> MetricContext:
        return MetricContext(schema=self.task.schema, labels=self.spec.labels, facts=self.spec.facts)

    def metric_key(self) -> list[object]:
        """Return what a score depends on; a metric in a user's file counts with the file's bytes."""
        spec = self.spec
        file = self.task.resolve(spec.metric.partition(":")[0])
        content = sha256_file(file) if file.is_file() else None
        generation = spec.generation.model_dump(mode="json", exclude={"batch_size"})
        return [spec.metric, content, self.task.schema, spec.labels, spec.facts, generation]

    def mean_score(self, answers: Sequence[Answer], items: Sequence[Item]) -> float:
        """Return the mean score of answers, as the task counts."""
        return mean_score(score_answers(items, answers, self.metric, self.metric_context))

    # -- documents -------------------------------------------------------------------------------------------------

    @property
    def index_folder(self) -> Path:
        return runs_folder(self.task) / "index"

    @cached_property
    def embedder(self) -> Embedder | None:
        """The embedding model, or None when the task wants keyword search alone."""
        name = self.spec.retrieval.embedding
        if name is None or self.spec.retrieval.method == "keyword":
            return None
        return SentenceEmbedder(find_model(name, folder=self.task.folder, tell=self.tell).folder, name=name)

    @cached_property
    def index(self) -> IndexResult:
        """The index of the documents, brought up to date.

        Raises:
            BadInput: the task names no documents.
        """
        if self.spec.documents is None:
            raise BadInput("the task names no documents", where=str(self.task.path), fix="set documents: FOLDER")
        self.tell({"kind": "stage", "text": f"indexing {self.spec.documents}"})
        retrieval = self.spec.retrieval
        return build_index(
            self.task.resolve(self.spec.documents),
            self.index_folder,
            embed=self.embedder,
            chunk_words=retrieval.chunk_words,
            overlap_words=retrieval.overlap_words,
        )

    def passages(self, queries: Sequence[str], count: int | None = None) -> list[list[Passage]]:
        """Return the passages found for each query, best first; indexes the documents first if need be."""
        _ = self.index
        retrieval = self.spec.retrieval
        index = open_index(self.index_folder)
        return index.search_many(queries, count or retrieval.passages, method=retrieval.method, embed=self.embedder)

    def retriever(self, count: int | None = None) -> Passages | None:
        """Return what finds passages for items; None when none are wanted, or the task has no documents."""
        if count == 0 or self.spec.documents is None:
            return None
        return lambda items: self.passages([item.row.input for item in items], count)

    @cached_property
    def documents_key(self) -> str:
        """A hash of what retrieval depends on: the settings and the indexed chunks."""
        _ = self.index
        manifest = json.loads((self.index_folder / "manifest.json").read_text(encoding="utf-8"))
        return key_of({"retrieval": self.spec.retrieval.model_dump(mode="json"), "files": manifest.get("files")})

    # -- prompts ---------------------------------------------------------------------------------------------------

    @property
    def train_prompt(self) -> Prompt:
        """The prompt that training rows carry, and that the finetuned systems are asked with."""
        own = self.spec.train.instruction
        return Prompt(instruction=self.task.instruction if own is None else own)

    def training_row(self, row: Row) -> Row:
        """Return a row as training sees it, without passages."""
        return compose(row, self.train_prompt, with_answer=True)

    def training_rows(self, rows: Sequence[Row], passages: int) -> list[Row]:
        """Return rows as training sees them; with `passages` > 0 each prompt holds what retrieval finds for it."""
        if passages == 0:
            return [self.training_row(row) for row in rows]
        found = self.passages([row.input for row in rows], passages)
        return [
            compose(row, self.train_prompt, [passage.text for passage in of_row], with_answer=True)
            for row, of_row in zip(rows, found, strict=True)
        ]

    def base_key(self) -> dict[str, str]:
        """What every result depends on: the weights and the template."""
        return {"model": self.found.sha256, "template": self.renderer.key}
