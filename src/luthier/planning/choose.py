"""Choose the settings that fit: the fastest of those that change the least about what is learned.

Tiers say what a change costs beside time (`luthier.planning.levers`): 0 nothing, 1 the mathematics stay, 2 another
algorithm, 3 another thing trained. The rule, in this order:

1. If the spec fits as it is written (memory, and the time if there is a limit), it stays. Only a change of tier 1 that
   is more than 5 % faster is made.
2. Otherwise the lowest tier in which something fits, and in it the fastest; of those equally fast the least change.
3. If nothing keeps the time too, memory decides, and the sentence says so.
4. Keys that the task file sets are never changed, unless nothing fits without; then the sentence says so.
5. If nothing fits even then, the choice is the smallest that was tried.

Memory and time come from a function that is handed in. Nothing is predicted here.

    choose(spec, evaluate, 3_000_000_000, time_limit_s=None, steps=None).choice.sentence
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from luthier.ground.plan_result import Concession, FrontierPoint
from luthier.ground.spec import TrainSpec
from luthier.ground.words import change, exact_size, seconds
from luthier.planning.levers import SAME, TRAINED, applied, difference, label_of, options_of, written_keys
from luthier.planning.search import TIE, Combination, Evaluate, Outcome, Search, tier_of
from luthier.planning.tradeoffs import concessions_of, frontier_of

__all__ = ["Choice", "Chosen", "Evaluate", "Outcome", "applied", "choose", "difference"]

EVALUATIONS = 40
FASTER = 0.05  # a spec that fits is changed only for more than this


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        settings: dotted keys under `train` and their values; {} if nothing had to change.
        tier: 0 nothing changed, 1 same mathematics, 2 another algorithm, 3 another thing trained.
        fits: whether it keeps the limit of memory.
        keeps_time: whether it keeps the limit of time; None where there is none.
        overridden: keys among the settings that the task file sets itself.
        sentence: the choice in one sentence.
    """

    settings: dict[str, Any]
    spec: TrainSpec
    outcome: Outcome
    tier: int
    fits: bool
    keeps_time: bool | None
    overridden: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class Chosen:
    """The choice, and what else there is.

    Attributes:
        smallest_bytes: the smallest peak of all that was tried.
        tried: how many configurations were evaluated.
    """

    choice: Choice
    concessions: list[Concession]
    frontier: list[FrontierPoint]
    smallest_bytes: int
    tried: int


@dataclass(frozen=True)
class _TimeLimit:
    """The limit of the whole run; no limit where one of the numbers is missing."""

    limit_s: float | None
    steps: int | None

    def keeps(self, outcome: Outcome) -> bool | None:
        if self.limit_s is None or self.steps is None:
            return None
        return self.steps * outcome.step_s <= self.limit_s


def choose(
    spec: TrainSpec,
    evaluate: Evaluate,
    limit_bytes: int | None,
    *,
    time_limit_s: float | None,
    steps: int | None,
    has_gpu: bool = False,
    layers: int | None = None,
    evaluations: int = EVALUATIONS,
) -> Chosen:
    """Return the settings that fit, every other one's price, and the frontier of memory and time.

    Args:
        evaluate: memory and time of a spec; raises BadInput or Refused for one that this model cannot have.
        limit_bytes: None: everything fits.
        time_limit_s: of the whole run.
        steps: optimizer steps of the run as the spec is written.
        layers: decoder layers of the model; None: adapters stay on all.
        evaluations: most calls of `evaluate`.

    Raises:
        BadInput, Refused: the spec as written cannot be evaluated.
    """
    search = Search(spec, evaluate, limit_bytes, options_of(spec, layers, has_gpu), evaluations)
    time = _TimeLimit(time_limit_s, steps)
    combination = _without_need(search, _chosen(search, time), time)
    _look_at_all(search)
    smallest = search.smallest()
    return Chosen(
        choice=_choice(search, combination, time),
        concessions=concessions_of(search, combination),
        frontier=frontier_of(search, combination),
        smallest_bytes=search.found[smallest].peak_bytes,
        tried=search.tried,
    )


def _chosen(search: Search, time: _TimeLimit) -> Combination:
    for keep_written in (True, False):
        fitting: list[Combination] = []
        for tier in range(SAME, TRAINED + 1):
            search.explore(tier, keep_written)
            fitting = [best for low in range(tier + 1) if (best := search.best(low, keep_written)) is not None]
            for best in fitting:
                if time.keeps(search.found[best]) is not False:
                    return best or _much_faster(search)
        if fitting:
            return fitting[0] or _much_faster(search)
    _look_at_all(search)
    return search.smallest()


def _look_at_all(search: Search) -> None:
    """Evaluate every option by itself, those of low tiers first, as far as evaluations are left."""
    for tier in range(SAME, TRAINED + 1):
        search.look_at_each([option for option in search.options if option.tier <= tier])


def _much_faster(search: Search) -> Combination:
    """Return a change of tier 1 that makes a fitting spec so much faster that it is made unasked, or no change."""
    best = search.best(SAME)
    return best if best and search.found[best].step_s < search.found[()].step_s * (1 - FASTER) else ()


def _without_need(search: Search, combination: Combination, time: _TimeLimit) -> Combination:
    """Take back what is not needed: what fits may not become slower, what does not fit not larger."""
    found = search.found[combination]

    def is_good(outcome: Outcome) -> bool:
        if not search.fits(combination):
            return outcome.peak_bytes <= found.peak_bytes
        fits = search.limit_bytes is None or outcome.peak_bytes <= search.limit_bytes
        no_slower = outcome.step_s <= found.step_s * (1 + TIE) and (not time.keeps(found) or bool(time.keeps(outcome)))
        return fits and no_slower

    return search.simplified(combination, is_good)


def _choice(search: Search, combination: Combination, time: _TimeLimit) -> Choice:
    spec = search.spec_of(combination)
    assert spec is not None  # it was evaluated
    settings = difference(search.spec, spec)
    overridden = tuple(sorted(settings.keys() & written_keys(search.spec)))
    return Choice(
        settings=settings,
        spec=spec,
        outcome=search.found[combination],
        tier=tier_of(combination),
        fits=search.fits(combination),
        keeps_time=time.keeps(search.found[combination]),
        overridden=overridden,
        sentence=_sentence(search, combination, overridden, time),
    )


def _sentence(search: Search, combination: Combination, overridden: tuple[str, ...], time: _TimeLimit) -> str:
    found, written = search.found[combination], search.found[()]
    name = label_of(combination)
    size = exact_size(found.peak_bytes)
    limit = exact_size(search.limit_bytes) if search.limit_bytes is not None else ""
    although = f", although the task file sets it ({', '.join(overridden)})" if overridden else ""
    slower = f", {change(found.step_s / written.step_s - 1)} time" if combination else ""
    if not search.fits(combination):
        return f"Nothing that was tried fits in {limit}; the smallest ({name}) needs {size}{slower}{although}."
    within = f"{size} of {limit}" if limit else size
    return f"{name[0].upper()}{name[1:]}: {within}{slower}{although}.{_time_sentence(found, time)}"


def _time_sentence(found: Outcome, time: _TimeLimit) -> str:
    if time.limit_s is None or time.steps is None:
        return ""
    total = seconds(time.steps * found.step_s)
    if time.keeps(found):
        return f" It takes {total} of {seconds(time.limit_s)}."
    return f" It takes {total}: nothing that was tried and fits keeps the limit of {seconds(time.limit_s)}."
