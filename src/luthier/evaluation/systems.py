"""Systems answer items. A base model, a prompt, retrieval, an adapter and a remote endpoint are all systems.

Each composes its prompt with the function that training uses, so that the model meets what it was trained on. A
system scores nothing and chooses nothing.

    system = LocalSystem("prompt", generator, objective.ask, Prompt("Answer in one word."), None, Settings())
    answers = system.answer([Item.of(row) for row in rows])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, TypeVar

from luthier.generation.endpoint import Endpoint
from luthier.generation.engine import Finish, Generation, Generator, failed_generation
from luthier.generation.settings import Settings
from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.ground.registry import Registry
from luthier.ground.results import Passage
from luthier.ground.spec import EndpointSpec
from luthier.rows.compose import Prompt, compose
from luthier.rows.types import Message, Row

T = TypeVar("T")

TITLES = {
    "base": "base model",
    "prompt": "best prompt",
    "rag": "best prompt + passages",
    "finetuned": "finetuned",
    "finetuned+rag": "finetuned + passages",
    "endpoint": "remote endpoint",
    "majority": "majority of the training rows",
}


@dataclass(frozen=True)
class Item:
    """One question of a test or dev set, with its right answer. Items of one group are a cluster."""

    id: str
    row: Row
    reference: str
    group: str | None = None

    @classmethod
    def of(cls, row: Row) -> Item:
        return cls(id=row.id, row=row, reference=row.reference, group=row.group)


@dataclass(frozen=True)
class Answer:
    """What a system said to one item; `text` is None when it failed, and `cause` says why.

    `probabilities` are those of the labels, where the system knows them.
    """

    text: str | None
    seconds: float
    prompt_tokens: int
    output_tokens: int
    finish: Finish = "end"
    cause: str | None = None
    passages: tuple[Passage, ...] = ()
    probabilities: Mapping[str, float] | None = None


Passages = Callable[[Sequence[Item]], list[list[Passage]]]
"""Finds the passages for each item, best first."""

Ask = Callable[[Row], list[int]]
"""Makes the tokens of a prompt from a composed row without its answer."""


class System(Protocol):
    """Anything that answers items: as many answers as items, in their order, failures included."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    def answer(self, items: Sequence[Item], tell: Tell = silent) -> list[Answer]: ...

    def cost(self, answers: Sequence[Answer]) -> float | None: ...


TrainedSystem = Callable[[str, Passages | None], System]
"""Makes a system of a trained model that names labels instead of writing."""


class LocalSystem:
    """A local model with a prompt and, perhaps, passages and an adapter.

    Args:
        ask: makes the prompt's tokens of a row that was composed without its answer.
        passages: finds passages for the items; None: closed book.
        prepare: makes the context in which the model answers, such as one that has switched an adapter on.
    """

    def __init__(
        self,
        name: str,
        generator: Generator,
        ask: Ask,
        prompt: Prompt,
        passages: Passages | None,
        settings: Settings,
        *,
        prepare: Callable[[], AbstractContextManager[object]] = nullcontext,
        title: str | None = None,
    ) -> None:
        self.name = name
        self.title = title or TITLES.get(name, name)
        self.generator = generator
        self.ask = ask
        self.prompt = prompt
        self.passages = passages
        self.settings = settings
        self.prepare = prepare

    def answer(self, items: Sequence[Item], tell: Tell = silent) -> list[Answer]:
        """Answer all items; one whose prompt cannot be made fails alone."""
        found = self.passages(items) if self.passages else [[] for _ in items]
        prompts = [self._encode(item, passages) for item, passages in zip(items, found, strict=True)]
        with self.prepare():
            written = self.generator.generate([p if isinstance(p, list) else [] for p in prompts], self.settings, tell)
        answers = []
        for prompt, generation, passages in zip(prompts, written, found, strict=True):
            said = generation if isinstance(prompt, list) else failed_generation(prompt)
            answers.append(_answer(said, passages))
        return answers

    def cost(self, answers: Sequence[Answer]) -> float | None:  # noqa: ARG002  # the machine's own time has no price here
        return None

    def _encode(self, item: Item, passages: Sequence[Passage]) -> list[int] | str:
        """Return the prompt's tokens, or why there are none."""
        try:
            return self.ask(_composed(item, self.prompt, passages))
        except BadInput as error:
            return error.what


class EndpointSystem:
    """A model behind an OpenAI-compatible endpoint, with a prompt and, perhaps, passages."""

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        prompt: Prompt,
        passages: Passages | None,
        settings: Settings,
        *,
        title: str | None = None,
    ) -> None:
        self.name = name
        self.title = title or f"{TITLES.get(name, name)} ({endpoint.spec.model})"
        self.endpoint = endpoint
        self.prompt = prompt
        self.passages = passages
        self.settings = settings

    def answer(self, items: Sequence[Item], tell: Tell = silent) -> list[Answer]:
        """Answer all items; raises `BadInput` only when the endpoint answers none of them."""
        found = self.passages(items) if self.passages else [[] for _ in items]
        conversations = [_question(item, self.prompt, passages) for item, passages in zip(items, found, strict=True)]
        said = self.endpoint.chat(conversations, self.settings, tell, tools=[item.row.tools for item in items])
        return [_answer(generation, passages) for generation, passages in zip(said, found, strict=True)]

    def cost(self, answers: Sequence[Answer]) -> float | None:
        prompt = sum(answer.prompt_tokens for answer in answers)
        output = sum(answer.output_tokens for answer in answers)
        return self.endpoint.price(prompt, output)


@dataclass(frozen=True)
class SystemContext:
    """What the named systems are made of.

    Attributes:
        generator, ask: what writes with the base model, and how it is asked; None for a model that cannot write.
        trained_ask: how the trained model is asked.
        trained_generator: what writes with the trained model, whose tokens may be more.
        passages_prompt: the best prompt as it is asked with passages: its worked examples show theirs too.
        adapter: makes the context in which a trained adapter answers, by the system's name.
        trained: makes a trained system that does not write, of its name and its passages.
        majority: what gives the same answer to all items.
    """

    generator: Generator | None
    ask: Ask | None
    settings: Settings
    own_prompt: Prompt
    best_prompt: Prompt
    passages_prompt: Prompt
    train_prompt: Prompt
    passages: Passages | None = None
    train_passages: Passages | None = None
    adapter: Callable[[str], AbstractContextManager[object]] | None = None
    endpoint: EndpointSpec | None = None
    trained_ask: Ask | None = None
    trained_generator: Generator | None = None
    trained: TrainedSystem | None = None
    majority: System | None = None


SystemFactory = Callable[[SystemContext], System]
SYSTEMS: Registry[SystemFactory] = Registry("luthier.systems", "system", modules=(__name__,))


@SYSTEMS.register("base")
def base(context: SystemContext) -> System:
    """The model as it came, with the task's own instruction."""
    return _local("base", context, context.own_prompt, None)


@SYSTEMS.register("prompt")
def prompt(context: SystemContext) -> System:
    """The model as it came, with the prompt that was best on dev."""
    return _local("prompt", context, context.best_prompt, None)


@SYSTEMS.register("rag")
def rag(context: SystemContext) -> System:
    """The best prompt, with retrieved passages for the item and for each worked example."""
    return _local("rag", context, context.passages_prompt, _needed(context.passages, "rag", "documents"))


@SYSTEMS.register("finetuned")
def finetuned(context: SystemContext) -> System:
    """The adapter that was trained without passages, asked as it was trained."""
    return _adapted("finetuned", context, None)


@SYSTEMS.register("finetuned+rag")
def finetuned_rag(context: SystemContext) -> System:
    """The adapter that was trained with passages in its prompts, asked with passages."""
    return _adapted("finetuned+rag", context, _needed(context.train_passages, "finetuned+rag", "documents"))


@SYSTEMS.register("majority")
def majority(context: SystemContext) -> System:
    """The commonest label of the training rows, whatever the text."""
    return _needed(context.majority, "majority", "labels")


@SYSTEMS.register("endpoint")
def endpoint(context: SystemContext) -> System:
    """A remote model with the prompt that was best on dev and, if the task has documents, passages."""
    spec = _needed(context.endpoint, "endpoint", "an endpoint")
    prompt = context.passages_prompt if context.passages else context.best_prompt
    return EndpointSystem("endpoint", Endpoint(spec), prompt, context.passages, context.settings)


def _local(name: str, context: SystemContext, prompt: Prompt, passages: Passages | None) -> LocalSystem:
    generator = _needed(context.generator, name, "a model that writes")
    ask = _needed(context.ask, name, "a model that writes")
    return LocalSystem(name, generator, ask, prompt, passages, context.settings)


def _adapted(name: str, context: SystemContext, passages: Passages | None) -> System:
    if context.trained is not None:
        return context.trained(name, passages)
    adapter = _needed(context.adapter, name, "a trained adapter")
    system = _local(name, context, context.train_prompt, passages)
    system.prepare = lambda: adapter(name)
    system.ask = context.trained_ask or system.ask
    system.generator = context.trained_generator or system.generator
    return system


def _needed(value: T | None, system: str, what: str) -> T:
    if value is None:
        raise BadInput(f"the system {system} needs {what}, and the task has none", where="compare.systems")
    return value


def _composed(item: Item, prompt: Prompt, passages: Sequence[Passage]) -> Row:
    return compose(item.row, prompt, [passage.text for passage in passages], with_answer=False)


def _question(item: Item, prompt: Prompt, passages: Sequence[Passage]) -> tuple[Message, ...]:
    row = _composed(item, prompt, passages)
    return row.messages or (Message("user", row.input),)


def _answer(generation: Generation, passages: Sequence[Passage]) -> Answer:
    return Answer(
        text=generation.text,
        seconds=generation.seconds,
        prompt_tokens=generation.prompt_tokens,
        output_tokens=generation.output_tokens,
        finish=generation.finish,
        cause=generation.cause,
        passages=tuple(passages),
    )
