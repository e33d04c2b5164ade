"""One function composes what the model sees, the same for training and for every system."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from luthier.rows.compose import Prompt, compose
from luthier.rows.types import Message, Row, ToolCall


def example(name: str, *, system: str | None = None) -> Row:
    head = (Message("system", system),) if system else ()
    return Row(
        name, f"t:{name}", (*head, Message("user", f"ask {name}"), Message("assistant", f"say {name}")), group="g"
    )


def said(row: Row) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in row.messages or ()]


def test_everything_in_its_order() -> None:
    prompt = Prompt("Do it.", (example("a"), example("b", system="not shown")))
    row = compose(example("x", system="Own."), prompt, ["first\n", "second"], with_answer=True)
    assert said(row) == [
        ("system", "Do it.\n\nOwn."),
        ("user", "ask a"),
        ("assistant", "say a"),
        ("user", "ask b"),
        ("assistant", "say b"),
        ("user", "Context:\nsecond\nfirst\n\nInput: ask x"),
        ("assistant", "say x"),
    ]
    assert (row.id, row.place, row.group) == ("x", "t:x", "g")


def test_without_anything_a_row_is_itself() -> None:
    assert compose(example("x"), Prompt(), with_answer=True) == example("x")
    assert said(compose(example("x"), Prompt(), with_answer=False)) == [("user", "ask x")]


def test_earlier_turns_stay_and_passages_go_to_the_last() -> None:
    talk = (Message("user", "1"), Message("assistant", "2"), Message("user", "3"), Message("assistant", "4"))
    row = compose(Row("x", "t:x", talk), Prompt("I"), ["p"], with_answer=False)
    assert said(row) == [("system", "I"), *said(Row("", "", talk[:2])), ("user", "Context:\np\n\nInput: 3")]


def test_a_row_is_not_its_own_example() -> None:
    row = compose(example("a"), Prompt("", (example("a"), example("b"))), with_answer=True)
    assert [content for _, content in said(row)] == ["ask b", "say b", "ask a", "say a"]


def test_raw_text_is_left_alone() -> None:
    row = Row("x", "t:x", text="raw")
    assert compose(row, Prompt("I", (example("a"),)), ["p"], with_answer=True) is row


@given(instruction=st.text(max_size=10), passages=st.lists(st.text(max_size=10), max_size=3), answer=st.booleans())
def test_composing_is_deterministic_and_hides_the_answer(instruction: str, passages: list[str], answer: bool) -> None:
    prompt = Prompt(instruction, (example("a"),))
    one = compose(example("x"), prompt, passages, with_answer=answer)
    assert one == compose(example("x"), prompt, tuple(passages), with_answer=answer)
    assert one.messages is not None and (one.messages[-1].role == "assistant") is answer
    assert one.input.endswith("ask x")
    assert one.reference == ("say x" if answer else "")


def test_a_gap_is_asked_for_in_words_and_the_row_keeps_it() -> None:
    row = Row("x", "t:x", text="one two three", gap=(4, 7))
    asked = compose(row, Prompt("Fill the gap."), with_answer=False)
    assert said(asked) == [("system", "Fill the gap."), ("user", "one <gap> three")]
    assert said(compose(row, Prompt(), with_answer=True)) == [("user", "one <gap> three"), ("assistant", "two")]
    assert (asked.text, asked.gap, asked.reference) == ("one two three", (4, 7), "two")
    shown = compose(row, Prompt("", (Row("y", "t:y", text="a b", gap=(2, 3)), row)), with_answer=False)
    assert said(shown) == [("user", "a <gap>"), ("assistant", "b"), ("user", "one <gap> three")]


def test_results_of_tools_stay_behind_the_question_and_examples_show_calls_untrained() -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("look", "{}"),))
    talk = (Message("user", "see?"), call, Message("tool", "blue", name="look"), Message("assistant", "Blue."))
    tools = '[{"type":"function","function":{"name":"look"}}]'
    row = Row("x", "t:x", talk, tools=tools)
    asked = compose(row, Prompt("I", (Row("e", "t:e", talk),)), ["p"], with_answer=False)
    assert asked.tools == tools
    assert asked.messages == (
        Message("system", "I"),
        *(dataclasses.replace(turn, train=False) for turn in talk),
        Message("user", "Context:\np\n\nInput: see?"),
        *talk[1:3],
    )
