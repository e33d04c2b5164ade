"""Rules for tasks of raw text, which has no prompts and no answers: what was learned, and what it cost elsewhere.

forgotten(Evidence(result, None, "task.yaml"))
"""

from __future__ import annotations

from luthier.advice.evidence import Evidence
from luthier.advice.procedure import Rule, Said
from luthier.ground.objective_results import TextChange
from luthier.ground.words import signed

DOMAIN, GENERAL = "domain", "general"


def forgotten(e: Evidence) -> list[Said]:
    """R30: general text is predicted worse than before."""
    change = _change(e, GENERAL)
    if change is None or change.interval[0] <= 0:
        return []
    step = "Mix general text into the training, as a source with a share of a tenth or more, so that less is forgotten."
    why = f"General text takes {_told(change)} after training."
    return [Said("R30", step, (why,), _numbers(change), e.command("train"))]


def nothing_learned(e: Evidence) -> list[Said]:
    """R31: no gain on the domain's text was shown."""
    change = _change(e, DOMAIN)
    if change is None or change.interval[1] < 0:
        return []
    step = "Train on more of the domain's text, or for longer: no gain was shown on the text that was held out."
    why = f"Domain text takes {_told(change)} after training."
    return [Said("R31", step, (why,), _numbers(change), e.command("train", "train.epochs=4"))]


def learned(e: Evidence) -> list[Said]:
    """R32: the domain's text is predicted better, and nothing was shown to be forgotten."""
    change, general = _change(e, DOMAIN), _change(e, GENERAL)
    if change is None or change.interval[1] >= 0 or general is None or general.interval[0] > 0:
        return []
    step = "Use the trained model for this text, or finetune it further for a task."
    why = (
        f"Domain text takes {_told(change)} after training.",
        f"General text takes {_told(general)}, so no forgetting was shown.",
    )
    return [Said("R32", step, why, _numbers(change))]


def unmeasured(e: Evidence) -> list[Said]:
    """R33: nothing says what was forgotten."""
    if _change(e, DOMAIN) is None or _change(e, GENERAL) is not None:
        return []
    step = "Name held-out general text as data.general, so that forgetting is measured."
    why = "0 general texts were read."
    return [Said("R33", step, (why,), {"general_texts": 0}, e.command("compare", "data.general=general.jsonl"))]


def _change(e: Evidence, text: str) -> TextChange | None:
    language = e.result.language if e.result else None
    return next((change for change in language.changes if change.text == text), None) if language else None


def _told(change: TextChange) -> str:
    low, high = change.interval
    more = "more" if change.difference > 0 else "fewer"
    return f"{abs(change.difference):.3f} bits per byte {more} (interval {signed(low, 3)} to {signed(high, 3)})"


def _numbers(change: TextChange) -> dict[str, object]:
    return {"text": change.text, "difference": change.difference, "interval": list(change.interval)}


RULES = (
    Rule("R30", "general text is predicted worse than before", forgotten),
    Rule("R31", "no gain on the domain's text was shown", nothing_learned),
    Rule("R32", "the domain's text is predicted better, and nothing was shown to be forgotten", learned),
    Rule("R33", "no general text was read", unmeasured),
)
