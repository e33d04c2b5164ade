"""Look for the fastest combination of options that fits, in few evaluations.

An evaluation traces a whole step, so not all combinations can be had. Within a tier:

1. The leanest combination is evaluated. If it does not fit, nothing of the tier does, and the tier costs no more.
2. Every option is evaluated alone (with what it needs: tiles need checkpointing).
3. Neighbours of what is known, one option taken, left out or put in the place of another, are estimated: bytes add up
   and times multiply, as they did where two known combinations differed by that option. The fastest estimated to fit is
   evaluated, until none promises to be faster than what is known; then combinations that are nobody's neighbour.
4. What is not needed is taken back, as far as the rest still fits and is no slower.

Where options train less than was asked for (tier 3), less loss goes before speed: training less is always faster. With
a limit of time the search is for what keeps both.

So what is returned was evaluated, not estimated. It is the best wherever memory falls along each lever and the levers
do not work against each other; otherwise it may be slower than the best. Which tier to prefer is not decided here.

    Search(spec, evaluate, 3_000_000_000, options_of(spec)).explore(SAME)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from luthier.ground.errors import BadInput, Refused
from luthier.ground.spec import TrainSpec
from luthier.planning.levers import Option, combined, written_keys

TIE = 0.005  # times closer than this are equal
ROUNDS = 14  # evaluations of neighbours in one exploration
SLACK = 0.02  # an estimate may be over the limit by this share and is still worth an evaluation
MOST_COMBINATIONS = 2000  # to look through for what no neighbour shows
Combination = tuple[Option, ...]  # in the order of the options; () is the spec as written


@dataclass(frozen=True)
class Outcome:
    """What one configuration needs.

    Attributes:
        step_s: seconds of an optimizer step, for equal work: over the same rows, whatever a step takes at once.
    """

    peak_bytes: int
    step_s: float


Evaluate = Callable[[TrainSpec], Outcome]


class Search:
    """What has been found so far about the combinations of `options`.

    Attributes:
        found: outcomes of all that was evaluated; the spec as written is there from the beginning.
    """

    def __init__(
        self,
        spec: TrainSpec,
        evaluate: Evaluate,
        limit_bytes: int | None,
        options: Sequence[Option],
        evaluations: int = 40,
        step_limit_s: float = float("inf"),
    ) -> None:
        self.spec, self.limit_bytes, self.step_limit_s = spec, limit_bytes, step_limit_s
        self.options = list(options)
        self._evaluate, self._left = evaluate, max(0, evaluations - 1)
        self._place = {option: place for place, option in enumerate(options)}
        self._written = written_keys(spec)
        self._specs: dict[Combination, TrainSpec | None] = {(): spec}
        self._refused: set[Combination] = set()
        self.found: dict[Combination, Outcome] = {(): evaluate(spec)}

    @property
    def tried(self) -> int:
        """How many evaluations there were."""
        return len(self.found) + len(self._refused)

    def explore(self, tier: int, keep_written: bool = True) -> None:
        """Evaluate what promises to be the fastest that fits, with options up to `tier`.

        Args:
            keep_written: leave keys alone that the task file sets.
        """
        allowed = [option for option in self.options if self.is_allowed((option,), tier, keep_written)]
        if not self.fits(()) and not self._leanest_fits(allowed):
            return
        self.look_at_each(allowed)
        for _ in range(ROUNDS):
            promising = self._promising(allowed, tier, keep_written)
            if promising is None or (self.outcome(promising) is None and self._left <= 0):
                return

    def look_at_each(self, allowed: Sequence[Option]) -> None:
        """Evaluate every option by itself; of a lever whose leanest option does nothing, only that one."""
        levers: dict[str, list[Option]] = {}
        for option in sorted(allowed, key=lambda option: option.tier):
            levers.setdefault(option.lever, []).insert(0, option)
        for options in levers.values():
            self._look_at(options, allowed)

    def _look_at(self, options: Sequence[Option], allowed: Sequence[Option]) -> None:
        """Evaluate options of one lever, the leanest first."""
        is_idle = False
        for option in options:
            alone = self.alone(option, allowed)
            if alone is None or (option.is_leaner and is_idle):
                continue
            outcome, without = self.outcome(alone), self.found.get(_without(alone, option))
            is_idle = is_idle or (option.is_leaner and outcome is not None and outcome == without)

    def alone(self, option: Option, allowed: Sequence[Option]) -> Combination | None:
        """Return the smallest combination in which `option` does something: by itself, or with one other."""
        helped = (self._with((other,), option) for other in reversed(allowed) if other.lever != option.lever)
        return next((each for each in ((option,), *helped) if self.spec_of(each) is not None), None)

    def outcome(self, combination: Combination) -> Outcome | None:
        """Return what a combination needs; None if it cannot be, or no evaluation is left."""
        if combination in self.found or combination in self._refused:
            return self.found.get(combination)
        spec = self.spec_of(combination)
        if spec is None or self._left <= 0:
            return None
        self._left -= 1
        try:
            self.found[combination] = self._evaluate(spec)
        except (BadInput, Refused):  # this model cannot have it
            self._refused.add(combination)
        return self.found.get(combination)

    def spec_of(self, combination: Combination) -> TrainSpec | None:
        """Return the spec of a combination, or None if its options do not go together."""
        if combination not in self._specs:
            self._specs[combination] = combined(self.spec, combination)
        return self._specs[combination]

    def fits(self, combination: Combination) -> bool:
        """Whether a combination that was evaluated keeps the limit."""
        return self.limit_bytes is None or self.found[combination].peak_bytes <= self.limit_bytes

    def is_in_time(self, combination: Combination) -> bool:
        """Whether a combination that was evaluated keeps the limit of time."""
        return self.found[combination].step_s <= self.step_limit_s

    def is_allowed(self, combination: Combination, tier: int, keep_written: bool) -> bool:
        """Whether no option is of a higher tier, or, with `keep_written`, changes what the task file sets."""
        changed = {key for option in combination for key, _ in option.changes}
        return tier_of(combination) <= tier and not (keep_written and changed & self._written)

    def best(self, tier: int, keep_written: bool = True, in_time: bool = False) -> Combination | None:
        """Return the fastest of those that fit and lose the least; of those equally fast the one that changes least."""
        fitting = [each for each in self.found if self.fits(each) and self.is_allowed(each, tier, keep_written)]
        fitting = [each for each in fitting if not in_time or self.is_in_time(each)]
        least_loss = min((loss_of(each) for each in fitting), default=0)
        return self._fastest([each for each in fitting if loss_of(each) == least_loss])

    def _fastest(self, known: Sequence[Combination]) -> Combination | None:
        fastest_s = min((self.found[each].step_s for each in known), default=0.0)
        equal = [each for each in known if self.found[each].step_s <= fastest_s * (1 + TIE)]
        return min(equal, key=lambda each: (tier_of(each), len(each), self.found[each].step_s), default=None)

    def smallest(self) -> Combination:
        """Return the combination with the lowest peak of all evaluated."""
        return min(self.found, key=lambda each: (self.found[each].peak_bytes, self.found[each].step_s, len(each)))

    def simplified(self, combination: Combination) -> Combination:
        """Return a combination without what is not needed, or with milder options."""
        for milder in self._milder(combination):
            if self.outcome(milder) is not None and self._is_as_good(milder, combination):
                return self.simplified(milder)
        return combination

    def _is_as_good(self, milder: Combination, combination: Combination) -> bool:
        """Whether `milder` keeps what `combination` keeps, and is no slower, or trains more of what was asked for."""
        if not self.fits(combination):
            return self.found[milder].peak_bytes <= self.found[combination].peak_bytes
        if not self.fits(milder) or (self.is_in_time(combination) and not self.is_in_time(milder)):
            return False
        no_slower = self.found[milder].step_s <= self.found[combination].step_s * (1 + TIE)
        return no_slower or loss_of(milder) < loss_of(combination)

    # -- one tier --------------------------------------------------------------------------------------------------

    def _leanest_fits(self, allowed: list[Option]) -> bool:
        """Whether the leanest combination fits; options that this model cannot have are taken out of `allowed`."""
        leanest = self._leanest(allowed)
        if self.outcome(leanest) is None:
            self.look_at_each(allowed)
            allowed[:] = [option for option in allowed if self.alone(option, allowed) not in self._refused]
            leanest = self._leanest(allowed)
        return self.outcome(leanest) is not None and self.fits(leanest)

    def _leanest(self, allowed: Sequence[Option]) -> Combination:
        """Return the last valid option of each lever that saves memory, all together."""
        leanest: Combination = ()
        for lever in dict.fromkeys(option.lever for option in allowed):
            leaner = [option for option in allowed if option.lever == lever and option.is_leaner]
            options = (self._with(leanest, option) for option in reversed(leaner))
            leanest = next((each for each in options if self.spec_of(each) is not None), leanest)
        return leanest

    def _promising(self, allowed: Sequence[Option], tier: int, keep_written: bool) -> Combination | None:
        """Return the neighbour that should be the best of those that fit, if it is better than what is known."""
        in_time = self.best(tier, keep_written, in_time=True)
        known = [each for each in self.found if self.fits(each) and self.is_allowed(each, tier, keep_written)]
        best = in_time if in_time is not None else self._fastest(known)
        if best is None:
            return None
        limit = float("inf") if self.limit_bytes is None else self.limit_bytes * (1 + SLACK)
        below_s = self.found[best].step_s * (1 - TIE)
        for estimates in (self._near(allowed), self._anywhere(allowed)):
            worth: dict[Combination, tuple[int, float]] = {}
            for each, (peak, step_s) in estimates:
                loss = loss_of(each) - loss_of(best) if in_time is not None else 0
                if peak <= limit and ((loss == 0 and step_s < below_s) or (loss < 0 and step_s <= self.step_limit_s)):
                    worth[each] = (loss, step_s)
            if worth:
                return min(worth, key=worth.__getitem__)
        return None

    def _near(self, allowed: Sequence[Option]) -> Iterator[tuple[Combination, tuple[float, float]]]:
        """Yield estimates of every unknown neighbour, averaged over what it is a neighbour of."""
        effects, choices = self._effects(), set(allowed)
        guesses: dict[Combination, list[tuple[float, float]]] = {}
        for known, outcome in self.found.items():
            if choices.issuperset(known):
                for other in self._neighbours(known, allowed):
                    guesses.setdefault(other, []).append(_changed(outcome, known, other, effects))
        for each, several in guesses.items():
            yield each, (_mean([peak for peak, _ in several]), _mean([step_s for _, step_s in several]))

    def _anywhere(self, allowed: Sequence[Option]) -> Iterator[tuple[Combination, tuple[float, float]]]:
        """Yield estimates of all unknown combinations, from the spec as written, where they are not too many."""
        levers: dict[str, list[Option | None]] = {}
        for option in allowed:
            levers.setdefault(option.lever, [None]).append(option)
        if math.prod(len(options) for options in levers.values()) > MOST_COMBINATIONS:
            return
        effects, written = self._effects(), self.found[()]
        for several in itertools.product(*levers.values()):
            each = tuple(option for option in several if option is not None)
            if self._is_unknown(each):
                yield each, _changed(written, (), each, effects)

    def _neighbours(self, known: Combination, allowed: Sequence[Option]) -> Iterator[Combination]:
        fewer = (_without(known, option) for option in known)
        others = (self._with(known, option) for option in allowed if option not in known)
        swaps = (
            self._with(_without(known, gone), option) for gone in known for option in allowed if option not in known
        )
        for each in (*fewer, *others, *swaps):
            if self._is_unknown(each):
                yield each

    def _is_unknown(self, each: Combination) -> bool:
        return each not in self.found and each not in self._refused and self.spec_of(each) is not None

    def _effects(self) -> dict[Option, tuple[float, float]]:
        """Return what each option adds to the peak and by what it multiplies the time, averaged over pairs."""
        seen: dict[Option, list[tuple[float, float]]] = {option: [] for option in self.options}
        for known, outcome in self.found.items():
            for option in known:
                if (without := self.found.get(_without(known, option))) is not None:
                    seen[option].append((outcome.peak_bytes - without.peak_bytes, outcome.step_s / without.step_s))
        return {
            option: (_mean([peak for peak, _ in pairs]), _mean([ratio for _, ratio in pairs])) if pairs else (0.0, 1.0)
            for option, pairs in seen.items()
        }

    def _milder(self, combination: Combination) -> Iterator[Combination]:
        """Yield the combination without each option, highest tier first, then with milder options of each lever."""
        ordered = sorted(combination, key=lambda option: -option.tier)
        for option in ordered:
            yield _without(combination, option)
        for option in ordered:
            for other in self.options[: self._place[option]]:
                if (other.lever, other.is_leaner) == (option.lever, option.is_leaner) and other.tier <= option.tier:
                    yield self._with(combination, other)

    def _with(self, combination: Combination, option: Option) -> Combination:
        """Return the combination with `option` in the place of what it had of that lever."""
        others = [each for each in combination if each.lever != option.lever]
        return tuple(sorted((*others, option), key=self._place.__getitem__))


def tier_of(combination: Combination) -> int:
    """Return the highest tier of the options; 0 where there is none."""
    return max((option.tier for option in combination), default=0)


def loss_of(combination: Combination) -> int:
    """Return how much less a combination trains than the spec: the sum over its options."""
    return sum(option.loss for option in combination)


def _without(combination: Combination, option: Option) -> Combination:
    return tuple(each for each in combination if each != option)


def _changed(
    outcome: Outcome, known: Combination, other: Combination, effects: Mapping[Option, tuple[float, float]]
) -> tuple[float, float]:
    """Return what `other` should need, from what `known` does."""
    peak, step_s = float(outcome.peak_bytes), outcome.step_s
    for option in other:
        if option not in known:
            peak, step_s = peak + effects[option][0], step_s * effects[option][1]
    for option in known:
        if option not in other:
            peak, step_s = peak - effects[option][0], step_s / effects[option][1]
    return peak, step_s


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
