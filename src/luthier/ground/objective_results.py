"""What `compare` and `check` return for tasks of a kind of their own: text, long context, classification.

Nothing is computed here.

    >>> TextLoss(system="base", text="domain", bits_per_byte=1.0, interval=(0.9, 1.1), bytes=8, tokens=2).system
    'base'
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.ground.result import Result


class SourceCounts(Result):
    """One source of documents, as it is trained on."""

    split: str
    source: str
    documents: int
    pieces: int  # a document longer than `max_length` is cut
    tokens: int
    bytes: int
    epoch_tokens: int  # that the first epoch takes of it; 0 of what is not trained on
    is_whole: bool  # False: it was read only as far as it is needed


class TextLoss(Result):
    """How well one system predicts one set of texts."""

    system: str
    text: str  # domain | general
    bits_per_byte: float
    interval: tuple[float, float]
    bytes: int
    tokens: int


class TextChange(Result):
    """A paired difference `a` − `b` in bits per byte on one set of texts; below 0, `a` predicts it better."""

    text: str
    a: str
    b: str
    difference: float
    interval: tuple[float, float]
    sentence: str


class LanguageResult(Result):
    """What was learned of the domain, and what was forgotten of general text."""

    losses: list[TextLoss]
    changes: list[TextChange]
    sentence: str


class PositionLoss(Result):
    """The loss of one system by position in the text."""

    system: str
    edges: list[int]  # the first position of each bin, and the end of the last
    loss: list[float]  # nats per token; one fewer than edges


class RetrievalCell(Result):
    """How often one system found what stood at a depth of a text of some length."""

    system: str
    test: Literal["passkey", "needle"]
    length: int  # tokens
    depth: float  # 0: at the beginning, 1: at the end
    right: int
    n: int


class ContextResult(Result):
    """What a longer window brought."""

    old_window: int
    new_window: int
    method: str
    factor: float
    positions: list[PositionLoss]
    cells: list[RetrievalCell]
    short_loss: dict[str, float]  # system -> nats per token within the old window
    sentence: str


class CalibrationBin(Result):
    low: float
    high: float
    n: int
    confidence: float  # mean
    accuracy: float


class LabelResult(Result):
    label: str
    precision: float
    recall: float
    f1: float
    n: int  # items that have it


class ClassResult(Result):
    """One system as a classifier; what its kind of labels lacks is None or empty."""

    system: str
    accuracy: float | None = None  # of several labels: all of them right
    macro_f1: float | None = None
    macro_f1_interval: tuple[float, float] | None = None
    micro_f1: float | None = None
    ece: float | None = None  # expected calibration error (Guo et al. 2017, 15 bins); None without probabilities
    adaptive_ece: float | None = None  # over bins of equally many answers
    bins: list[CalibrationBin] = Field(default_factory=list)
    labels: list[LabelResult] = Field(default_factory=list)
    confusion: list[list[int]] = Field(default_factory=list)  # [true][said], the last column: none of the labels
    mean_absolute_error: float | None = None
    root_mean_squared_error: float | None = None
    pearson: float | None = None
    spearman: float | None = None
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)  # of the four figures above
    unreadable: int = 0  # answers that are no number, counted as the mean


class ClassificationResult(Result):
    kind: Literal["single", "multi", "regression"]
    labels: list[str]
    systems: list[ClassResult]
    sentence: str
