"""Choose the settings that fit: the fastest of those that change the least about what is learned.

Tiers say what a change costs beside time (`luthier.planning.levers`): 0 nothing, 1 the mathematics stay, 2 another
algorithm, 3 another thing trained. The rule, in this order:

1. If the spec fits as it is written (memory, and the time if there is a limit), it stays. Only a change of tier 1 that
   is more than 5 % faster is made.
2. Otherwise the lowest tier in which something fits, and in it the fastest; of those equally fast the least change. In
   tier 3, whose options train less than was asked for, what loses the least, and of that the fastest.
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
from luthier.ground.words import exact_size, seconds
from luthier.planning.levers import SAME, TRAINED, applied, difference, label_of, options_of, written_keys
from luthier.planning.search import Combination, Evaluate, Outcome, Search, tier_of
from luthier.planning.tradeoffs import concessions_of, frontier_of, time_change

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
    step_limit_s = time_limit_s / steps if time_limit_s is not None and steps else None
    options = options_of(spec, layers, has_gpu)
    search = Search(spec, evaluate, limit_bytes, options, evaluations, step_limit_s or float("inf"))
    combination = search.simplified(_chosen(search))
    _look_at_all(search)
    return Chosen(
        choice=_choice(search, combination, steps),
        concessions=concessions_of(search, combination),
        frontier=frontier_of(search, combination),
        smallest_bytes=search.found[search.smallest()].peak_bytes,
        tried=search.tried,
    )


def _chosen(search: Search) -> Combination:
    for keep_written in (True, False):
        for tier in range(SAME, TRAINED + 1):
            search.explore(tier, keep_written)
            if (best := _lowest(search, tier, keep_written, in_time=True)) is not None:
                return best or _much_faster(search)
        if (best := _lowest(search, TRAINED, keep_written, in_time=False)) is not None:
            return best or _much_faster(search)
    _look_at_all(search)
    return search.smallest()


def _lowest(search: Search, tier: int, keep_written: bool, in_time: bool) -> Combination | None:
    """Return the best of the lowest tier in which something was found, up to `tier`."""
    found = (search.best(low, keep_written, in_time) for low in range(tier + 1))
    return next((best for best in found if best is not None), None)


def _look_at_all(search: Search) -> None:
    """Evaluate every option by itself, those of low tiers first, as far as evaluations are left."""
    for tier in range(SAME, TRAINED + 1):
        search.look_at_each([option for option in search.options if option.tier <= tier])


def _much_faster(search: Search) -> Combination:
    """Return a change of tier 1 that makes a fitting spec so much faster that it is made unasked, or no change."""
    best = search.best(SAME)
    return best if best and search.found[best].step_s < search.found[()].step_s * (1 - FASTER) else ()


def _choice(search: Search, combination: Combination, steps: int | None) -> Choice:
    spec = search.spec_of(combination)
    assert spec is not None  # it was evaluated
    settings = difference(search.spec, spec)
    overridden = tuple(sorted(settings.keys() & written_keys(search.spec)))
    limited = search.step_limit_s < float("inf")
    return Choice(
        settings=settings,
        spec=spec,
        outcome=search.found[combination],
        tier=tier_of(combination),
        fits=search.fits(combination),
        keeps_time=search.is_in_time(combination) if limited else None,
        overridden=overridden,
        sentence=_sentence(search, combination, overridden)
        + (_time(search, combination, steps or 1) if limited else ""),
    )


def _sentence(search: Search, combination: Combination, overridden: tuple[str, ...]) -> str:
    found, written = search.found[combination], search.found[()]
    name, size = label_of(combination), exact_size(found.peak_bytes)
    limit = exact_size(search.limit_bytes) if search.limit_bytes is not None else ""
    although = f", although the task file sets it ({', '.join(overridden)})" if overridden else ""
    slower = f", {time_change(found.step_s / written.step_s - 1)}" if combination else ""
    if not search.fits(combination):
        return f"Nothing that was tried fits in {limit}; the smallest ({name}) needs {size}{slower}{although}."
    within = f"{size} of {limit}" if limit else size
    return f"{'With ' + name if combination else 'As written'}: {within}{slower}{although}."


def _time(search: Search, combination: Combination, steps: int) -> str:
    total, limit = seconds(steps * search.found[combination].step_s), seconds(steps * search.step_limit_s)
    if search.is_in_time(combination):
        return f" It takes {total} of {limit}."
    return f" It takes {total}: nothing that was tried and fits keeps the limit of {limit}."
