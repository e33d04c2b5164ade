"""Reading: every shape is recognised, every fault has its place and kind, and no bytes raise anything."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.ground.errors import BadInput
from luthier.rows.read import ReadResult, read_rows
from luthier.rows.records import SUFFIXES
from luthier.rows.types import Message

GOOD = '{"prompt": "2+2?", "completion": "4"}'
PAIR = (Message("user", "2+2?"), Message("assistant", "4"))


def read(folder: Path, content: bytes | str, name: str = "train.jsonl") -> ReadResult:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_rows(name, folder=folder)


def kinds(result: ReadResult) -> list[tuple[int, str]]:
    return [(fault.line, fault.kind) for fault in result.faults]


# -- lines of JSONL ------------------------------------------------------------------------------------------------


def _calling(calls: str, more: str = "") -> str:
    turn = f'{{"role": "assistant", "content": null, "tool_calls": {calls}}}'
    return f'{{"messages": [{{"role": "user", "content": "a"}}, {turn}]{more}}}'


BAD_LINES = {
    "bad_json": [
        '{"prompt": "a", "completion": NaN}',
        '{"prompt": "a", "completion": -Infinity}',
        '{"prompt": "a", "prompt": "b", "completion": "c"}',
        '{"prompt": "a", "completion": %s}' % ("9" * 5000),
        '{"prompt": "a", "completion": %s}' % ("[" * 200_000 + "]" * 200_000),
        '{"prompt": "a", "completion": "\\ud800"}',
        '{"prompt": "a", "completion": "b"} {}',
        "{'prompt': 'a'}",
        "not json",
        '{"prompt": "a", "completion": "tab\tinside"}',
        '{"prompt": "a", "completion": "raw \x00 character"}',
    ],
    "nul_character": ['{"prompt": "a", "completion": "b\\u0000c"}'],
    "bad_shape": ['[{"prompt": "a"}]', '"text"', "17", "null"],
    "unknown_shape": ['{"foo": 1}', "{}", '{"promt": "a", "completion": "b"}', '{"prompt": "a"}'],
    "ambiguous_shape": [
        '{"prompt": "a", "completion": "b", "question": "c", "answer": "d"}',
        '{"text": "a", "value": 1, "score": 2}',
        '{"text": "a", "label": "b", "labels": ["b"]}',
    ],
    "missing_field": [
        '{"prompt": null, "completion": "b"}',
        '{"prompt": "a", "completion": null}',
        '{"text": "a", "label": null}',
        '{"text": "a", "labels": null}',
        '{"prefix": "a", "middle": null, "suffix": "c"}',
        '{"messages": [{"role": "user"}, {"role": "assistant", "content": "b"}]}',
        '{"conversations": [{"from": "human", "text": "a"}, {"from": "gpt", "value": "b"}]}',
    ],
    "empty_content": [
        '{"prompt": " \\n ", "completion": "b"}',
        '{"text": ""}',
        '{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "b"}]}',
    ],
    "empty_target": [
        '{"prompt": "a", "completion": "  "}',
        '{"instruction": "a", "output": ""}',
        '{"prefix": "a", "middle": "", "suffix": "c"}',
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\\n"}]}',
    ],
    "bad_content": [
        '{"prompt": ["a"], "completion": "b"}',
        '{"messages": [{"role": "user", "content": 5}, {"role": "assistant", "content": "b"}]}',
        '{"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}, '
        '{"role": "assistant", "content": "b"}]}',
        '{"instruction": "a", "input": {"x": 1}, "output": "b"}',
    ],
    "bad_messages": ['{"messages": "a"}', '{"messages": []}', '{"messages": ["a"]}', '{"conversations": {}}'],
    "unknown_role": [
        '{"messages": [{"role": "human", "content": "a"}, {"role": "assistant", "content": "b"}]}',
        '{"messages": [{"role": "user", "content": "a"}, {"role": "asistant", "content": "b"}]}',
        '{"messages": [{"role": null, "content": "a"}, {"role": "assistant", "content": "b"}]}',
        '{"conversations": [{"from": "alien", "value": "a"}, {"from": "gpt", "value": "b"}]}',
    ],
    "no_assistant": ['{"messages": [{"role": "user", "content": "a"}]}'],
    "assistant_first": [
        '{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}, '
        '{"role": "assistant", "content": "c"}]}'
    ],
    "no_final_answer": [
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, '
        '{"role": "user", "content": "c"}]}'
    ],
    "misplaced_system": [
        '{"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "s"}, '
        '{"role": "assistant", "content": "b"}]}'
    ],
    "bad_tool_call": [
        _calling('[{"name": ""}]'),
        _calling('["f"]'),
        _calling('{"name": "f"}'),
        _calling('[{"function": {"name": "f", "arguments": "{"}}]'),
        _calling('[{"function": {"name": "f", "arguments": [1]}}]'),
        '{"messages": [{"role": "user", "content": "a", "tool_calls": [{"name": "f"}]}, '
        '{"role": "assistant", "content": "b"}]}',
        '{"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "f()"}]}',
    ],
    "misplaced_tool": [
        '{"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}, '
        '{"role": "assistant", "content": "c"}]}'
    ],
    "bad_tools": [
        '{"prompt": "a", "completion": "b", "tools": {"name": "f"}}',
        '{"prompt": "a", "completion": "b", "tools": ["f"]}',
        '{"prompt": "a", "completion": "b", "tools": [{"type": "function"}]}',
        '{"prompt": "a", "completion": "b", "tools": "[{"}',
        '{"prompt": "a", "completion": "b", "tools": [{"name": "f", "parameters": "x"}]}',
        '{"prompt": "a", "completion": "b", "tools": [{"name": "f"}, {"name": "f"}]}',
    ],
    "unknown_tool": [_calling('[{"name": "g"}]', ', "tools": [{"name": "f"}]')],
    "bad_weight": [
        '{"prompt": "a", "completion": "b", "weight": -1}',
        '{"prompt": "a", "completion": "b", "weight": "heavy"}',
        '{"prompt": "a", "completion": "b", "weight": true}',
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0.5}]}',
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "train": 1}]}',
        '{"messages": [{"role": "user", "content": "a", "train": true}, {"role": "assistant", "content": "b"}]}',
        '{"messages": [{"role": "user", "content": "a"}, '
        '{"role": "assistant", "content": "b", "train": true, "weight": 0}]}',
    ],
    "bad_value": [
        '{"text": "a", "value": "high"}',
        '{"text": "a", "score": [1]}',
        '{"text": "a", "labels": "x"}',
        '{"text": "a", "labels": ["x", "x"]}',
        '{"text": "a", "labels": [""]}',
        '{"text": "a", "labels": [true]}',
    ],
    "bad_gap": [
        '{"text": "abc", "gap": [1, 1]}',
        '{"text": "abc", "gap": [1, 4]}',
        '{"text": "abc", "gap": [-1, 2]}',
        '{"text": "abc", "gap": [0, 3]}',
        '{"text": "abc", "gap": [0, true]}',
        '{"text": "abc", "gap": "0-1"}',
    ],
}


@pytest.mark.parametrize("kind", sorted(BAD_LINES))
def test_a_bad_line_is_found_with_its_place(kind: str, tmp_path: Path) -> None:
    for line in BAD_LINES[kind]:
        result = read(tmp_path, f"{GOOD}\n\n{line}\n{GOOD}\n")
        assert kinds(result) == [(3, kind)], line[:80]
        assert result.faults[0].file == "train.jsonl" and len(result.faults[0].message) < 500
        assert [row.place for row in result.rows] == ["train.jsonl:1", "train.jsonl:4"]
        assert result.read == 3


def test_hints_name_the_likely_word(tmp_path: Path) -> None:
    messages = {
        '{"messages": [{"role": "human", "content": "a"}, {"role": "assistant", "content": "b"}]}': '"user"',
        '{"promt": "a", "completion": "b"}': '"prompt"',
    }
    for line, hint in messages.items():
        assert f"did you mean {hint}?" in read(tmp_path, line).faults[0].message


def test_line_ends(tmp_path: Path) -> None:
    good = GOOD.replace("2+2?", "2\u2028+\u20292?")
    result = read(tmp_path, f"{good}\r\n   \r\n\n{good}\nbad\n{good}")
    assert kinds(result) == [(5, "bad_json")]
    assert [row.place for row in result.rows] == ["train.jsonl:1", "train.jsonl:4", "train.jsonl:6"]
    assert result.rows[0].input == "2\u2028+\u20292?"
    assert result.read == 4


def test_half_a_line_at_the_end(tmp_path: Path) -> None:
    result = read(tmp_path, f"{GOOD}\n{GOOD[:20]}")
    assert kinds(result) == [(2, "half_line")]
    assert "ends in the middle" in result.faults[0].message


def test_byte_order_mark_is_tolerated_and_told(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", GOOD), ("a.json", f"[{GOOD}]")):
        result = read(tmp_path, b"\xef\xbb\xbf" + content.encode(), name)
        assert len(result.rows) == 1 and not result.faults
        assert "byte order mark" in result.notices[0]


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".parquet"])
def test_compressed_files_are_told(suffix: str, tmp_path: Path) -> None:
    result = read(tmp_path, gzip.compress(GOOD.encode()), f"train{suffix}")
    assert kinds(result) == [(1, "not_text")] and "gunzip" in result.faults[0].message


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    assert kinds(read(tmp_path, GOOD.encode() + b"\n" + GOOD.encode("latin-1").replace(b"2", b"\xe9"))) == [
        (2, "not_utf8")
    ]
    assert kinds(read(tmp_path, "prompt,completion\na,b\nc,é".encode("latin-1"), "a.csv")) == [(3, "not_utf8")]


def test_all_faults_are_counted(tmp_path: Path) -> None:
    result = read(tmp_path, "bad\n" * 500 + GOOD)
    assert len(result.faults) == 500 and len(result.rows) == 1 and result.read == 501


def test_ids_and_groups(tmp_path: Path) -> None:
    lines = [
        '{"id": 7, "group": "g", "prompt": "a", "completion": "b"}',
        '{"id": "7", "prompt": "c", "completion": "d"}',
        '{"prompt": "e", "completion": "f", "group": 3}',
    ]
    result = read(tmp_path, "\n".join(lines))
    assert [(row.id, row.group) for row in result.rows] == [("7", "g"), ("train.jsonl:3", "3")]
    assert kinds(result) == [(2, "duplicate_id")]
    (tmp_path / "b.jsonl").write_text('{"key": "k", "team": "t", "prompt": "a", "completion": "b"}')
    [row] = read_rows("b.jsonl", folder=tmp_path, id_field="key", group_field="team").rows
    assert (row.id, row.group) == ("k", "t")


# -- other files ---------------------------------------------------------------------------------------------------


def test_json_lists_know_their_lines(tmp_path: Path) -> None:
    text = f'[\n  {GOOD},\n  {{"prompt":\n    "a, [b] \\" {{",\n   "completion": "c"}},\n  17, [1,\n 2],\n\n  {GOOD}\n]'
    result = read(tmp_path, text, "a.json")
    assert kinds(result) == [(6, "bad_shape"), (6, "bad_shape")]
    assert [row.place for row in result.rows] == ["a.json:2", "a.json:3", "a.json:9"]
    wrapped = read(tmp_path, f'{{"version": [1, 2],\n "info": {{"data": [3]}},\n "data": {text}}}', "b.json")
    assert [row.place for row in wrapped.rows] == ["b.json:4", "b.json:5", "b.json:11"]
    assert len(read(tmp_path, GOOD, "c.json").rows) == 1


def test_broken_json_is_one_fault_with_its_line(tmp_path: Path) -> None:
    result = read(tmp_path, f"[{GOOD},\n{GOOD}\n{GOOD}]", "a.json")
    assert kinds(result) == [(3, "bad_json")] and not result.rows


def test_csv(tmp_path: Path) -> None:
    text = 'id,prompt,completion\n1,"two\nlines, and a comma",x\n2,short\n\n3,"say ""hi""",y\n4,a,b,c\n'
    result = read(tmp_path, text, "a.csv")
    assert [(row.id, row.input) for row in result.rows] == [("1", "two\nlines, and a comma"), ("3", 'say "hi"')]
    assert [row.place for row in result.rows] == ["a.csv:2", "a.csv:6"]
    assert kinds(result) == [(4, "bad_csv"), (7, "bad_csv")]
    assert read(tmp_path, "text;label\na, b;good\n", "b.csv").rows[0].reference == "good"
    assert read(tmp_path, "text\tlabel\na, b\tgood\n", "b.tsv").rows[0].input == "a, b"
    assert kinds(read(tmp_path, "a,a\n1,2\n", "c.csv")) == [(1, "bad_csv")]
    assert [kind for _, kind in kinds(read(tmp_path, 'prompt,completion\n"open,b\n', "d.csv"))] == ["bad_csv"]


def test_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({"prompt": ["a", None, "c"], "completion": ["x", "y", "z"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    result = read_rows("a.parquet", folder=tmp_path)
    assert [row.input for row in result.rows] == ["a", "c"] and kinds(result) == [(2, "missing_field")]
    assert kinds(read(tmp_path, b"PAR1 not", "b.parquet")) == [(1, "bad_parquet")]


def test_text_is_one_row_a_file(tmp_path: Path) -> None:
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "docs" / "b.txt").write_bytes(b"one\r\n\r\ntwo")
    (tmp_path / "docs" / "deep" / "a.md").write_text("# three")
    (tmp_path / "docs" / "c.pdf").write_text("not text")
    result = read_rows("docs", folder=tmp_path)
    assert [(row.place, row.text) for row in result.rows] == [
        ("docs/b.txt:1", "one\n\ntwo"),
        ("docs/deep/a.md:1", "# three"),
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing.jsonl", "there is no such file"),
        ("model.bin", "are not read"),
        ("empty", "has no text files"),
        ("hub:noslash", "names no dataset"),
        ("hub:../x/y", "names no dataset"),
    ],
)
def test_sources_that_are_not_there(source: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=message):
        read_rows(source, folder=tmp_path)


def test_a_dataset_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    asked: list[tuple[str, str]] = []

    def load(name: str, split: str) -> datasets.Dataset:
        asked.append((name, split))
        if name == "owner/absent":
            raise ConnectionError("Couldn't reach 'owner/absent' on the Hub\nand more")
        return data

    monkeypatch.setattr(datasets, "load_dataset", load)
    result = read_rows("hub:owner/name:validation", folder=tmp_path)
    assert [row.reference for row in result.rows] == ["good", "bad"]
    assert result.rows[1].place == "hub:owner/name:validation:2"
    with pytest.raises(BadInput, match=r"hub:owner/absent:train: the dataset could not be loaded \(Couldn't reach"):
        read_rows("hub:owner/absent", folder=tmp_path)
    assert asked == [("owner/name", "validation"), ("owner/absent", "train")]


# -- anything ------------------------------------------------------------------------------------------------------

TOKENS = b'{ } [ ] " , : \\u d800 NaN "prompt" "completion" "messages" "role" "content" 999999999999999999999 a,b'
fragments = st.sampled_from(
    [*TOKENS.split(), b"\n", b"\r\n", b"\0", b"\xff", b"\xe2\x80\xa8", b"\x1f\x8b", GOOD.encode()]
)


@settings(max_examples=150, deadline=None)
@given(
    content=st.lists(fragments | st.binary(max_size=8), max_size=30).map(b"".join),
    suffix=st.sampled_from(SUFFIXES),
)
def test_no_bytes_raise_anything(content: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    result = read(folder, content, f"a{suffix}")
    assert result.read == len(result.rows) + len(result.faults)
    lines = content.count(b"\n") + 1
    assert all(fault.line >= 1 and fault.message and fault.kind for fault in result.faults)
    if suffix == ".jsonl":
        assert all(fault.line <= lines for fault in result.faults)


FIELDS = "messages conversations role content from value prompt completion text instruction input output label id group"
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS.split()), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(values=st.lists(json_values, max_size=6))
def test_no_json_raises_anything(values: list[object], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("json")
    result = read(folder, "\n".join(map(json.dumps, values)))
    assert result.read == len(values) == len(result.rows) + len(result.faults)
    for row in result.rows:
        assert (row.messages is None) != (row.text is None)
        assert row.messages is None or row.reference.strip()


def test_records_on_one_line_have_their_own_ids(tmp_path: Path) -> None:
    rows = read(tmp_path, f"[{GOOD}, {GOOD}, {GOOD}]", "a.json").rows
    assert [row.place for row in rows] == ["a.json:1"] * 3
    assert len({row.id for row in rows}) == 3
