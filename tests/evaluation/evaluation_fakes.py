"""Items, answers and a generator that need no model."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from luthier.evaluation.metrics.base import METRICS, MetricContext
from luthier.evaluation.scoring import SystemRun, score_answers
from luthier.evaluation.systems import Answer, Item
from luthier.generation.engine import Generation, failed_generation
from luthier.ground.errors import BadInput
from luthier.ground.results import Passage
from luthier.rows.types import Message, Row

EXACT = METRICS.get("exact_match")
JSON = METRICS.get("json_match")


def make_row(name: str, question: str, answer: str, group: str | None = None) -> Row:
    return Row(name, f"rows.jsonl:{name}", (Message("user", question), Message("assistant", answer)), group=group)


def make_items(count: int, groups: Sequence[str | None] | None = None) -> list[Item]:
    return [Item.of(make_row(str(n), f"question {n}", "yes", groups[n] if groups else None)) for n in range(count)]


def make_answer(text: str | None, **more: Any) -> Answer:
    facts: dict[str, Any] = {"seconds": 0.5, "prompt_tokens": 10, "output_tokens": 4, **more}
    return Answer(text=text, cause=facts.pop("cause", None if text is not None else "out of time"), **facts)


def make_passage(text: str, name: str = "p1") -> Passage:
    return Passage(id=name, path="handbook.md", heading="", text=text, score=1.0)


def make_run(
    name: str, right: Sequence[int | None], groups: Sequence[str | None] | None = None, **more: Any
) -> SystemRun:
    """Return the run of a system that answers item `n` rightly (1), wrongly (0) or not at all (None)."""
    items = make_items(len(right), groups)
    answers = [make_answer(None if value is None else "yes" if value else "no") for value in right]
    scores = score_answers(items, answers, EXACT, MetricContext())
    return SystemRun(name, name, tuple(scores), **more)


class FakeRenderer:
    """Writes a prompt as the character codes of its messages; refuses what contains `refuse me`."""

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        text = "\n".join(f"{message.role}: {message.content}" for message in messages)
        if "refuse me" in text:
            raise BadInput("the template refuses this")
        return [ord(character) for character in text]

    def ask(self, row: Row) -> list[int]:
        return self.encode_prompt(row.messages or (Message("user", row.input),))


class FakeGenerator:
    """Answers each prompt text with `reply`, and remembers all prompt texts."""

    def __init__(self, reply: Callable[[str], str | None]) -> None:
        self.reply = reply
        self.prompts: list[str] = []

    def generate(self, prompts: Sequence[Sequence[int]], settings: object, tell: object = None) -> list[Generation]:
        return [self._answer("".join(map(chr, prompt))) for prompt in prompts]

    def _answer(self, prompt: str) -> Generation:
        if not prompt:
            return failed_generation("the prompt is empty")
        self.prompts.append(prompt)
        text = self.reply(prompt)
        if text is None:
            return failed_generation("broken", prompt_tokens=len(prompt))
        return Generation(text, (), len(prompt), len(text), 0.25, "end")


def shuffled(values: Sequence[Any], seed: int) -> list[Any]:
    return random.Random(seed).sample(list(values), len(values))


def fake_endpoint(reply: Callable[[str], str | None]) -> Any:
    """Return what `EndpointSystem` uses of an endpoint, and the conversations it was asked."""
    asked: list[Sequence[Message]] = []

    def chat(
        conversations: Sequence[Sequence[Message]],
        settings: object,
        tell: object = None,
        tools: Sequence[str | None] = (),
    ) -> list[Generation]:
        assert len(tools) == len(conversations)
        asked.extend(conversations)
        return [Generation(reply(c[-1].content), (), 100, 10, 0.1, "end") for c in conversations]

    return SimpleNamespace(
        chat=chat,
        asked=asked,
        price=lambda prompt, output: (prompt + 5 * output) / 1e6,
        spec=SimpleNamespace(model="m"),
    )
