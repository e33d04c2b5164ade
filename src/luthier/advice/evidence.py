"""What a rule may look at: a comparison, a data check, and ways to look things up in them.

Measures nothing and has no opinion; those stand in the rule modules.

    evidence = Evidence(result, check, "task.yaml")
    evidence.system("rag").score
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from luthier.ground.results import CheckResult, CompareResult, Contrast, Measure, SystemResult, TrainResult

LADDER = ("base", "prompt", "rag", "finetuned", "finetuned+rag")  # from the simplest to the costliest to keep
TRAINED = ("finetuned", "finetuned+rag")
FORM_NAMES = ("form", "valid", "parse", "known")  # how metrics call "the answer has the wanted shape"
FACT_NAMES = ("facts",)
NOT_RETRIEVED = "facts missing, and not in the passages"  # causes of wrong answers, as the triage names them
NOT_USED = "facts missing, though in the passages"
GOOD_PART = 0.9  # a part of an answer (form, facts) that is right this often is no longer what is missing
DEFAULT_MARGIN = 0.03


@dataclass(frozen=True)
class Evidence:
    """A comparison (or none yet), a data check (or none), and the task file that commands should name."""

    result: CompareResult | None
    check: CheckResult | None
    task_file: str

    def command(self, verb: str, *settings: str) -> str:
        """Return `luthier VERB TASK --set …`, quoted for a shell."""
        sets = [part for setting in settings for part in ("--set", setting)]
        return shlex.join(["luthier", verb, self.task_file, *sets])

    def system(self, name: str) -> SystemResult | None:
        """Return the system of that name, if it was compared."""
        systems = self.result.systems if self.result else []
        return next((system for system in systems if system.name == name), None)

    def ladder(self) -> list[SystemResult]:
        """Return the compared systems that this tool builds, the simplest first."""
        found = (self.system(name) for name in LADDER)
        return [system for system in found if system is not None]

    def contrast(self, a: str, b: str | None = None) -> Contrast | None:
        """Return the declared contrast of `a` (against `b`, or against whatever was declared)."""
        contrasts = self.result.contrasts if self.result else []
        return next((c for c in contrasts if c.a == a and b in (None, c.b)), None)

    def contrasts(self, verdict: str) -> list[Contrast]:
        """Return the declared contrasts with this verdict."""
        return [c for c in (self.result.contrasts if self.result else []) if c.verdict == verdict]

    def kept(self, split: str) -> int:
        """Return how many rows of a split the data check kept; 0 when nothing is known."""
        rows = self.check.rows.get(split) if self.check else None
        return rows.kept if rows else 0

    @property
    def passages(self) -> int:
        """How many passages a prompt gets, as far as the comparison shows it; three otherwise."""
        trained = [training.passages for training in self.result.training.values()] if self.result else []
        shown = [len(example.passages) for example in self.result.examples] if self.result else []
        return max([*trained, *shown], default=0) or 3

    def training(self, name: str) -> TrainResult | None:
        return self.result.training.get(name) if self.result else None

    def title(self, name: str) -> str:
        system = self.system(name)
        return system.title if system else name

    @property
    def target(self) -> float | None:
        return self.result.target if self.result else None

    @property
    def margin(self) -> float:
        return self.result.margin if self.result else DEFAULT_MARGIN

    def best(self) -> SystemResult | None:
        """Return the own system with the highest score; the simpler of equals."""
        return max(self.ladder(), key=lambda system: system.score, default=None)

    def simplest_good_enough(self) -> SystemResult | None:
        """Return the simplest own system whose score reaches the target."""
        if self.target is None:
            return None
        return next((system for system in self.ladder() if system.score >= self.target), None)

    def enough_untrained(self) -> SystemResult | None:
        """Return the simplest system that reaches the target without any training."""
        simplest = self.simplest_good_enough()
        return simplest if simplest is not None and simplest.name not in TRAINED else None


def form_of(system: SystemResult | None) -> Measure | None:
    """Return how often the answers of `system` have the wanted shape, if the metric says so."""
    return _first(system, FORM_NAMES)


def facts_of(system: SystemResult | None) -> Measure | None:
    """Return how often the answers of `system` hold the right facts, if the metric says so."""
    return _first(system, FACT_NAMES)


def answer_s(system: SystemResult) -> float:
    """Return the machine's seconds for each answer: wall time of all answers over their number."""
    return system.total_seconds / max(system.n_total, 1)


def numbers_of(c: Contrast) -> dict[str, Any]:
    """Return the numbers of a contrast, as advice names them."""
    return {"a": c.a, "b": c.b, "difference": c.difference, "difference_interval": list(c.interval), "p_holm": c.p_holm}


def plain(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return `numbers` without what JSON cannot hold: an unknown or infinite number becomes null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in numbers.items()
    }


def _first(system: SystemResult | None, names: tuple[str, ...]) -> Measure | None:
    metrics = system.metrics if system else {}
    return next((metrics[name] for name in names if name in metrics), None)
