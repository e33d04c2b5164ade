"""The options that were not chosen, each with the reason in numbers.

The reasons against finetuning stand here even when it wins. Chooses nothing itself; it hears the choice.

    rejected_options(Evidence(result, None, "task.yaml"))
"""

from __future__ import annotations

from typing import Any

from luthier.advice.choice import trained_choice, untrained_choice
from luthier.advice.evidence import TRAINED, Evidence, answer_s, facts_of, form_of, plain
from luthier.ground.results import Rejected, SystemResult, TrainResult
from luthier.ground.words import count, distance, many, percent, seconds, size


def rejected_options(e: Evidence) -> list[Rejected]:
    """Return what was not chosen and why; an empty list when nothing was compared."""
    chosen = untrained_choice(e) or trained_choice(e)
    best = chosen or e.best()
    if best is None or e.result is None:
        return []
    others = [system for system in e.result.systems if system.name != best.name]
    options = [_system_left(best, other) for other in others]
    if best.name in TRAINED:
        return [*options, _without_finetuning(e, best)]
    return [*options, _finetuning(e, best)]


def _system_left(best: SystemResult, other: SystemResult) -> Rejected:
    behind = best.score - other.score
    numbers: dict[str, Any] = {
        "score": other.score,
        "chosen": best.name,
        "chosen_score": best.score,
        "difference": -behind,
    }
    reason = f"It scores {percent(other.score)}, {distance(behind)} below {best.title}{_weak_parts(other, numbers)}."
    if behind <= 0:
        numbers |= {
            "answer_s": answer_s(other),
            "chosen_answer_s": answer_s(best),
            "prompt_tokens": other.prompt_tokens,
        }
        reason = (
            f"It scores {percent(other.score)}, {distance(behind)} above {best.title}, at {seconds(answer_s(other))}"
            f" and {count(other.prompt_tokens)} prompt tokens an answer, where {seconds(answer_s(best))} is enough."
        )
    if other.cost:
        numbers["cost"] = other.cost
        reason += f" Its {many(other.n_total, 'answer')} cost {other.cost:.2f}."
        numbers["n_total"] = other.n_total
    return Rejected(option=other.title, reason=reason, numbers=plain(numbers))


def _weak_parts(system: SystemResult, numbers: dict[str, Any]) -> str:
    parts = []
    for name, measure in (("form", form_of(system)), ("facts", facts_of(system))):
        if measure is not None:
            numbers[name] = measure.score
            parts.append(f"{name} {percent(measure.score)}")
    return f" ({', '.join(parts)})" if parts else ""


def _without_finetuning(e: Evidence, chosen: SystemResult) -> Rejected:
    """What speaks against the finetuned model although it wins: its price, what it may have forgotten, its upkeep."""
    rivals = [system for system in e.ladder() if system.name not in TRAINED]
    rival = max(rivals, key=lambda system: system.score, default=None)
    numbers: dict[str, Any] = {"regression_items": 0}
    lost = ""
    if rival is not None:
        numbers |= {"rival": rival.name, "lost": chosen.score - rival.score}
        lost = f"It would cost {distance(chosen.score - rival.score)} of score ({rival.title}). "
    reason = f"{lost}What speaks for it all the same: {_burden(e.training(chosen.name), chosen, numbers)}."
    return Rejected(option="doing without finetuning", reason=reason, numbers=plain(numbers))


def _finetuning(e: Evidence, best: SystemResult) -> Rejected:
    trained = next((system for system in reversed(e.ladder()) if system.name in TRAINED), None)
    numbers: dict[str, Any] = {"regression_items": 0, "best": best.name, "best_score": best.score}
    if trained is None:
        rows = e.result.n_train if e.result else 0
        numbers["n_train"] = rows
        reason = (
            f"Its gain over {best.title} ({percent(best.score)}) is unmeasured: 0 finetuned systems were compared."
            f" It would take {many(rows, 'training example')} and training, due again for each newer base model,"
            f" and {_forgetting()}."
        )
        return Rejected(option="finetuning", reason=reason, numbers=plain(numbers))
    gain = trained.score - best.score
    numbers |= {"gain": gain, "trained": trained.name}
    worth = (
        f"{distance(gain)} {'more' if gain > 0 else 'less'} than {best.title}"
        if gain
        else f"0.0 points over {best.title}"
    )
    burden = _burden(e.training(trained.name), trained, numbers)
    reason = f"Measured, {trained.title} brings {worth}, and {burden}."
    return Rejected(option="finetuning", reason=reason, numbers=plain(numbers))


def _burden(training: TrainResult | None, system: SystemResult, numbers: dict[str, Any]) -> str:
    """What finetuning costs: once, to keep, again for each newer base model, and in what may be forgotten."""
    train_s = training.seconds if training else system.train_seconds or 0.0
    numbers["train_s"] = train_s
    kept = ""
    if training is not None:
        numbers |= {"rows": training.rows, "adapter_bytes": training.adapter_bytes}
        kept = f" on {many(training.rows, 'row')}, leaves {size(training.adapter_bytes)} to keep"
    return f"training takes {seconds(train_s)}{kept}, is due again for each newer base model, and {_forgetting()}"


def _forgetting() -> str:
    return "what the model forgets of other work is unknown, as 0 items of other work were measured"
