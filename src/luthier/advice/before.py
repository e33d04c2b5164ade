"""Rules that come before any judgement: is there something to measure with, and is it clean?

Judges no system; `choice` does.

    too_few_items(Evidence(None, check, "task.yaml"))
"""

from __future__ import annotations

from luthier.advice.evidence import Evidence
from luthier.advice.procedure import Rule, Said
from luthier.ground.results import CheckResult, Duplicates
from luthier.ground.words import count, distance, many, percent

WANTED_ITEMS = 50  # below this even a difference of 30 points is often invisible
DUPLICATE_SHARE = 0.05  # of the rows of a split: more than this and its size is an illusion


def too_few_items(e: Evidence) -> list[Said]:
    """R0: no test set, or one too small to decide on."""
    n = _test_items(e)
    if n is None or n >= WANTED_ITEMS:
        return []
    numbers = {"n_test": n, "wanted": WANTED_ITEMS, "missing": WANTED_ITEMS - n}
    step = f"Make the test set larger first: add at least {WANTED_ITEMS - n} items to the {n} that there are."
    if n == 0:
        step = f"Make a test set first: at least {WANTED_ITEMS} items that are kept apart, where there are {n} now."
    why = f"With fewer than {WANTED_ITEMS} items nothing but a very large difference can be seen."
    sampled = e.result is not None and e.result.sampled is not None
    command = e.command("compare", f"data.sample.test={WANTED_ITEMS}") if sampled else e.command("check")
    return [Said("R0", step, (why,), numbers, command)]


def check_refuses(e: Evidence) -> list[Said]:
    """R0a: the data check says that training would be meaningless."""
    if e.check is None or e.check.ok:
        return []
    reasons = e.check.reasons
    step = f"Mend the data before anything else: the check says no for {many(len(reasons), 'reason')}."
    why = tuple(f"Reason {number}: {reason.rstrip('.')}." for number, reason in enumerate(reasons, 1))
    return [Said("R0a", step, why, {"reasons": len(reasons), "told": list(reasons)}, e.command("check"))]


def leaking_test_items(e: Evidence) -> list[Said]:
    """R0b: so many test items repeat a training row that scores could be lifted beyond the margin."""
    said = []
    for pair, found in _test_overlaps(e.check).items():
        rows = found.exact + found.near
        total = e.kept("test")
        if total == 0 or rows / total <= e.margin:
            continue
        numbers = {"pair": pair, "rows": rows, "exact": found.exact, "near": found.near, "test_rows": total}
        step = f"Take {count(rows)} of {count(total)} test items out: they repeat rows of {_other(pair)}."
        why = (
            f"{count(found.exact)} are equal and {count(found.near)} are at least {percent(found.threshold)} alike.",
            f"They can lift a score by up to {distance(rows / total)}, more than the margin of {distance(e.margin)}.",
        )
        numbers |= {"share": rows / total, "margin": e.margin, "threshold": found.threshold}
        said.append(Said("R0b", step, why, numbers, e.command("check")))
    return said


def no_comparison(e: Evidence) -> list[Said]:
    """R0c: nothing has been compared yet."""
    if e.result is not None and e.result.systems:
        return []
    step = "Compare the systems on the test set: 0 have been measured so far."
    return [Said("R0c", step, (), {"systems": 0}, e.command("compare"))]


def untidy_rows(e: Evidence) -> list[Said]:
    """R21: repeats, contradictions and small overlaps that do not forbid a decision."""
    if e.check is None:
        return []
    facts, numbers = _untidy(e, e.check)
    if not facts:
        return []
    step = f"Mend {many(len(facts), 'blemish', 'blemishes')} of the data before the next training."
    return [Said("R21", step, tuple(facts), {"blemishes": len(facts), **numbers}, e.command("check"))]


def _untidy(e: Evidence, check: CheckResult) -> tuple[list[str], dict[str, float]]:
    facts: list[str] = []
    numbers: dict[str, float] = {}
    for split, found in check.duplicates.items():
        rows, total = found.exact + found.near, e.kept(split)
        if total and rows / total > DUPLICATE_SHARE:
            share = percent(rows / total)
            facts.append(f"{count(rows)} of {count(total)} rows of {split} ({share}) repeat an earlier one.")
            numbers |= {f"{split}_repeats": rows, f"{split}_rows": total, f"{split}_share": rows / total}
    if check.conflicts:
        facts.append(f"{many(len(check.conflicts), 'pair')} of rows with the same input disagree in their output.")
        numbers["conflicts"] = len(check.conflicts)
    for pair, found in check.overlap.items():
        rows, total = found.exact + found.near, e.kept("test" if "test" in pair.split("/") else "dev")
        blocking = "test" in pair.split("/") and total and rows / total > e.margin
        if rows and not blocking:
            facts.append(f"{count(rows)} of {count(total)} items overlap between {pair.replace('/', ' and ')}.")
            numbers |= {f"{pair}_overlap": rows, f"{pair}_rows": total}
    return facts, numbers


def _test_items(e: Evidence) -> int | None:
    if e.result is not None and e.result.systems:
        return e.result.n_test
    return e.kept("test") if e.check is not None else None


def _test_overlaps(check: CheckResult | None) -> dict[str, Duplicates]:
    overlap = check.overlap if check else {}
    return {pair: found for pair, found in overlap.items() if "test" in pair.split("/")}


def _other(pair: str) -> str:
    return " and ".join(part for part in pair.split("/") if part != "test")


RULES = (
    Rule("R0", "no test set, or fewer than 50 items", too_few_items),
    Rule("R0a", "the data check says no", check_refuses),
    Rule("R0b", "more test items repeat a training row than the margin allows", leaking_test_items),
    Rule("R0c", "nothing compared yet", no_comparison),
)
LATE_RULES = (Rule("R21", "repeats, contradictions or small overlaps in the data", untidy_rows),)
