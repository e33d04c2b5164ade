"""Find the trained stretches of one conversation in what a chat template renders of it.

Renders what is needed (the whole, the prompt of each answer, and where an answer calls tools, the conversation up to
it) and asks `luthier.rows.spans` for the places. A conversation whose earlier turns change later is looked through in
another way; when that fails too, the row is refused. Tokens are the affair of `luthier.rows.template`.

    text, literals, spans = Answers(place, messages, tools, render, end, controls).find([1, 3])
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from luthier.ground.errors import BadInput
from luthier.rows.protect import Literals, Protected, protect, unprotect
from luthier.rows.spans import End, Span, find_answer, find_between, find_turns, turn_between
from luthier.rows.types import Message

Asked = tuple[Sequence[Message], bool]  # messages, and whether an answer to them is asked for
Render = Callable[[Sequence[Asked], str | None, str | None], list[str]]  # (conversations, tools, place) → texts
SENTINEL = "quinceanswer"  # a word that no template treats specially


class RowRefused(BadInput):
    """One row cannot be rendered or masked; `kind` counts it: template_refused, mask_mismatch, empty_row."""

    def __init__(self, kind: str, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, where=where, fix=fix)
        self.kind = kind


@dataclass(frozen=True)
class Answers:
    """One conversation, as its template gets it.

    Attributes:
        render: renders conversations.
        end: how the template ends an answer.
        controls: finds special tokens.
    """

    place: str
    messages: Sequence[Message]
    tools: str | None
    render: Render
    end: End
    controls: re.Pattern[str] | None

    def find(self, chosen: Sequence[int]) -> tuple[str, Literals, list[Span]]:
        """Return the rendered text, where special tokens in it are text, and the stretches of the messages `chosen`.

        Raises:
            RowRefused: the template refuses the conversation, or an answer is not found in it.
        """
        guarded = protect(self.messages, self.controls, self.tools)
        calling = [i for i in chosen if self.messages[i].tool_calls]
        asked: list[Asked] = [(guarded.messages, False), *((guarded.messages[:i], True) for i in chosen)]
        asked += [(guarded.messages[: i + 1], False) for i in calling]
        (text, literals), *others = [unprotect(text, guarded) for text in self._texts(asked, guarded)]
        prompts = dict(zip(chosen, (prompt for prompt, _ in others), strict=False))
        wholes = dict(zip(calling, others[len(chosen) :], strict=True))
        spans: list[Span] = []
        for index in chosen:
            found = self._in_order(index, text, prompts[index], wholes.get(index))
            if found is None or (spans and found.start < spans[-1].end):
                has_calls = any(message.tool_calls for message in self.messages)
                found_all = self._by_turns(guarded, text) if has_calls else self._by_sentinels(text)
                return text, literals, [found_all[i] for i in chosen]
            spans.append(found)
        return text, literals, spans

    def _in_order(self, index: int, text: str, prompt: str, whole: tuple[str, Literals] | None) -> Span | None:
        """Return the stretch of an answer where the text begins with its prompt."""
        if not text.startswith(prompt):
            return None
        last = index == len(self.messages) - 1
        if whole is None:
            return find_answer(text, len(prompt), 0, self.messages[index].content, self.end, whole=last)
        turn = turn_between(prompt, whole[0], self.end, self.controls, whole[1])
        if turn is None or not text.startswith(turn, len(prompt)) or not self._shows_calls(index, turn):
            return None
        return Span(len(prompt), len(prompt) + len(turn), len(prompt) + len(turn))

    def _by_turns(self, guarded: Protected, text: str) -> dict[int, Span]:
        """Find every answer by what the template writes for it when it is the last."""
        answers = self._answers()
        asked = [(guarded.messages[:i], True) for i in answers] + [(guarded.messages[: i + 1], False) for i in answers]
        texts = [unprotect(text, guarded) for text in self._texts(asked, guarded)]
        prompts, wholes = [prompt for prompt, _ in texts[: len(answers)]], texts[len(answers) :]
        turns = [turn_between(p, w, self.end, self.controls, at) for p, (w, at) in zip(prompts, wholes, strict=True)]
        shown = [turn for i, turn in zip(answers, turns, strict=True) if turn and self._shows_calls(i, turn)]
        contents = [self.messages[i].content for i in answers]
        spans = find_turns(text, shown, contents, prompts) if len(shown) == len(turns) else None
        if spans is None:
            raise self._mismatch()
        return dict(zip(answers, spans, strict=True))

    def _by_sentinels(self, text: str) -> dict[int, Span]:
        """Find every answer between the pieces that stand around sentinels in its place."""
        answers = self._answers()
        marks = {i: f"{SENTINEL}{number}x" for number, i in enumerate(answers)}
        marked = [dataclasses.replace(m, content=marks.get(i, m.content)) for i, m in enumerate(self.messages)]
        asked: list[Asked] = [(marked, False), *((self.messages[:i], True) for i in answers)]
        literal, *prompts = self.render(asked, self.tools, self.place)
        pieces = _split_at(literal, list(marks.values()))
        contents = [self.messages[i].content for i in answers]
        spans = find_between(text, pieces, contents, prompts, self.end) if pieces else None
        if spans is None:
            raise self._mismatch()
        return dict(zip(answers, spans, strict=True))

    def _answers(self) -> list[int]:
        return [i for i, message in enumerate(self.messages) if message.role == "assistant"]

    def _texts(self, asked: Sequence[Asked], guarded: Protected) -> list[str]:
        return self.render(asked, guarded.tools, self.place)

    def _shows_calls(self, index: int, turn: str) -> bool:
        return all(call.name in turn for call in self.messages[index].tool_calls)

    def _mismatch(self) -> RowRefused:
        return mismatch(self.place, "an answer cannot be found again in what the chat template renders")


def mismatch(place: str, what: str) -> RowRefused:
    """Return the refusal of a row whose mask does not fit what is rendered."""
    return RowRefused("mask_mismatch", what, where=place, fix="look at the row with this model's template")


def _split_at(text: str, marks: Sequence[str]) -> list[str]:
    """Split at each mark in order; an empty list when one does not occur exactly once."""
    pieces = []
    for mark in marks:
        if text.count(mark) != 1:
            return []
        before, text = text.split(mark)
        pieces.append(before)
    return [*pieces, text]
