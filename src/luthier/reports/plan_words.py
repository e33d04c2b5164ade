"""What terminal, page and notebook say of a plan, in the same words: terms, peak, pace, cost, choice, comparisons.

Computes shares and differences of what stands in the result, and nothing else; draws nothing.

    terms_of(result)[0].share, peak_words(result)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from luthier.ground.plan_result import TERMS, Concession, FrontierPoint, PlanResult, TermNote
from luthier.ground.results import TrainResult
from luthier.ground.words import change, count, exact_size, many, percent, seconds, size_change

LETTERS = dict(zip(TERMS, "WAGOXQLKTH", strict=True))
_NAMES = {"kv_cache": "KV cache"}
_FAR = 2.5  # a limit beyond so many times the peak would press the bar together; it is named, not drawn
_SHOWN_POINTS = 12

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class Term:
    """One term of the peak that is there."""

    key: str  # weights, adapters …
    name: str
    letter: str
    number_bytes: int
    share: float
    formula: str
    source: str


def terms_of(result: PlanResult) -> list[Term]:
    """Return the terms that hold something, in the order in which they are stacked."""
    notes: dict[str, list[TermNote]] = {}
    for note in result.notes:
        notes.setdefault(note.term.removesuffix("_bytes"), []).append(note)
    held = [(key, getattr(result.terms, f"{key}_bytes")) for key in TERMS]
    return [
        Term(
            key,
            _NAMES.get(key, key),
            LETTERS[key],
            number,
            number / max(result.terms.total, 1),
            "; ".join(note.formula for note in notes.get(key, [])),
            "; ".join(dict.fromkeys(note.source for note in notes.get(key, []))),
        )
        for key, number in held
        if number > 0
    ]


def sources_of(terms: Sequence[Term]) -> Facts:
    """Return each source with the terms that come from it."""
    found: dict[str, list[str]] = {}
    for term in terms:
        if term.source:
            found.setdefault(term.source, []).append(term.name)
    return [(", ".join(names), source) for source, names in found.items()]


def bar_scale(result: PlanResult) -> tuple[int, int | None]:
    """Return how many bytes a whole bar is, and the limit if it lies on the bar."""
    total, limit = max(result.terms.total, 1), result.limit_bytes
    if limit is None or limit > _FAR * total:
        return total, None
    return max(total, limit), limit


def parts_of(values: Sequence[float], length: float, least: float) -> list[float]:
    """Return lengths in proportion to positive values, none below `least`, that sum to `length`.

    What small values get too much is taken from the others in proportion.
    """
    small: set[int] = set()
    while True:
        free, rest = length - least * len(small), sum(v for i, v in enumerate(values) if i not in small)
        made = [least if i in small else v * free / max(rest, 1e-300) for i, v in enumerate(values)]
        below = {i for i, part in enumerate(made) if part < least} - small
        if not below or len(small | below) == len(values):
            return made
        small |= below


def peak_words(result: PlanResult) -> str:
    """Return the peak against its limit: `1.52 GB of 3.00 GB (budget.memory), 1.48 GB to spare`."""
    peak, limit = result.peak_bytes, result.limit_bytes
    if limit is None:
        return exact_size(peak)
    room = f"{exact_size(limit - peak)} to spare" if peak <= limit else f"{exact_size(peak - limit)} too much"
    named = f" ({result.limit_source})" if result.limit_source else ""
    return f"{exact_size(peak)} of {exact_size(limit)}{named}, {room}"


def limit_words(result: PlanResult) -> str:
    """Return `limit 3.00 GB (budget.memory)`; empty without a limit."""
    if result.limit_bytes is None:
        return ""
    return f"limit {exact_size(result.limit_bytes)}" + (f" ({result.limit_source})" if result.limit_source else "")


def what_facts(result: PlanResult) -> Facts:
    """Return what was planned, and for what."""
    share = f", {count(result.trainable_parameters)} of them trained" if result.trainable_parameters else ""
    unverified = "" if result.verified else "; predictions of this kind of device have not been verified"
    each = f", each of {count(result.parallel.devices)} devices" if result.parallel else ""
    return [
        ("model", f"{result.model} ({result.architecture})"),
        ("parameters", f"{count(result.parameters)}{share}"),
        ("method", result.method),
        ("settings", settings_words(result.settings)),
        ("device", f"{result.device} ({result.device_source}){unverified}"),
        ("heaviest step", _heaviest(result)),
        ("peak", peak_words(result) + each),
        ("at", result.peak_at),
    ]


def _heaviest(result: PlanResult) -> str:
    steps = "" if result.pace.steps is None else f"; {many(result.pace.steps, 'step')}"
    return f"{many(result.batch, 'row')}, the longest of {many(result.seq, 'token')}{steps}"


def settings_words(settings: Mapping[str, object]) -> str:
    """Return dotted settings as `train.base nf4, train.optimizer adamw`."""
    return ", ".join(f"{name} {_value(value)}" for name, value in settings.items())


def _value(value: object) -> str:
    return {True: "on", False: "off", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)


def pace_facts(result: PlanResult) -> Facts:
    """Return time, energy and money, as far as they are known, and what they rest on."""
    pace, cost = result.pace, result.cost
    whole = "" if result.total_s is None else seconds(result.total_s)
    steps = "" if pace.steps is None else f" for {many(pace.steps, 'step')}"
    assumed = f"{rate(pace.products_flops_s, 'FLOP/s')} and {rate(pace.bandwidth_bytes_s, 'B/s')}"
    return [
        ("a step", f"{step_time(result.step_s)}, {count(pace.tokens_per_s)} tokens/s, bound by {pace.bound}"),
        ("whole run", whole + steps if whole else ""),
        ("work of a step", f"{rate(pace.flops, 'FLOP')}, {exact_size(pace.bytes_moved)} moved"),
        ("speed", f"{assumed} at {percent(pace.efficiency)} efficiency ({pace.source})"),
        ("energy", f"{cost.energy_kwh:.3g} kWh" if cost and cost.energy_kwh is not None else ""),
        ("price", _price(result)),
        ("break-even", result.break_even.sentence if result.break_even else ""),
    ]


def _price(result: PlanResult) -> str:
    cost = result.cost
    if cost is None or cost.price is None:
        return ""
    hourly = "" if cost.per_hour is None else f", {cost.per_hour:,.2f} an hour"
    return f"{cost.price:,.2f} {cost.currency}{hourly} ({cost.source})"


def parallel_facts(result: PlanResult) -> Facts:
    """Return what several devices move and wait for."""
    found = result.parallel
    if found is None:
        return []
    moved = f"{exact_size(found.moved_bytes)} at {rate(found.network_bytes_s, 'B/s')}: {step_time(found.network_s)}"
    return [
        ("devices", f"{count(found.devices)}, {found.strategy}; the terms are those of one"),
        ("moved in a step", f"{moved}; arithmetic {step_time(found.arithmetic_s)}"),
        ("what sets the pace", found.sentence),
    ]


def choice_words(result: PlanResult) -> str:
    """Return what was changed to fit; empty if there was nothing to fit into."""
    if result.choice:
        return f"Changed to fit: {settings_words(result.choice)}."
    return "Nothing had to change to fit." if result.fits else ""


def choice_facts(result: PlanResult) -> Facts:
    """Return what was changed to fit, the smallest peak of all that was tried, and the run that holds the plan."""
    smallest = "" if result.smallest_bytes is None else exact_size(result.smallest_bytes)
    return [("choice", choice_words(result)), ("smallest that was tried", smallest), ("run", result.run or "")]


def fits_sign(fits: bool | None) -> str:
    return {True: "✓", False: "✗", None: "–"}[fits]


def same_words(option: Concession) -> str:
    if option.same_mathematics:
        return "same mathematics"
    return "another algorithm" if option.tier < 3 else "trains something else"


def shown_points(result: PlanResult) -> list[FrontierPoint]:
    """Return the frontier and the chosen point by memory, thinned out evenly where there are very many."""
    points = sorted(
        (point for point in result.frontier if point.on_frontier or point.chosen),
        key=lambda point: (point.peak_bytes, point.step_s),
    )
    if len(points) <= _SHOWN_POINTS:
        return points
    kept = {round(place * (len(points) - 1) / (_SHOWN_POINTS - 1)) for place in range(_SHOWN_POINTS)}
    return [point for place, point in enumerate(points) if place in kept or point.chosen]


def rules_of(result: PlanResult) -> list[tuple[str, int]]:
    """Return what rules of thumb say, the textbook's figure for inference among them."""
    textbook = [] if result.textbook_bytes is None else [("textbook: weights + 20 %", result.textbook_bytes)]
    return textbook + list(result.rules.items())


def against(other: int, result: PlanResult) -> str:
    """Return another figure's difference from the plan's peak: `+42 %`."""
    return change(other / max(result.peak_bytes, 1) - 1)


def measured_facts(result: PlanResult) -> Facts:
    """Return what a measurement found beside what was predicted."""
    found = result.measured
    if found is None:
        return []
    pace = change(found.predicted_step_s / found.step_s - 1) if found.step_s else ""
    predicted, measured = exact_size(found.predicted_peak_bytes), exact_size(found.peak_bytes)
    return [
        ("memory", f"predicted {predicted}, measured {measured}"),
        ("error", f"{change(found.error)} of the bytes above the baseline of {exact_size(found.baseline_bytes)}"),
        ("a step", f"predicted {step_time(found.predicted_step_s)}, measured {step_time(found.step_s)} ({pace})"),
    ]


def memory_words(training: TrainResult) -> str:
    """Return a training's peak, against its prediction where there is one: `predicted 1.52 GB, measured 1.57 GB …`."""
    if not training.predicted_peak_bytes:
        return f"{exact_size(training.peak_bytes)} at most"
    error = prediction_error(training)
    told = f"predicted {exact_size(training.predicted_peak_bytes)}, measured {exact_size(training.peak_bytes)}"
    return told if error is None else f"{told} ({change(error)})"


def prediction_error(training: TrainResult) -> float | None:
    """Return how far the prediction was off, as a share of what was measured; negative is too little."""
    if not training.predicted_peak_bytes or training.peak_bytes <= 0:
        return None
    return training.predicted_peak_bytes / training.peak_bytes - 1


def change_words(number_bytes: int, share: float) -> tuple[str, str]:
    """Return what a concession does to memory and to time."""
    return size_change(number_bytes), change(share)


def step_time(duration_s: float) -> str:
    """Return the time of a step, fine enough to compare: `312 ms`, `4.31 s`, `2 min 05 s`."""
    if duration_s < 0.9995:
        return f"{1000 * duration_s:.3g} ms"
    return f"{duration_s:.2f} s" if duration_s < 9.995 else seconds(duration_s)


def rate(number: float, unit: str) -> str:
    """Return a large number with a decimal prefix: `340 GFLOP/s`."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if abs(number) < 999.5 or prefix == "E":
            break
        number /= 1000
    return f"{number:.3g} {prefix}{unit}"
