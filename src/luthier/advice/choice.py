"""Rules that choose a system: no training if that is enough, the finetuned one if it is shown better, else the cheaper.

Does not say what is missing (`diagnosis`) or how sure the numbers are (`limits`).

    prompt_is_enough(Evidence(result, None, "task.yaml"))
"""

from __future__ import annotations

from typing import Any

from luthier.advice.evidence import TRAINED, Evidence, answer_s, numbers_of
from luthier.advice.procedure import Rule, Said
from luthier.ground.results import Contrast, SystemResult
from luthier.ground.words import count, distance, many, percent, points, points_span, probability, seconds, size, span


def prompt_not_searched(e: Evidence) -> list[Said]:
    """R1: fewer than two prompts were tried, and what is there is not enough."""
    tried = len(e.result.prompt.arms) if e.result and e.result.prompt else 0
    if e.result is None or not e.result.systems or tried > 1 or e.enough_untrained():
        return []
    step = f"Search for a better prompt before training: {many(tried, 'prompt')} tried so far, where 2 are the least."
    return [Said("R1", step, (), {"prompts_tried": tried, "least": 2}, e.command("prompt"))]


def prompt_is_enough(e: Evidence) -> list[Said]:
    """R2: a system without training reaches the target, or no target is set and none that was trained beats it."""
    enough = untrained_choice(e)
    if enough is None:
        return []
    numbers: dict[str, Any] = {"system": enough.name, "score": enough.score, "interval": list(enough.interval)}
    numbers["n"] = enough.n_total
    score, n = percent(enough.score), many(enough.n_total, "test item")
    step = f"Do not finetune: use {enough.title}, which scores {score} on {n}."
    why = _target_reached(e, enough, numbers) if e.target is not None else _trained_losers(e, enough, numbers)
    return [Said("R2", step, why, numbers, e.command("report"))]


def finetuned_wins(e: Evidence) -> list[Said]:
    """R17: the best system is a finetuned one, shown better than what it was declared against, and good enough."""
    best = trained_choice(e)
    if best is None or (contrast := e.contrast(best.name)) is None:
        return []
    numbers: dict[str, Any] = {"system": best.name, "score": best.score, "interval": list(best.interval)}
    numbers |= {"n": best.n_total, "systems": len(e.ladder())}
    step = (
        f"Use {best.title}: it is the best of {many(len(e.ladder()), 'system')}, with {percent(best.score)}"
        f" ({span(*best.interval)}) on {many(best.n_total, 'test item')}."
    )
    command, unused = _ship_command(e, best, numbers)
    why = (_gain(e, contrast, numbers), *_adapter(e, best, numbers), *unused)
    return [Said("R17", step, why, numbers, command)]


def cheaper_is_as_good(e: Evidence) -> list[Said]:
    """R18: a contrast shows one system no worse than another within the margin: prefer the cheaper of the two."""
    found = (_cheaper(e, c) for c in e.contrasts("non-inferior"))
    return [said for said in found if said is not None]


def costlier_is_worse(e: Evidence) -> list[Said]:
    """R19: a contrast shows the costlier system to be worse."""
    said = []
    for c in e.contrasts("worse"):
        step = f"Leave {e.title(c.a)} out: it is {distance(c.difference)} worse than {e.title(c.b)}."
        span = points_span(*c.interval)
        why = f"The interval of the difference is {span}, Holm p {probability(c.p_holm)}."
        said.append(Said("R19", step, (why,), numbers_of(c)))
    return said


def untrained_choice(e: Evidence) -> SystemResult | None:
    """Return the system without training that should be used, if one should."""
    if e.target is not None:
        return e.enough_untrained()
    best = e.best()
    trained = [system for system in e.ladder() if system.name in TRAINED]
    return best if best is not None and trained and best not in trained else None


def trained_choice(e: Evidence) -> SystemResult | None:
    """Return the finetuned system that should be used, if one should."""
    best = e.best()
    if best is None or best.name not in TRAINED or e.enough_untrained():
        return None
    contrast = e.contrast(best.name)
    shown = contrast is not None and contrast.verdict == "better"
    reached = e.target is None or best.score >= e.target
    return best if shown and reached else None


def _target_reached(e: Evidence, enough: SystemResult, numbers: dict[str, Any]) -> tuple[str, ...]:
    target = e.target or 0.0
    numbers["target"] = target
    low = enough.interval[0]
    sure = "above it too" if low >= target else "still below it"
    end = f"the lower end of the interval, {percent(low)}, is {sure}"
    return (f"The target of {percent(target)} is reached, and {end}.",)


def _trained_losers(e: Evidence, enough: SystemResult, numbers: dict[str, Any]) -> tuple[str, ...]:
    why = []
    for system in e.ladder():
        if system.name in TRAINED:
            behind = enough.score - system.score
            numbers[f"{system.name}_behind"] = behind
            why.append(f"Measured beside it, {system.title} is {distance(behind)} behind.")
    return tuple(why)


def _gain(e: Evidence, c: Contrast, numbers: dict[str, Any]) -> str:
    numbers |= numbers_of(c)
    span = points_span(*c.interval)
    return f"Against {e.title(c.b)} that is {points(c.difference)} ({span}; Holm p {probability(c.p_holm)})."


def _adapter(e: Evidence, best: SystemResult, numbers: dict[str, Any]) -> list[str]:
    training = e.training(best.name)
    if training is None:
        return []
    numbers |= {"adapter": training.adapter, "adapter_bytes": training.adapter_bytes}
    return [f"What was trained takes {size(training.adapter_bytes)} and lies in {training.adapter}."]


def _ship_command(e: Evidence, best: SystemResult, numbers: dict[str, Any]) -> tuple[str, list[str]]:
    """After training on a sample, train on all rows; otherwise the page is what is left to hand over."""
    training = e.training(best.name)
    kept = e.kept("train")
    if training is None or training.rows >= kept:
        return e.command("report"), []
    numbers |= {"trained_rows": training.rows, "train_rows": kept}
    passages = [f"train.passages={training.passages}"] if training.passages else []
    unused = (
        f"It learned from {count(training.rows)} of the {count(kept)} rows that there are: train on all before use."
    )
    return e.command("train", "data.sample.train=null", *passages), [unused]


def _cheaper(e: Evidence, c: Contrast) -> Said | None:
    a, b = e.system(c.a), e.system(c.b)
    if a is None or b is None:
        return None
    cheap, dear = sorted((a, b), key=answer_s)
    numbers = {**numbers_of(c), "margin": e.margin, "cheaper": cheap.name}
    numbers |= {"cheaper_answer_s": answer_s(cheap), "dearer_answer_s": answer_s(dear)}
    costs = f"{seconds(answer_s(cheap))} an answer against {seconds(answer_s(dear))} for {dear.title}"
    why = (
        f"Within the margin of {distance(e.margin)}, {a.title} is no worse than {b.title}:"
        f" {points(c.difference)} ({points_span(*c.interval)})."
    )
    return Said("R18", f"Prefer {cheap.title}: {costs}.", (why,), numbers)


RULES = (
    Rule("R1", "fewer than two prompts tried, and not good enough yet", prompt_not_searched),
    Rule("R2", "a system without training is good enough", prompt_is_enough),
    Rule("R17", "a finetuned system is best, shown better, and good enough", finetuned_wins),
    Rule("R18", "a contrast is non-inferior", cheaper_is_as_good),
    Rule("R19", "a contrast is worse", costlier_is_worse),
)
