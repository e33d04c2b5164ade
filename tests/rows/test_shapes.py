"""Shapes: every shape in which people keep examples becomes a row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.rows.shapes import row_of
from luthier.rows.types import Message, ToolCall
from tests.rows.test_read import PAIR, read

SHAPES = {
    "messages": {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]},
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]},
            {"role": "assistant", "content": "4"},
        ]
    },
    "sharegpt": {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
    "sharegpt with roles": {
        "conversations": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    },
    "alpaca": {"instruction": "2+2?", "input": "", "output": "4"},
    "prompt/completion": {"prompt": "2+2?", "completion": "4"},
    "prompt/response": {"prompt": "2+2?", "response": "4"},
    "input/output": {"input": "2+2?", "output": 4},
    "question/answer": {"question": "2+2?", "answer": "4", "id": 1},
    "turns in pairs": {
        "prompt": [{"role": "user", "content": "2+2?"}],
        "completion": [{"role": "assistant", "content": "4"}],
    },
    "text/label": {"text": "2+2?", "label": "4"},
}


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_shapes_that_people_have(shape: str, tmp_path: Path) -> None:
    result = read(tmp_path, json.dumps(SHAPES[shape]))
    assert not result.faults
    assert result.rows[0].messages == PAIR


def test_more_of_the_shapes(tmp_path: Path) -> None:
    lines = [
        {"system": "S", "instruction": "do", "input": "this", "output": {"a": [1, "é"]}},
        {
            "conversations": [
                {"from": "system", "value": "S"},
                {"from": "human", "value": "a"},
                {"from": "gpt", "value": "b"},
            ]
        },
        {"text": "raw"},
        {
            "messages": [{"role": "system", "content": ""}, *SHAPES["messages"]["messages"]],
            "text": "the same, rendered",
        },
    ]
    result = read(tmp_path, "\n".join(map(json.dumps, lines)))
    assert [row.messages for row in result.rows] == [
        (Message("system", "S"), Message("user", "do\n\nthis"), Message("assistant", '{"a":[1,"é"]}')),
        (Message("system", "S"), Message("user", "a"), Message("assistant", "b")),
        None,
        (Message("system", ""), *PAIR),
    ]
    assert result.rows[2].text == "raw"
    assert result.shapes == {"alpaca": 1, "sharegpt": 1, "text": 1, "messages": 1}


def test_labels_values_and_lists_of_labels(tmp_path: Path) -> None:
    records = [
        {"text": "a", "label": 3},
        {"text": "a", "label": "x", "score": 0.9},
        {"text": "a", "labels": ["x", "y"]},
        {"text": "a", "labels": [2]},
        {"text": "a", "labels": []},
        {"text": "a", "value": 2.5},
        {"text": "a", "score": "-3"},
    ]
    result = read(tmp_path, "\n".join(map(json.dumps, records)))
    assert [row.reference for row in result.rows] == ["3", "x", '["x","y"]', '["2"]', "[]", "2.5", "-3"]
    assert {row.input for row in result.rows} == {"a"} and result.shapes == {"label": 7}
    table = read(tmp_path, 'text,labels,weight\na,"[""x""]",0.5\n', "a.csv").rows
    assert [(row.reference, row.weight) for row in table] == [('["x"]', 0.5)]


def test_a_corpus_may_score_its_documents() -> None:
    record = {"text": "a document", "score": 2.7, "label": "good"}
    row = row_of(record, "t:1", only_text=True)
    assert (row.text, row.messages) == ("a document", None)


def test_gaps(tmp_path: Path) -> None:
    records = [
        {"prefix": "ab", "middle": "c", "suffix": "de"},
        {"prefix": "", "middle": "abc", "suffix": "de"},
        {"text": "abcde", "gap": [2, 3]},
    ]
    result = read(tmp_path, "\n".join(map(json.dumps, records)))
    assert [(row.text, row.gap) for row in result.rows] == [("abcde", (2, 3)), ("abcde", (0, 3)), ("abcde", (2, 3))]
    assert (result.rows[0].input, result.rows[0].reference) == ("ab<gap>de", "c")
    assert result.shapes == {"gap": 3}


TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}


def test_tools_and_calls_have_one_form_afterwards(tmp_path: Path) -> None:
    arguments = {"a": 1, "b": [2, "é"]}
    calls = [
        [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": json.dumps(arguments)}}],
        [{"id": "c1", "name": "add", "arguments": arguments}],
    ]
    listed = [[TOOL], json.dumps([TOOL["function"]])]
    records = [
        {
            "messages": [
                {"role": "user", "content": "1 + 2?"},
                {"role": "assistant", "content": None, "tool_calls": call},
                {"role": "tool", "name": "add", "content": {"sum": 3}},
                {"role": "assistant", "content": "3"},
            ],
            "tools": tools,
        }
        for call, tools in zip(calls, listed, strict=True)
    ]
    first, second = read(tmp_path, "\n".join(map(json.dumps, records))).rows
    assert first.messages == second.messages and first.tools == second.tools
    assert first.messages is not None and json.loads(first.tools or "") == [TOOL]
    assert first.messages[1] == Message("assistant", "", tool_calls=(ToolCall("add", '{"a":1,"b":[2,"é"]}', "c1"),))
    assert first.messages[2] == Message("tool", '{"sum":3}', name="add")


def test_function_calls_of_sharegpt(tmp_path: Path) -> None:
    record = {
        "conversations": [
            {"from": "human", "value": "1 + 2?"},
            {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
            {"from": "observation", "value": "3"},
            {"from": "gpt", "value": "3"},
        ],
        "tools": "[]",
    }
    [row] = read(tmp_path, json.dumps(record)).rows
    assert row.messages is not None and row.tools is None
    assert row.messages[1].tool_calls == (ToolCall("add", '{"a":1}'),) and row.messages[1].content == ""
    assert [message.role for message in row.messages] == ["user", "assistant", "tool", "assistant"]


def test_turns_that_are_not_trained_and_weights_of_rows(tmp_path: Path) -> None:
    record = {
        "messages": [
            {"role": "user", "content": "a", "weight": None},
            {"role": "assistant", "content": "b", "train": False},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d", "weight": 0},
            {"role": "user", "content": "e"},
            {"role": "assistant", "content": "f", "weight": 1, "train": True},
        ],
        "weight": 2,
    }
    [row] = read(tmp_path, json.dumps(record)).rows
    assert row.weight == 2.0
    assert [message.train for message in row.messages or ()] == [True, False, True, False, True, True]
