"""Rules about the limits of the numbers: what is not shown, what is not reached, what failed, and what training repays.

Chooses nothing; `choice` does.

    not_shown(Evidence(result, None, "task.yaml"))
"""

from __future__ import annotations

from luthier.advice.choice import trained_choice
from luthier.advice.evidence import Evidence, answer_s, numbers_of
from luthier.advice.procedure import Rule, Said
from luthier.ground.results import Contrast, SystemResult
from luthier.ground.words import count, distance, many, percent, points, points_span, seconds

FEW_EXAMPLES = 50  # with fewer, worked examples in the prompt are the better use of them
FAILED_SHARE = 0.1  # of the answers: more, and the failures are what is measured
SHORTER = {"finetuned": "prompt", "finetuned+rag": "rag"}  # what each finetuned system stands in for


def not_shown(e: Evidence) -> list[Said]:
    """R16: the interval of a declared contrast includes zero: say how many more items it would take, never "equal"."""
    return [_more_items(e, c) for c in e.contrasts("no evidence")]


def target_missed(e: Evidence) -> list[Said]:
    """R10: nothing reaches the target: more examples while the learning curve rises, a bigger base when it is flat."""
    best = e.best()
    if e.result is None or best is None or e.target is None or best.score >= e.target:
        return []
    rows = e.result.n_train
    numbers = {
        "system": best.name,
        "score": best.score,
        "target": e.target,
        "short": e.target - best.score,
        "n_train": rows,
    }
    short = (
        f"The best, {best.title}, scores {percent(best.score)},"
        f" {distance(e.target - best.score)} short of the target of {percent(e.target)}."
    )
    steps = len(e.result.curve)
    if steps < 2:
        more = _more_examples(e, numbers)
        return [Said("R10", more, (short,), numbers, _more_command(e, numbers))]
    (before, low, *_), (after, high, *_) = e.result.curve[-2:]
    numbers |= {"rows_before": before, "rows_after": after, "slope": high - low, "margin": e.margin}
    seen = f"From {count(before)} to {count(after)} rows the score moved by {points(high - low)}"
    if high - low > e.margin:
        why = f"{seen}, more than the margin of {distance(e.margin)}: it still rises."
        return [Said("R10", _more_examples(e, numbers), (short, why), numbers, _more_command(e, numbers))]
    numbers["parameters"] = e.result.provenance.parameters
    millions = f"{e.result.provenance.parameters / 1e6:,.0f} million parameters"
    why = f"{seen}, no more than the margin of {distance(e.margin)}: more rows of this kind do little."
    return [Said("R10", f"Try a bigger base model than this one with {millions}.", (short, why), numbers)]


def few_examples(e: Evidence) -> list[Said]:
    """R3: so few training examples that they serve better as worked examples in the prompt."""
    rows = e.result.n_train if e.result else 0
    if not 0 < rows < FEW_EXAMPLES or e.enough_untrained() or trained_choice(e):
        return []
    most = min(rows, 8)
    step = (
        f"Put up to {most} of the {many(rows, 'training example')} into the prompt, and label {FEW_EXAMPLES} or more."
    )
    numbers = {"n_train": rows, "few": FEW_EXAMPLES, "most": most}
    command = e.command("prompt", f"prompt.examples=[0,{most // 2},{most}]")
    return [Said("R3", step, (), numbers, command)]


def training_repays(e: Evidence) -> list[Said]:
    """R13: how many answers until the training has paid for itself in time."""
    best = trained_choice(e)
    other = e.system(SHORTER[best.name]) if best else None
    if best is None or other is None or not best.train_seconds:
        return []
    saved_s, saved_tokens = answer_s(other) - answer_s(best), other.prompt_tokens - best.prompt_tokens
    numbers = {"train_s": best.train_seconds, "saved_s": saved_s, "saved_tokens": saved_tokens, "against": other.name}
    tokens = f"{count(abs(saved_tokens))} prompt tokens {'fewer' if saved_tokens >= 0 else 'more'}"
    if saved_s <= 0:
        step = f"Count the {seconds(best.train_seconds)} of training as the price of the score: time does not repay it."
        why = f"{_an_answer(best)} takes {seconds(-saved_s)} longer than {_of(other)}, with {tokens}."
        return [Said("R13", step, (why,), numbers)]
    answers = best.train_seconds / saved_s
    numbers["answers"] = answers
    step = f"Expect the {seconds(best.train_seconds)} of training to be repaid after {many(round(answers), 'answer')}."
    why = f"{_an_answer(best)} takes {seconds(saved_s)} less than {_of(other)}, with {tokens}."
    return [Said("R13", step, (why,), numbers)]


def failed_answers(e: Evidence) -> list[Said]:
    """R20: so many answers of a system failed that failures, not answers, are measured."""
    systems = [s for s in (e.result.systems if e.result else []) if s.name != "base"]
    return [_failures(s) for s in systems if s.n_total and s.n_failed / s.n_total >= FAILED_SHARE]


def no_target(e: Evidence) -> list[Said]:
    """R22: nobody has said what is good enough."""
    best = e.best()
    if best is None or e.target is not None:
        return []
    score = percent(best.score)
    step = f"Set compare.target in the task file: without it nobody can say whether {score} is enough."
    return [Said("R22", step, (), {"score": best.score, "system": best.name})]


def _more_items(e: Evidence, c: Contrast) -> Said:
    n = e.result.n_test if e.result else 0
    numbers = {**numbers_of(c), "n_test": n, "detectable": c.detectable, "more_items": c.more_items}
    why = (
        f"The difference {points(c.difference)} ({points_span(*c.interval)}) includes zero,"
        f" and {count(n)} items could only have shown {distance(c.detectable)} or more."
    )
    pair = f"{e.title(c.a)} and {e.title(c.b)}"
    if not c.more_items:
        step = f"Take {pair} as not told apart by these {many(n, 'item')}, which is not the same as equal."
        return Said("R16", step, (why,), numbers)
    step = f"Add {many(c.more_items, 'test item')} to tell {pair} apart."
    if abs(c.difference) < e.margin:
        numbers["margin"] = e.margin
        step = (
            f"Leave {pair} as not told apart, unless {distance(c.difference)} matter, less than the margin of"
            f" {distance(e.margin)}: it would take {many(c.more_items, 'more test item')}."
        )
        return Said("R16", step, (why,), numbers)
    numbers["items_then"] = n + c.more_items
    sampled = e.result is not None and e.result.sampled is not None
    command = e.command("compare", f"data.sample.test={n + c.more_items}") if sampled else e.command("compare")
    return Said("R16", step, (why,), numbers, command)


def _more_examples(e: Evidence, numbers: dict[str, object]) -> str:
    rows = e.result.n_train if e.result else 0
    numbers["rows_wanted"] = 2 * rows
    return f"Train on more examples, about {count(2 * rows)} where {count(rows)} were used."


def _more_command(e: Evidence, numbers: dict[str, object]) -> str:
    """Rows that are there and were not used come first; others must be labelled, and checked."""
    rows = e.result.n_train if e.result else 0
    if e.kept("train") > rows:
        numbers["rows_there"] = e.kept("train")
        return e.command("compare", f"data.sample.train={min(2 * rows, e.kept('train'))}")
    return e.command("check")


def _failures(s: SystemResult) -> Said:
    numbers = {"system": s.name, "n_failed": s.n_failed, "n_total": s.n_total, "share": s.n_failed / s.n_total}
    share = percent(s.n_failed / s.n_total)
    step = f"Find out why {s.title} failed on {count(s.n_failed)} of {count(s.n_total)} items ({share})."
    return Said("R20", step, (), numbers)


def _an_answer(system: SystemResult) -> str:
    return f"An answer of {system.title}"


def _of(system: SystemResult) -> str:
    return f"one of {system.title}"


RULES = (
    Rule("R16", "the interval of a contrast includes zero", not_shown),
    Rule("R10", "nothing reaches the target", target_missed),
    Rule("R3", "fewer than 50 training examples", few_examples),
    Rule("R13", "a finetuned system is used: what training repays", training_repays),
    Rule("R20", "a tenth of a system's answers failed", failed_answers),
    Rule("R22", "no target is set", no_target),
)
