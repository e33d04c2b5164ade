"""Rules that say what is missing: facts (then passages), form (then finetuning), or both.

Facts are missing when answers lack them without passages and hold them with passages. Form is missing when the facts
are there and the shape is not, or when finetuning is seen to mend the shape. Does not choose a system; `choice` does.

    facts_and_form(Evidence(result, None, "task.yaml"))
"""

from __future__ import annotations

from typing import Any, NamedTuple

from luthier.advice.evidence import GOOD_PART, NOT_RETRIEVED, NOT_USED, TRAINED, Evidence, facts_of, form_of, numbers_of
from luthier.advice.procedure import Rule, Said
from luthier.ground.results import Measure, SystemResult
from luthier.ground.words import count, many, percent, points, points_span, span


class Seen(NamedTuple):
    """Something seen: a sentence with its numbers."""

    sentence: str
    numbers: dict[str, Any]


def facts_and_form(e: Evidence) -> list[Said]:
    """R8: facts are missing without passages, and form is wrong with them."""
    facts, form = _missing_facts(e), _wrong_form(e)
    if facts is None or form is None or e.enough_untrained():
        return []
    mended = _mended(e)
    passages = e.passages
    numbers = {**facts.numbers, **form.numbers, **mended.numbers, "parts": 2}
    why = tuple(sentence for sentence in (facts.sentence, form.sentence, mended.sentence) if sentence)
    if e.training("finetuned+rag") is not None:
        step = "Keep both parts, passages for facts and finetuning for form: neither of the 2 does the other's work."
        return [Said("R8", step, why, numbers)]
    step = f"Finetune with {many(passages, 'passage')} in each training prompt: facts and form are both missing."
    numbers["passages"] = passages
    return [Said("R8", step, why, numbers, e.command("train", f"train.passages={passages}"))]


def facts_only(e: Evidence) -> list[Said]:
    """R4: facts are missing without passages; form is not what is wrong."""
    facts = _missing_facts(e) or _facts_without_documents(e)
    if facts is None or _wrong_form(e) is not None:
        return []
    if e.result is not None and not e.result.has_documents:
        step = "Name the folder that holds the facts as documents in the task file, where 0 folders are named now."
        return [Said("R4", step, (facts.sentence,), {**facts.numbers, "folders": 0}, e.command("index"))]
    step = f"Give the model {many(e.passages, 'passage')} in each prompt, and do not finetune for facts."
    return [Said("R4", step, (facts.sentence,), {**facts.numbers, "passages": e.passages}, e.command("index"))]


def form_only(e: Evidence) -> list[Said]:
    """R6: the facts are there, the form is wrong."""
    form = _wrong_form(e)
    if form is None or _missing_facts(e) is not None or e.enough_untrained():
        return []
    n_train = e.result.n_train if e.result else 0
    mended = _mended(e)
    step = f"Finetune for form, which is what is missing, on the {many(n_train, 'training example')}."
    command = None if any(e.training(name) for name in TRAINED) else e.command("train")
    why = tuple(sentence for sentence in (form.sentence, mended.sentence) if sentence)
    return [Said("R6", step, why, {**form.numbers, **mended.numbers, "n_train": n_train}, command)]


def passages_miss(e: Evidence) -> list[Said]:
    """R5: passages are in the prompt and the facts are still wrong: they were not found, or found and not used."""
    system = _best_informed(e)
    if system is None or _facts_good(system):
        return []
    missed, unused = system.causes.get(NOT_RETRIEVED, 0), system.causes.get(NOT_USED, 0)
    numbers: dict[str, Any] = {"system": system.name, "good": GOOD_PART, "n": system.n_total}
    why = _still_missing(system, missed, unused, numbers)
    if unused > missed:
        return [_use_passages(e, why, numbers)]
    more = 2 * e.passages
    numbers["passages"] = more
    step = f"Find better passages: look at what the search returns, and try {more} of them in each prompt."
    keyword_only = e.result is not None and e.result.index is not None and e.result.index.embedding is None
    hybrid = ("retrieval.method=hybrid", "retrieval.embedding=minilm-l6") if keyword_only else ()
    return [Said("R5", step, why, numbers, e.command("compare", *hybrid, f"retrieval.passages={more}"))]


def _best_informed(e: Evidence) -> SystemResult | None:
    """The system with passages whose answers hold the facts most often."""
    systems = [system for system in (e.system("rag"), e.system("finetuned+rag")) if system is not None]
    return max(systems, key=lambda system: facts.score if (facts := facts_of(system)) else system.score, default=None)


def _facts_good(system: SystemResult) -> bool:
    facts = facts_of(system)
    if facts is not None:
        return facts.interval[1] >= GOOD_PART
    lacking = system.causes.get(NOT_RETRIEVED, 0) + system.causes.get(NOT_USED, 0)
    return lacking <= (1 - GOOD_PART) * system.n_total


def _still_missing(system: SystemResult, missed: int, unused: int, numbers: dict[str, Any]) -> tuple[str, ...]:
    why = []
    if (facts := facts_of(system)) is not None:
        numbers |= _numbers("facts", facts)
        why.append(
            f"At best {percent(facts.score)} of answers hold the right facts ({system.title}),"
            f" and even the upper end of the interval, {percent(facts.interval[1])}, is below {percent(GOOD_PART)}."
        )
    if missed or unused:
        numbers |= {"not_retrieved": missed, "not_used": unused}
        answers = f"{system.title} answered {many(missed, 'item')} wrongly without the facts in its passages"
        why.append(f"Of {count(system.n_total)} items, {answers}, and {count(unused)} with them.")
    return tuple(why)


def _use_passages(e: Evidence, why: tuple[str, ...], numbers: dict[str, Any]) -> Said:
    """The passages hold the facts and the model does not use them: that can be taught, or a bigger base can do it."""
    if e.training("finetuned+rag") is None:
        numbers["passages"] = e.passages
        step = (
            f"Teach the model to use its passages: finetune with {many(e.passages, 'passage')} in each training prompt."
        )
        return Said("R5", step, why, numbers, e.command("train", f"train.passages={e.passages}"))
    parameters = e.result.provenance.parameters if e.result else 0
    numbers["parameters"] = parameters
    step = f"Try a bigger base model than this one with {parameters / 1e6:,.0f} million parameters."
    return Said("R5", step, why, numbers)


def _missing_facts(e: Evidence) -> Seen | None:
    """Wrong without a passage and right with one, untrained or trained; by the whole score when no facts are named."""
    pairs = [(e.system("prompt") or e.system("base"), e.system("rag"))]
    pairs.append((e.system("finetuned"), e.system("finetuned+rag")))
    for closed, opened in pairs:
        without, given = facts_of(closed), facts_of(opened)
        if closed is None or opened is None or without is None or given is None:
            continue
        if without.interval[1] < given.interval[0]:
            sentence = (
                f"The right facts stand in {_part(without)} of answers of {closed.title},"
                f" and in {_part(given)} of {opened.title}, which sees passages."
            )
            return Seen(sentence, {**_numbers("facts_without", without), **_numbers("facts_with", given)})
    return _passages_help(e) if all(facts_of(opened) is None for _, opened in pairs) else None


def _passages_help(e: Evidence) -> Seen | None:
    c = e.contrast("rag", "prompt")
    if c is None or c.verdict != "better":
        return None
    worth = f"{points(c.difference)} ({points_span(*c.interval)})"
    return Seen(f"Passages in the prompt are worth {worth}.", numbers_of(c))


def _facts_without_documents(e: Evidence) -> Seen | None:
    closed = e.system("prompt") or e.system("base")
    facts = facts_of(closed)
    if e.result is None or e.result.has_documents or closed is None or facts is None:
        return None
    if facts.interval[1] >= GOOD_PART:
        return None
    sentence = f"The right facts stand in {_part(facts)} of answers of {closed.title}."
    return Seen(sentence, _numbers("facts_without", facts))


def _wrong_form(e: Evidence) -> Seen | None:
    """The best informed system without training misses the form, and facts are not what holds it back."""
    system = e.system("rag") or e.system("prompt") or e.system("base")
    form = form_of(system)
    if system is None or form is None or form.interval[1] >= GOOD_PART:
        return None
    if not _facts_known(system, form) and not _form_mended(e, form):
        return None
    sentence = f"The form is right in {_part(form)} of answers of {system.title}."
    return Seen(sentence, {**_numbers("form", form), "form_system": system.name})


def _facts_known(system: SystemResult, form: Measure) -> bool:
    facts = facts_of(system)
    return facts is None or facts.interval[0] > form.interval[1]


def _form_mended(e: Evidence, form: Measure) -> bool:
    trained = (form_of(e.system(name)) for name in TRAINED)
    return any(measure is not None and measure.interval[0] > form.interval[1] for measure in trained)


def _mended(e: Evidence) -> Seen:
    """What finetuning did for form and facts, where it was measured."""
    system = e.system("finetuned") or e.system("finetuned+rag")
    form, facts = form_of(system), facts_of(system)
    if system is None or form is None:
        return Seen("", {})
    numbers = _numbers("finetuned_form", form)
    if facts is None:
        return Seen(f"With {system.title} it is right in {_part(form)}.", numbers)
    numbers |= _numbers("finetuned_facts", facts)
    return Seen(f"With {system.title} it is right in {_part(form)}, and the facts in {_part(facts)}.", numbers)


def _part(measure: Measure) -> str:
    return f"{percent(measure.score)} ({span(*measure.interval)})"


def _numbers(name: str, measure: Measure) -> dict[str, Any]:
    return {name: measure.score, f"{name}_interval": list(measure.interval)}


RULES = (
    Rule("R8", "facts missing without passages, and form wrong with them", facts_and_form),
    Rule("R4", "facts missing without passages", facts_only),
    Rule("R6", "form wrong although the facts are there", form_only),
    Rule("R5", "facts wrong although passages are in the prompt", passages_miss),
)
