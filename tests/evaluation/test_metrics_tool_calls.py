"""Calls are found in every JSON notation, compared as values, and nothing else is judged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.evaluation.metrics.base import METRICS, MetricContext
from luthier.evaluation.metrics.conformance import check_metric
from luthier.evaluation.metrics.tool_calls import calls_in
from luthier.rows.types import Message, ToolCall

WANTED = '{"name":"weather","arguments":{"city":"Paris","days":2}}'
RIGHT = [
    WANTED,
    '{"arguments": {"days": 2, "city": "Paris"}, "name": "weather"}',
    '{"name": "weather", "parameters": {"days": 2.0, "city": "Paris"}}',
    '<tool_call>\n{"name": "weather", "arguments": {"days": 2, "city": "Paris"}}\n</tool_call>',
    '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris", "days": 2}, "id": "call00001"}]',
    'Let me look {it} up.\n{"name": "weather", "arguments": "{\\"city\\": \\"Paris\\", \\"days\\": 2}"}',
    '{"id": "1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris", "days": 2}}}',
]
WRONG = [
    "",
    "It rains in Paris.",
    WANTED.replace("Paris", "Rome"),
    WANTED.replace("weather", "news"),
    WANTED.replace("2", '"2"'),
    WANTED + WANTED,
    WANTED[:-1],
    '{"name":"weather","arguments":{"city":"Paris","days":2,"days":3}}',
    'weather(city="Paris", days=2)',
]


def score(output: str, reference: str = WANTED) -> tuple[float, dict[str, float]]:
    scored = METRICS.get("tool_calls").score(output, reference, MetricContext())
    return scored.value, dict(scored.parts)


@pytest.mark.parametrize("output", RIGHT)
def test_right_calls_in_any_notation(output: str) -> None:
    assert score(output) == (1.0, {"names": 1.0, "argument_f1": 1.0})


@pytest.mark.parametrize("output", WRONG)
def test_wrong_calls(output: str) -> None:
    assert score(output)[0] == 0.0


def test_parts_say_how_far_off_it_is() -> None:
    assert score(WANTED.replace("Paris", "Rome"))[1] == {"names": 1.0, "argument_f1": pytest.approx(2 / 3)}
    assert score("It rains.")[1] == {"names": 0.0, "argument_f1": 0.0}


def test_where_nothing_is_to_be_called_nothing_is_right() -> None:
    assert score("It rains.", "It is dry.")[0] == 1.0
    assert score(WANTED, "It is dry.")[0] == 0.0


def test_calls_come_in_any_order() -> None:
    other = '{"name":"news","arguments":{}}'
    assert score(f"{other}\n{WANTED}", f"{WANTED}\n{other}")[0] == 1.0


def test_the_contract() -> None:
    check_metric(METRICS.get("tool_calls"))


@given(st.lists(st.tuples(st.text(min_size=1), st.dictionaries(st.text(), st.integers() | st.text())), max_size=3))
def test_what_an_assistant_calls_is_found_in_its_reference(calls: list[tuple[str, dict[str, object]]]) -> None:
    from luthier.ground.strict_json import dump_json

    written = Message("assistant", "So", tool_calls=tuple(ToolCall(n, dump_json(a)) for n, a in calls)).written
    assert calls_in(written) == calls
