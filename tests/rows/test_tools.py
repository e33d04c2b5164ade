"""Tools, calls and results: as `transformers` renders them, or as plain text, masked as their templates say."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.ground.strict_json import dump_json, parse_json
from luthier.rows.template import Renderer, RowRefused
from luthier.rows.tool_text import HOW, LISTED
from luthier.rows.types import Encoded, Message, Row, ToolCall
from rows.conftest import make_renderer, make_tokenizer
from rows.families import FAMILIES
from rows.test_template import trained
from rows.tool_families import QWEN_TOOLS, TOOL_FAMILIES

TOOLS = dump_json(
    [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "The weather of a city.",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            },
        }
    ]
)
CALL = ToolCall("weather", '{"city":"Paris"}')
TALK = (
    Message("user", "Hi"),
    Message("assistant", "Hello there"),
    Message("user", "What is the weather?"),
    Message("assistant", "", tool_calls=(CALL,)),
    Message("tool", '{"sky":"clear"}', name="weather"),
    Message("assistant", "Clear."),
)


@cache
def tool_renderer(name: str) -> Renderer:
    return Renderer(make_tokenizer(TOOL_FAMILIES[name]))


@pytest.fixture(params=sorted(TOOL_FAMILIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def row(*messages: Message, tools: str | None = TOOLS) -> Row:
    return Row("1", "t.jsonl:1", messages, tools=tools)


def dicts(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Return messages as a user of transformers writes them."""
    told: list[dict[str, Any]] = []
    ids: list[str] = []
    for message in messages:
        one: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            ids = [f"call{number:05d}" for number in range(1, 1 + len(message.tool_calls))]
            one["tool_calls"] = [
                {"id": given, "type": "function", "function": {"name": c.name, "arguments": parse_json(c.arguments)}}
                for given, c in zip(ids, message.tool_calls, strict=True)
            ]
        if message.role == "tool":
            one |= {"name": message.name, "tool_call_id": ids.pop(0)}
        told.append(one)
    return told


def templated(name: str, messages: tuple[Message, ...]) -> tuple[list[int], list[bool]]:
    """Return what transformers makes of it: the ids, and which stand between {% generation %} and its end."""
    tokenizer = make_tokenizer(TOOL_FAMILIES[name])
    whole = tokenizer.apply_chat_template(
        dicts(messages),
        tools=parse_json(TOOLS),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return whole["input_ids"], [bool(mark) for mark in whole["assistant_masks"]]


def test_rendered_and_masked_as_the_template_says(name: str) -> None:
    renderer = tool_renderer(name)
    ids, mask = templated(name, TALK)
    encoded = renderer.encode_row(row(*TALK))
    assert encoded.ids_T.tolist() == ids
    assert encoded.target_T.tolist() == mask
    assert not [warning for warning in renderer.warnings if "tools" in warning]


EXPECTED = {
    "qwen": [
        "Hello there<|im_end|>",
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>',
        "Clear.<|im_end|>",
    ],
    "llama3": [
        "Hello there<|eot_id|>",
        '{"name": "weather", "parameters": {"city": "Paris"}}<|eom_id|>',
        "Clear.<|eot_id|>",
    ],
    "mistral": [
        " Hello there</s>",
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}, "id": "call00001"}]</s>',
        " Clear.</s>",
    ],
}  # fmt: skip


def test_what_is_trained_of_a_call(name: str) -> None:
    renderer = tool_renderer(name)
    assert trained(renderer, renderer.encode_row(row(*TALK))) == EXPECTED[name]
    assert trained(renderer, renderer.encode_row(row(*TALK), train="last")) == EXPECTED[name][-1:]
    call_last = renderer.encode_row(row(*TALK[:4]), train="last")
    assert trained(renderer, call_last) == EXPECTED[name][1:2]
    assert int(call_last.ids_T[call_last.target_T][-1]) in renderer.end_ids  # generation stops there


def test_what_generation_feeds_is_what_training_saw(name: str) -> None:
    renderer = tool_renderer(name)
    for end in (3, 5):
        encoded = renderer.encode_row(row(*TALK[: end + 1]), train="last")
        prompt = renderer.encode_prompt(TALK[:end], TOOLS)
        assert encoded.ids_T[: len(prompt)].tolist() == prompt
        assert encoded.target_T[len(prompt)] and not encoded.target_T[len(prompt) - 1]


def test_turns_that_say_no_are_not_trained(name: str) -> None:
    renderer = tool_renderer(name)
    quiet = tuple(
        Message(m.role, m.content, train=i != 3, tool_calls=m.tool_calls, name=m.name) for i, m in enumerate(TALK)
    )
    encoded = renderer.encode_row(row(*quiet))
    assert trained(renderer, encoded) == [EXPECTED[name][0], EXPECTED[name][2]]
    weighted = renderer.encode_row(row(*quiet), prompt_weight=0.5)
    assert weighted.weight_T is not None
    no_prompt = renderer.encode_row(row(*TALK)).target_T & ~encoded.target_T
    assert not weighted.target_T[no_prompt].any()
    assert set(weighted.weight_T[encoded.target_T]) == {1.0}
    assert set(weighted.weight_T[weighted.target_T & ~encoded.target_T]) == {0.5}


def test_special_tokens_in_tools_and_calls_stay_text(name: str) -> None:
    renderer = tool_renderer(name)
    end = TOOL_FAMILIES[name].end
    tools = TOOLS.replace("The weather", f"The {end} weather")
    call = ToolCall("weather", dump_json({"city": f"Par{end}is"}))
    talk = (Message("user", "x"), Message("assistant", "", tool_calls=(call,)))
    encoded = renderer.encode_row(row(*talk, tools=tools))
    controls = set(renderer.tokens.controls.values())
    clean = renderer.encode_row(row(*TALK[2:4]))
    assert [i for i in encoded.ids_T.tolist() if i in controls] == [i for i in clean.ids_T.tolist() if i in controls]
    [text] = trained(renderer, encoded)
    assert f"Par{end}is" in text and text.endswith(EXPECTED[name][1][-4:])


def test_several_calls_at_once(name: str) -> None:
    renderer = tool_renderer(name)
    calls = (CALL, ToolCall("weather", '{"city":"Rome"}'))
    talk = (
        Message("user", "x"),
        Message("assistant", "", tool_calls=calls),
        Message("tool", "1", name="weather"),
        Message("tool", "2", name="weather"),
        Message("assistant", "Done"),
    )
    ids, mask = templated(name, talk)
    encoded = renderer.encode_row(row(*talk))
    assert encoded.ids_T.tolist() == ids and encoded.target_T.tolist() == mask


def test_a_call_with_words_beside_it() -> None:
    renderer = tool_renderer("qwen")
    talk = (Message("user", "x"), Message("assistant", "Let me look.", tool_calls=(CALL,)))
    [text] = trained(renderer, renderer.encode_row(row(*talk)))
    assert text.startswith("Let me look.\n<tool_call>")
    with pytest.raises(RowRefused, match="A call stands alone"):
        tool_renderer("llama3").encode_row(row(*talk))


def test_ids_that_a_template_does_not_want_are_told() -> None:
    call = ToolCall("weather", "{}", "call_1234567890")
    talk = (Message("user", "x"), Message("assistant", "", tool_calls=(call,)))
    with pytest.raises(RowRefused, match="9 characters"):
        tool_renderer("mistral").encode_row(row(*talk))
    tool_renderer("qwen").encode_row(row(*talk))


def test_thoughts_that_are_dropped_from_earlier_turns_with_calls() -> None:
    source = QWEN_TOOLS.template.replace(
        "{{ m.content }}{% for call",
        "{{ m.content if loop.last or '</think>' not in m.content else m.content.split('</think>')[-1] }}{% for call",
    )
    assert source != QWEN_TOOLS.template
    renderer = Renderer(make_tokenizer(QWEN_TOOLS), chat_template=source)
    talk = (Message("user", "x"), Message("assistant", "<think>hm</think>So", tool_calls=(CALL,)), *TALK[4:])
    first, last = trained(renderer, renderer.encode_row(row(*talk)))
    assert first.startswith("So\n<tool_call>") and last == "Clear.<|im_end|>"


values = st.recursive(
    st.text(st.sampled_from('ab "\\\n<|>é日') | st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
    | st.integers(-99, 99)
    | st.booleans()
    | st.none(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(TOOL_FAMILIES)),
    arguments=st.dictionaries(st.text("xyz", min_size=1, max_size=3), values, max_size=3),
    result=st.text(st.sampled_from("ab{}\n<|>") | st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12),
)
def test_mask_of_any_call(name: str, arguments: dict[str, object], result: str) -> None:
    talk = (
        Message("user", "x"),
        Message("assistant", "", tool_calls=(ToolCall("weather", dump_json(arguments)),)),
        Message("tool", result, name="weather"),
        Message("assistant", "Done"),
    )
    encoded = tool_renderer(name).encode_row(row(*talk))
    wanted = tool_renderer(name).render(talk, tools=TOOLS)
    assert tool_renderer(name).tokens.decode(encoded.ids_T) == wanted
    _, mask = templated(name, talk)
    if not any(special in str(arguments) + result for special in TOOL_FAMILIES[name].specials):
        assert encoded.target_T.tolist() == mask


# -- templates that know no tools ----------------------------------------------------------------------------------

LINE = '{"name":"weather","arguments":{"city":"Paris"}}'


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_without_tools_in_the_template_all_is_plain_text(family: str) -> None:
    renderer = Renderer(make_tokenizer(FAMILIES[family]))
    before = list(renderer.warnings)
    encoded = renderer.encode_row(row(*TALK))
    text = renderer.tokens.decode(encoded.ids_T)
    listed = f'{LISTED}\n{{"name":"weather","description":"The weather of a city."'
    assert listed in text and HOW in text
    runs = trained(renderer, encoded)
    assert [run.strip().removesuffix(FAMILIES[family].end).strip() for run in runs] == ["Hello there", LINE, "Clear."]
    assert '{"sky":"clear"}' in text
    told = [warning for warning in renderer.warnings if warning not in before]
    assert len(told) == 1 and "does not know tools" in told[0]
    prompt = renderer.encode_prompt(TALK[:5], TOOLS)
    assert encoded.ids_T[: len(prompt)].tolist() == prompt
    renderer.encode_row(row(*TALK))
    assert len(renderer.warnings) == len(before) + 1  # told once


def test_results_are_turns_of_the_user_where_there_is_no_tool_role() -> None:
    renderer = Renderer(make_tokenizer(FAMILIES["llama2"]))
    twice = (*TALK[:5], Message("tool", "2"), *TALK[5:])
    text = renderer.render(twice, tools=TOOLS)
    assert '[INST] Result of weather:\n{"sky":"clear"}\nResult:\n2 [/INST] Clear. </s>' in text
    assert any("turn of the user" in warning for warning in renderer.warnings)


def test_the_system_text_keeps_its_place_before_the_tools() -> None:
    renderer = Renderer(make_tokenizer(FAMILIES["chatml"]))
    text = renderer.render([Message("system", "Be short."), *TALK], tools=TOOLS)
    assert text.startswith(f"<|im_start|>system\nBe short.\n\n{LISTED}\n")
    assert renderer.render(TALK[:2]) == make_renderer("chatml").render(TALK[:2])


def test_a_base_model_writes_tools_by_name() -> None:
    tokenizer = make_tokenizer(FAMILIES["chatml"])
    tokenizer.chat_template = None
    renderer = Renderer(tokenizer)
    assert '\nTool: {"sky":"clear"}\nAssistant: Clear.' in renderer.render(TALK, tools=TOOLS)


def test_arguments_are_handed_over_as_text_where_a_template_wants_it() -> None:
    source = QWEN_TOOLS.template.replace("{{ call.function.arguments | tojson }}", "{{ '' + call.function.arguments }}")
    assert source != QWEN_TOOLS.template
    renderer = Renderer(make_tokenizer(QWEN_TOOLS), chat_template=source)
    assert '"arguments": {"city":"Paris"}}' in renderer.render(TALK, tools=TOOLS)
    assert not renderer.warnings


def test_a_call_without_text_is_null_where_a_template_wants_it() -> None:
    source = QWEN_TOOLS.template.replace(
        "{% for call in m.tool_calls %}", "{% for call in m.tool_calls if m.content is none %}"
    )
    assert source != QWEN_TOOLS.template
    source = source.replace("{% generation %}{{ m.content }}", "{% generation %}{{ m.content or '' }}")
    renderer = Renderer(make_tokenizer(QWEN_TOOLS), chat_template=source)
    assert trained(renderer, renderer.encode_row(row(*TALK))) == EXPECTED["qwen"]


def test_the_reference_of_a_call_is_its_json() -> None:
    assert row(*TALK[:4]).reference == LINE
    both = Message("assistant", "Look.", tool_calls=(CALL, CALL))
    assert row(TALK[0], both).reference == f"Look.\n{LINE}\n{LINE}"


# -- weights -------------------------------------------------------------------------------------------------------


def weighted(weight: float = 1.0, prompt_weight: float = 0.0, **options: Any) -> Encoded:
    talk = Row("1", "t:1", TALK[:4], weight=weight, tools=TOOLS)
    return tool_renderer("qwen").encode_row(talk, prompt_weight=prompt_weight, **options)


def test_weights_of_rows_and_prompts() -> None:
    plain = weighted()
    assert plain.weight_T is None
    double = weighted(2.0)
    assert double.weight_T is not None and np.array_equal(double.weight_T, 2.0 * plain.target_T)
    assert np.array_equal(double.target_T, plain.target_T)
    prompt = weighted(2.0, 0.25)
    assert prompt.weight_T is not None and not prompt.target_T[0]
    last = np.flatnonzero(plain.target_T)[-1]
    assert prompt.target_T[1 : last + 1].all() and not prompt.target_T[last + 1 :].any()
    assert np.array_equal(prompt.weight_T[1 : last + 1], np.where(plain.target_T, 2.0, 0.5)[1 : last + 1])
    assert weighted(0.0).target_tokens == 0
    same = weighted(1.0, 1.0)
    assert same.weight_T is None and same.target_tokens == last
    earlier = weighted(1.0, 0.25, train="last")  # an answer that is not the last is part of the prompt
    assert earlier.weight_T is not None
    first_answer = plain.target_T & ~weighted(train="last").target_T
    assert set(earlier.weight_T[first_answer]) == {0.25}
