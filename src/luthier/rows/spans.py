"""Find, in a rendered conversation, the stretches that the model has to write: each answer and its end token.

An answer's stretch begins where the generation prompt ends (what a model is given when it is to answer), and ends with
the template's end token. Two ways lead there. Most templates render the turns before an answer as a prefix of the
whole, so the rendered prompt tells where the answer begins. Others change earlier turns later (they drop thoughts, or
move the system text); there, the conversation is rendered once more with sentinels for answers, and the literal pieces
between them are matched. Characters only; tokens are the affair of `luthier.rows.template`.

    >>> find_answer("<u>hi<a>\\nyo<e>\\n", 8, 0, "yo", End("<e>"), whole=True)
    Span(start=8, end=14, body_end=11)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WINDOW = 400  # characters that a template may put between the generation prompt and the answer
_TAILS = (16, 8, 4)  # last characters of the generation prompt by which its end is recognised


@dataclass(frozen=True)
class End:
    """How an answer ends: `token` (None: the template writes none), after white space `gap`."""

    token: str | None
    gap: str = ""


@dataclass(frozen=True)
class Span:
    """Characters [start, end) that are trained; the answer's own text ends at `body_end`."""

    start: int
    end: int
    body_end: int


def find_answer(text: str, start: int, begin: int, content: str, end: End, *, whole: bool) -> Span | None:
    """Return the stretch of the answer `content` in `text`, which begins at `start`, or None if it is not there.

    Args:
        begin: the answer itself begins at or after `start + begin`.
        whole: the answer must stand there in full (but for surrounding white space); otherwise what a template
            leaves of an earlier answer is accepted too.
    """
    for form in forms(content, whole=whole):
        at = text.find(form, start + begin, start + begin + _WINDOW + len(form))
        while at >= 0:
            stop = _stop(text, at + len(form), end)
            if stop is not None:
                return Span(start, stop, at + len(form))
            at = text.find(form, at + 1, start + begin + _WINDOW + len(form))
    return None


def find_between(
    text: str, pieces: Sequence[str], contents: Sequence[str], prompts: Sequence[str], end: End
) -> list[Span] | None:
    """Return the stretch of each answer, given the literal `pieces` around them (one more than answers)."""
    cursor = 0
    spans = []
    for index, content in enumerate(contents):
        if not text.startswith(pieces[index], cursor):
            return None
        at = cursor + len(pieces[index])
        after = pieces[index + 1]
        last = index == len(contents) - 1
        form = next((f for f in forms(content, whole=last) if text.startswith(f + after, at)), None)
        if form is None:
            return None
        start = _prompt_end(text, cursor, at, prompts[index])
        body_end = at + len(form)
        spans.append(Span(start, _stop(text, body_end, end) or body_end, body_end))
        cursor = body_end
    return spans


def turn_between(
    prompt: str, whole: str, end: End, controls: re.Pattern[str] | None, literals: Sequence[tuple[int, int]] = ()
) -> str | None:
    """Return what a template writes for a turn, up to its end token: `whole` ends with it, `prompt` asks for it.

    A turn that calls tools may end with another special token than an answer; None when `whole` does not go on where
    the prompt ends. Special tokens in the ranges `literals` of `whole` are text.
    """
    if not whole.startswith(prompt):
        return None
    found = controls.finditer(whole, len(prompt)) if controls else []
    marks = [mark for mark in found if not any(start <= mark.start() < stop for start, stop in literals)]
    last = next((mark for mark in reversed(marks) if mark[0] == end.token), marks[-1] if marks else None)
    return whole[len(prompt) : last.end()] if last else whole[len(prompt) :].rstrip()


def find_turns(text: str, turns: Sequence[str], contents: Sequence[str], prompts: Sequence[str]) -> list[Span] | None:
    """Return the stretch of each turn, rendered alone as `turns`, in a conversation that may change what is around.

    An earlier turn may have lost its thoughts; `contents` are the texts of the turns.
    """
    cursor = 0
    spans = []
    for index, (turn, content, prompt) in enumerate(zip(turns, contents, prompts, strict=True)):
        last = index == len(turns) - 1
        before, _, after = turn.partition(content) if content else (turn, "", "")
        written = [before + form + after for form in forms(content, whole=last)] if content and content in turn else []
        found = next((at for form in [turn, *written] if (at := _find_after(text, form, cursor, prompt))), None)
        if found is None:
            return None
        spans.append(Span(*found, found[1]))
        cursor = found[1]
    return spans


def _find_after(text: str, turn: str, cursor: int, prompt: str) -> tuple[int, int] | None:
    """Return where `turn` stands behind the end of a generation prompt, at or after `cursor`."""
    at = text.find(turn, cursor)
    while at >= 0:
        if any(text.endswith(prompt[-size:], 0, at) for size in _TAILS if len(prompt) >= size):
            return at, at + len(turn)
        at = text.find(turn, at + 1)
    return None


def forms(content: str, *, whole: bool) -> list[str]:
    """Return the forms in which a template may render an answer, the fullest first."""
    found = [content, content.strip(), content.lstrip(), content.rstrip(), content.lstrip("\n"), content.rstrip("\n")]
    if not whole and "</think>" in content:
        rest = content.split("</think>")[-1]
        found += [rest, rest.lstrip("\n"), rest.strip()]
    return [form for form in dict.fromkeys(found) if form]


def end_after(tail: str, controls: re.Pattern[str] | None) -> End:
    """Return how the last answer of a conversation ends, given what a template writes after it."""
    match = controls.search(tail) if controls else None
    if match is None or tail[: match.start()].strip():
        return End(None)
    return End(match[0], tail[: match.start()])


def _stop(text: str, at: int, end: End) -> int | None:
    if end.token is None:
        return at
    ending = end.gap + end.token
    return at + len(ending) if text.startswith(ending, at) else None


def _prompt_end(text: str, cursor: int, at: int, prompt: str) -> int:
    """Return where the generation prompt ends before the answer at `at`; `at` itself when it is not recognised."""
    for tail in (prompt[-size:] for size in _TAILS if len(prompt) >= size):
        found = text.rfind(tail, max(cursor - len(tail), 0), at)
        if found >= 0 and at - (found + len(tail)) <= _WINDOW:
            return found + len(tail)
    return at
