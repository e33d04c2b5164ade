"""What the evaluated configurations cost against each other: concessions, and the frontier of memory and time.

Evaluates nothing: it tells what a search has found.

    concessions_of(search, chosen)[0].sentence  # "full checkpointing: −1.93 GB, +31 % time"
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from luthier.ground.plan_result import Concession, FrontierPoint
from luthier.ground.words import change, size_change
from luthier.planning.levers import ALGORITHM, SAME, difference, label_of
from luthier.planning.search import Combination, Outcome, Search, tier_of

MOST = 10  # concessions
PER_LEVER = 2
MOST_NOTES = 2
LEAST_SAVING = 0.005  # of the peak as written; less is not worth a line
LEAST_SPEED = 0.01


def concessions_of(search: Search, chosen: Combination) -> list[Concession]:
    """Return what single options would do to the spec as written, the most useful first.

    Useful is what saves many bytes for little time; behind these come options that save time alone. The chosen
    combination is there too. Keys that the task file sets are shown like others.
    """
    told = {chosen: None} if chosen and _does_something(search, chosen) else {}
    counts: dict[str, int] = {}
    for lever, combination in sorted(_singles(search), key=lambda single: _usefulness(search, single[1]), reverse=True):
        if counts.get(lever, 0) < PER_LEVER and len(told) < MOST and combination not in told:
            told[combination] = None
            counts[lever] = counts.get(lever, 0) + 1
    ordered = sorted(told, key=lambda each: _usefulness(search, each), reverse=True)
    return [_concession(search, each) for each in ordered]


def frontier_of(search: Search, chosen: Combination) -> list[FrontierPoint]:
    """Return what nothing beats in both memory and time, the chosen one and the one as written, smallest first."""
    on_frontier = pareto(search.found, first=chosen)
    shown = {*on_frontier, chosen, ()}
    return [
        FrontierPoint(
            label=label_of(each),
            settings=_settings(search, each),
            peak_bytes=search.found[each].peak_bytes,
            step_s=search.found[each].step_s,
            fits=_fits(search, each),
            chosen=each == chosen,
            on_frontier=not any(_beats(other, search.found[each]) for other in search.found.values()),
        )
        for each in sorted(shown, key=lambda each: (search.found[each].peak_bytes, search.found[each].step_s))
    ]


def pareto(found: Mapping[Combination, Outcome], first: Combination = ()) -> set[Combination]:
    """Return the combinations that no other beats; of equal ones `first`, or the one that changes the least."""
    kept: set[Combination] = set()
    fastest_s = float("inf")
    order = sorted(found, key=lambda each: (found[each].peak_bytes, found[each].step_s, each != first, len(each)))
    for combination in order:
        if found[combination].step_s < fastest_s:
            kept.add(combination)
            fastest_s = found[combination].step_s
    return kept


def time_change(share: float) -> str:
    """Return `+31 % time`, or `same time`."""
    said = change(share)
    return "same time" if said.startswith("0") else f"{said} time"


def _bytes_change(number: int) -> str:
    return size_change(number) if number else "same memory"


def _beats(a: Outcome, b: Outcome) -> bool:
    return a != b and a.peak_bytes <= b.peak_bytes and a.step_s <= b.step_s


def _singles(search: Search) -> Iterator[tuple[str, Combination]]:
    """Yield lever and combination of every option by itself that does something, no outcome twice.

    What needs another option is there too (nf4 needs LoRA), but not what would make that train still less.
    """
    outcomes: set[Outcome] = set()
    for option in search.options:
        alone = search.alone(option, search.options)
        if alone is None or alone not in search.found or (len(alone) > 1 and option.loss):
            continue
        if _does_something(search, alone) and search.found[alone] not in outcomes:
            outcomes.add(search.found[alone])
            yield option.lever, alone


def _does_something(search: Search, combination: Combination) -> bool:
    found, written = search.found[combination], search.found[()]
    saves = found.peak_bytes < written.peak_bytes * (1 - LEAST_SAVING)
    return saves or found.step_s < written.step_s * (1 - LEAST_SPEED)


def _usefulness(search: Search, combination: Combination) -> tuple[bool, float]:
    """Return bytes saved per share of time lost; behind all that save, the share of time won."""
    found, written = search.found[combination], search.found[()]
    saved, lost = written.peak_bytes - found.peak_bytes, found.step_s / written.step_s - 1
    saves = saved > written.peak_bytes * LEAST_SAVING
    return saves, saved / max(lost, LEAST_SPEED) if saves else -lost


def _concession(search: Search, combination: Combination) -> Concession:
    found, written = search.found[combination], search.found[()]
    settings = _settings(search, combination)
    saved, slower = found.peak_bytes - written.peak_bytes, found.step_s / written.step_s - 1
    return Concession(
        option=", ".join(f"{key.removeprefix('train.')}: {_yaml(value)}" for key, value in settings.items()),
        settings=settings,
        peak_bytes=found.peak_bytes,
        bytes_change=saved,
        step_s=found.step_s,
        step_change=slower,
        fits=_fits(search, combination),
        same_mathematics=tier_of(combination) <= SAME,
        tier=tier_of(combination),
        sentence="; ".join(
            [f"{label_of(combination)}: {_bytes_change(saved)}, {time_change(slower)}", *_notes(combination)]
        ),
    )


def _notes(combination: Combination) -> list[str]:
    """Return what a combination costs beside time; of many things only the gravest."""
    notes = list(dict.fromkeys(option.note for option in combination if option.note))
    if len(notes) <= MOST_NOTES:
        return notes
    return ["another algorithm" if tier_of(combination) == ALGORITHM else "changes the training"]


def _settings(search: Search, combination: Combination) -> dict[str, Any]:
    spec = search.spec_of(combination)
    assert spec is not None  # it was evaluated
    return difference(search.spec, spec)


def _fits(search: Search, combination: Combination) -> bool | None:
    return None if search.limit_bytes is None else search.fits(combination)


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
