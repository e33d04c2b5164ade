"""How far a run has come: what a checkpoint remembers beside tensors, and what a finished run tells.

>>> progress = Progress(); progress.better(1.5, step=10), progress.better(1.7, step=20), progress.best_step
(True, False, 10)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from luthier.ground.results import EvalRecord, StepRecord
from luthier.training.step import StepOutcome


@dataclass
class Progress:
    """Mutable counters of a run; `seconds` and `step_seconds` go on over interruptions.

    Attributes:
        weight: of all targets; without weights, their number.
        best_value: of the best evaluation; lower is better (a metric is negated).
        worse: evaluations since the best one.
        peak_bytes: of the process that needed most.
        total_peak_bytes: of all processes together; the sum of their peaks.
        stopped: why the run ended, or empty.
    """

    step: int = 0
    tokens: int = 0
    target_tokens: int = 0
    weight: float = 0.0
    seconds: float = 0.0
    step_seconds: float = 0.0
    peak_bytes: int = 0
    total_peak_bytes: int = 0
    best_step: int | None = None
    best_value: float | None = None
    worse: int = 0
    stopped: str = ""
    history: list[StepRecord] = field(default_factory=list)
    evals: list[EvalRecord] = field(default_factory=list)

    def add_step(
        self, outcome: StepOutcome, learning_rate: float, tokens: int, targets: int, step_s: float
    ) -> StepRecord:
        """Count one finished step of so many tokens and targets."""
        self.step += 1
        self.tokens += tokens
        self.target_tokens += targets
        self.weight += outcome.count
        self.step_seconds += step_s
        record = StepRecord(
            step=self.step,
            loss=outcome.loss_sum / outcome.count,
            learning_rate=learning_rate,
            grad_norm=outcome.grad_norm,
            skipped=outcome.skipped,
            tokens=self.tokens,
            target_tokens=self.target_tokens,
            weight=self.weight,
            seconds=self.seconds,
        )
        self.history.append(record)
        return record

    def note_peaks(self, most: int, total: int) -> None:
        """Note the peak memory of the process that needs most, and of all together."""
        self.peak_bytes = max(self.peak_bytes, most)
        self.total_peak_bytes = max(self.total_peak_bytes, total)

    def better(self, value: float | None, step: int) -> bool:
        """Note an evaluation (None: it gave no number); return whether it is the best so far."""
        if value is not None and (self.best_value is None or value < self.best_value):
            self.best_step, self.best_value, self.worse = step, value, 0
            return True
        self.worse += 1
        return False

    @property
    def tokens_per_s(self) -> float:
        """Real tokens per second of the steps alone; evaluations and saving are not in it."""
        return self.tokens / self.step_seconds if self.step_seconds else 0.0

    @property
    def seconds_per_step(self) -> float:
        """Mean seconds of a step so far."""
        return self.step_seconds / self.step if self.step else 0.0

    def loss_since(self, step: int) -> float:
        """Return the loss per target, each by its weight, of all steps after `step`."""
        before = self.history[step - 1].weight if step else 0.0
        total, seen = 0.0, before
        for record in self.history[step:]:
            total += record.loss * (record.weight - seen)
            seen = record.weight
        return total / (seen - before) if seen > before else 0.0

    def dev_loss_at(self, step: int) -> float | None:
        """Return the dev loss that was measured at `step`."""
        return next((record.dev_loss for record in self.evals if record.step == step), None)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; `from_json` takes them back."""
        plain = asdict(self)
        plain["history"] = [record.model_dump() for record in self.history]
        plain["evals"] = [record.model_dump() for record in self.evals]
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Progress:
        """Return what `to_json` wrote."""
        history = [StepRecord(**record) for record in plain["history"]]
        evals = [EvalRecord(**record) for record in plain["evals"]]
        return cls(**{**plain, "history": history, "evals": evals})

    def become(self, plain: Mapping[str, Any]) -> None:
        """Go on as what `to_json` wrote."""
        self.__dict__.update(Progress.from_json(plain).__dict__)


@dataclass(frozen=True)
class TrainOutcome:
    """A finished run, in the numbers that training itself knows; `adapter` is the best checkpoint's."""

    steps: int
    epochs: float
    rows: int
    tokens: int
    target_tokens: int
    seconds: float
    tokens_per_s: float
    peak_bytes: int
    processes: int
    total_peak_bytes: int
    trainable_parameters: int
    total_parameters: int
    train_loss: float
    dev_loss: float | None
    best_step: int
    adapter: Path
    adapter_bytes: int
    history: list[StepRecord]
    evals: list[EvalRecord]
    stopped: str

    def facts(self) -> dict[str, Any]:
        """Return all numbers by their names in `TrainResult`."""
        named = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {**named, "adapter": str(self.adapter)}
