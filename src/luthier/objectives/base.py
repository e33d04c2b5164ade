"""What an objective is: how a row becomes targets, and what the loss over them is. Knows no optimizer and no schedule.

An objective returns the float32 *sum* of its loss over targets, and the sum of their weights, never a mean: so packs,
micro-batches and processes add up exactly. Every objective passes `luthier.objectives.conformance.check_objective`.

    >>> OBJECTIVES.names()
    ['classify', 'infill', 'pretrain', 'sft']
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor, nn
from transformers import PretrainedConfig

from luthier.ground.errors import BadInput
from luthier.ground.registry import Registry
from luthier.ground.spec import TrainSpec
from luthier.models.architecture import Architecture
from luthier.models.extension import Extension
from luthier.rows.labels import LabelSet
from luthier.rows.types import Encoded, Message, Pack, Row

if TYPE_CHECKING:
    from luthier.rows.template import Renderer

Answers = Literal["text", "label", "likelihood"]


@dataclass(frozen=True)
class ObjectiveContext:
    """What an objective is made from.

    Attributes:
        renderer: turns conversations into tokens; None where rows come encoded.
        labels: of a classification task: what its answers may be.
        instruction: what the model is told beside each text in training; kept with what is trained.
        config: of the base model; None where nothing depends on it.
        extensions: what the task puts into the base model, whatever the objective.
    """

    renderer: Renderer | None
    train: TrainSpec = field(default_factory=TrainSpec)
    labels: LabelSet | None = None
    instruction: str = ""
    architecture: Architecture = "decoder"
    config: PretrainedConfig | None = None
    extensions: tuple[Extension, ...] = ()


class Objective(ABC):
    """How a row becomes targets, the loss over them, and how the trained model is asked.

    Attributes:
        answers: what the trained model gives: text that it writes, a label, or only the likelihood of text.
        extensions: what is put into the base model before the adapter, the task's first.
        reads_corpora: whether training rows are documents, which are streamed, kept as tokens on disk and cut.
        window: the most tokens of a row that the model can read; None if the objective knows of no limit.
    """

    name: ClassVar[str]
    answers: ClassVar[Answers] = "text"
    reads_corpora: ClassVar[bool] = False
    window: int | None = None

    def __init__(self, context: ObjectiveContext) -> None:
        self.context = context
        self.extensions: tuple[Extension, ...] = context.extensions
        self._renderer = context.renderer

    @property
    def renderer(self) -> Renderer:
        """What the trained model is rendered with; it may have tokens that the base model lacks."""
        if self._renderer is None:
            raise ValueError(f"the objective {self.name} was made without a renderer")
        return self._renderer

    @abstractmethod
    def encode(self, row: Row) -> Encoded:
        """Return the row as token ids with its target mask."""

    def encode_all(self, row: Row) -> list[Encoded]:
        """Return the row in as many pieces as it is trained in: one, unless the objective cuts long texts."""
        return [self.encode(row)]

    @abstractmethod
    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, float]:
        """Return (sum of the loss over the pack's targets, a float32 scalar with its graph; sum of their weights)."""

    def ask(self, row: Row) -> list[int]:
        """Return the tokens after which the trained model writes its answer; the row comes without one."""
        return self.renderer.encode_prompt(row.messages or (Message("user", row.input),), row.tools)


ObjectiveMaker = Callable[[ObjectiveContext], Objective]

OBJECTIVES: Registry[ObjectiveMaker] = Registry(
    "luthier.objectives",
    "objective",
    modules=tuple(f"luthier.objectives.{name}" for name in ("classify", "infill", "pretrain", "sft")),
    missing=lambda entry: None if callable(entry) else "it must be a class or function that takes an ObjectiveContext",
)


def make_objective(name: str, context: ObjectiveContext) -> Objective:
    """Return the objective registered as `name`.

    Raises:
        BadInput: no objective has this name, or it cannot be had for this model or task.
    """
    made = OBJECTIVES.get(name)(context)
    if context.architecture == "encoder" and made.answers != "label":
        kind = f" ({context.config.model_type})" if context.config is not None else ""
        raise BadInput(
            f"the model is an encoder{kind}, which cannot write, and the objective {name} needs one that writes",
            where="model",
            fix="set train.objective: classify, or choose another model",
        )
    return made
