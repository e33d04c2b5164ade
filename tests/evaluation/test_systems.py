"""Systems compose prompts as training does, answer every item, and let single failures be single."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from evaluation_fakes import FakeGenerator, FakeRenderer, fake_endpoint, make_items, make_passage, make_row

from luthier.evaluation.systems import SYSTEMS, EndpointSystem, Item, LocalSystem, SystemContext
from luthier.generation.settings import Settings
from luthier.ground.errors import BadInput
from luthier.rows.compose import Prompt
from luthier.rows.types import Row

EXAMPLE = make_row("e", "example question", "example answer")


def context(**more: object) -> SystemContext:
    facts: dict[str, object] = {
        "generator": FakeGenerator(lambda prompt: "yes"),
        "ask": FakeRenderer().ask,
        "settings": Settings(),
        "own_prompt": Prompt("own"),
        "best_prompt": Prompt("best", (EXAMPLE,)),
        "passages_prompt": Prompt("best with passages", (EXAMPLE,)),
        "train_prompt": Prompt("trained"),
    }
    return SystemContext(**{**facts, **more})  # type: ignore[arg-type]


def test_the_answer_is_never_in_the_prompt() -> None:
    generator = FakeGenerator(lambda prompt: "yes")
    items = [Item.of(make_row("1", "is it?", "the secret answer"))]
    LocalSystem("prompt", generator, FakeRenderer().ask, Prompt("Answer.", (EXAMPLE,)), None, Settings()).answer(items)
    assert generator.prompts == ["system: Answer.\nuser: example question\nassistant: example answer\nuser: is it?"]


def test_passages_are_put_before_the_input_and_kept_with_the_answer() -> None:
    generator = FakeGenerator(lambda prompt: "yes")
    items = make_items(2)
    system = LocalSystem(
        "rag",
        generator,
        FakeRenderer().ask,
        Prompt(),
        lambda some: [[make_passage(f"for {i.id}")] for i in some],
        Settings(),
    )
    answers = system.answer(items)
    assert [a.passages[0].text for a in answers] == ["for 0", "for 1"]
    assert all(
        "for 1" in prompt and prompt.index("for 1") < prompt.index("question 1") for prompt in generator.prompts[1:]
    )


def test_one_item_that_cannot_be_rendered_fails_alone() -> None:
    items = [
        Item.of(make_row("1", "fine", "a")),
        Item.of(make_row("2", "refuse me", "b")),
        Item.of(make_row("3", "ok", "c")),
    ]
    system = LocalSystem("base", FakeGenerator(str.upper), FakeRenderer().ask, Prompt(), None, Settings())
    answers = system.answer(items)
    assert [a.text for a in answers] == ["USER: FINE", None, "USER: OK"]
    assert answers[1].cause == "the template refuses this" and answers[1].finish == "failed"


def test_rows_of_raw_text_are_asked_as_a_users_turn() -> None:
    generator = FakeGenerator(str)
    LocalSystem("base", generator, FakeRenderer().ask, Prompt("x"), None, Settings()).answer(
        [Item.of(Row("t", "t:1", text="once upon"))]
    )
    assert generator.prompts == ["user: once upon"]


def test_the_adapter_is_on_exactly_while_its_system_answers() -> None:
    state: list[str] = []

    @contextmanager
    def adapter(name: str) -> Iterator[None]:
        state.append(name)
        yield
        state.pop()

    seen: list[list[str]] = []
    generator = FakeGenerator(lambda prompt: (seen.append(list(state)), "yes")[1])
    setting = context(
        generator=generator,
        adapter=adapter,
        passages=lambda items: [[] for _ in items],
        train_passages=lambda i: [[] for _ in i],
    )
    for name in ("base", "finetuned", "rag", "finetuned+rag"):
        SYSTEMS.get(name)(setting).answer(make_items(1))
    assert seen == [[], ["finetuned"], [], ["finetuned+rag"]] and state == []


@pytest.mark.parametrize(
    ("name", "instruction", "examples"),
    [("base", "own", 0), ("prompt", "best", 1), ("rag", "best with passages", 1), ("finetuned", "trained", 0)],
)
def test_named_systems_use_their_prompt(name: str, instruction: str, examples: int) -> None:
    from contextlib import nullcontext

    setting = context(passages=lambda items: [[] for _ in items], adapter=lambda name: nullcontext())
    system = SYSTEMS.get(name)(setting)
    assert isinstance(system, LocalSystem) and system.name == name
    assert (system.prompt.instruction, len(system.prompt.examples)) == (instruction, examples)
    assert (system.passages is not None) == (name == "rag")
    assert system.cost([]) is None


@pytest.mark.parametrize("name", ["rag", "finetuned", "finetuned+rag", "endpoint"])
def test_a_system_that_lacks_something_says_what(name: str) -> None:
    with pytest.raises(BadInput, match=f"the system {name.replace('+', '.')} needs"):
        SYSTEMS.get(name)(context())


def test_an_unknown_system_is_told_with_the_nearest() -> None:
    with pytest.raises(BadInput, match='did you mean "finetuned"'):
        SYSTEMS.get("finetund")


def test_the_endpoint_gets_messages_and_counts_money() -> None:
    endpoint = fake_endpoint(lambda question: None if question == "question 1" else "yes")
    system = EndpointSystem("endpoint", endpoint, Prompt("Do.", (EXAMPLE,)), None, Settings())
    answers = system.answer(make_items(3))
    assert [a.text for a in answers] == ["yes", None, "yes"]
    assert [m.role for m in endpoint.asked[0]] == ["system", "user", "assistant", "user"]
    assert system.cost(answers) == pytest.approx((300 + 5 * 30) / 1e6)
    assert system.title == "remote endpoint (m)"
