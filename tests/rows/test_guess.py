"""`start` recognises what people have, splits it without leakage, and writes a task file that loads."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.ground.errors import BadInput
from luthier.ground.task import Task, load_task
from luthier.rows.chatlog import looks_like_chat_log, parse_chat_log
from luthier.rows.guess import Guess, files_of, guess_task, write_split
from luthier.rows.guess_answers import guess_facts, guess_metric, guess_schema, longest_answer_tokens
from luthier.rows.guess_columns import choose_columns, choose_group, choose_id
from luthier.rows.guess_yaml import render_task_yaml
from luthier.rows.read import read_rows
from luthier.rows.types import Message, Row

WORDS = [
    "wheel",
    "saddle",
    "chain",
    "brake",
    "pedal",
    "light",
    "bell",
    "frame",
    "tyre",
    "pump",
    "lock",
    "basket",
    "spoke",
    "fork",
    "grip",
]


def asked(number: int) -> str:
    return "My " + " ".join(random.Random(number).choices(WORDS, k=9)) + f" is broken since {number * 37}."


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]], delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([columns, *rows])


def write_lines(path: Path, records: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")


def settle(guess: Guess) -> Task:
    """Write what the verb would write, and load it."""
    for name, content in files_of(guess).items():
        (guess.folder / name).parent.mkdir(exist_ok=True)
        (guess.folder / name).write_text(content, encoding="utf-8")
    path = guess.folder / "task.yaml"
    path.write_text(render_task_yaml(guess), encoding="utf-8")
    task = load_task(path)
    for split, rows in guess.splits.items():
        data = task.spec.data
        source = getattr(data, split)
        again = read_rows(source, folder=task.folder, id_field=data.id, group_field=data.group)
        assert [row.messages for row in again.rows] == [row.messages for row in rows]
        assert [row.group for row in again.rows] == [row.group for row in rows]
    return task


def test_a_table_of_labels(tmp_path: Path) -> None:
    rows = [(n, asked(n), WORDS[n % 3], f"user{n // 4}") for n in range(200)]
    write_table(tmp_path / "export.csv", ["ticket_id", "body", "category", "customer_id"], rows)
    guess = guess_task(tmp_path)
    assert (guess.shape, guess.metric, set(guess.labels)) == ("table", "label", set(WORDS[:3]))
    assert guess.splits["train"][0].messages is not None
    assert {name: len(rows) for name, rows in guess.splits.items()} == {"train": 160, "dev": 20, "test": 20}
    groups = {name: {row.group for row in rows} for name, rows in guess.splits.items()}
    assert not groups["train"] & groups["test"] and not groups["train"] & groups["dev"]
    task = settle(guess)
    assert task.spec.metric == "label" and task.spec.data.train == "splits/train.jsonl"
    assert "Answer with one of" in task.instruction
    assert '"customer_id" has values that repeat' in render_task_yaml(guess)
    assert (tmp_path / "export.csv").exists()


def test_several_label_columns_become_one_object(tmp_path: Path) -> None:
    rows = [(asked(n), WORDS[n % 3], ["low", "high"][n % 2]) for n in range(120)]
    write_table(tmp_path / "export.csv", ["message", "part", "urgency"], rows, delimiter=";")
    guess = guess_task(tmp_path)
    assert guess.metric == "json_match"
    assert json.loads(guess.splits["train"][0].reference).keys() == {"part", "urgency"}
    task = settle(guess)
    assert task.schema is not None
    assert task.schema["properties"]["urgency"] == {"type": "string", "enum": ["high", "low"]}
    assert task.schema["additionalProperties"] is False


def test_existing_splits_are_respected(tmp_path: Path) -> None:
    for name, start, count in (("train", 0, 50), ("valid", 100, 10), ("my-test", 200, 12)):
        write_lines(
            tmp_path / f"{name}.jsonl",
            [{"prompt": asked(n), "completion": asked(n + 500)} for n in range(start, start + count)],
        )
    guess = guess_task(tmp_path)
    assert guess.data == {"train": "train.jsonl", "dev": "valid.jsonl", "test": "my-test.jsonl"}
    assert not files_of(guess)
    assert [len(guess.splits[name]) for name in ("train", "dev", "test")] == [50, 10, 12]
    settle(guess)


def test_a_missing_split_is_taken_from_train_alone(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [{"prompt": asked(n), "completion": f"a{n}"} for n in range(90)])
    write_lines(tmp_path / "test.jsonl", [{"prompt": asked(n), "completion": f"a{n}"} for n in range(100, 130)])
    guess = guess_task(tmp_path)
    assert guess.data["test"] == "test.jsonl" and guess.data["dev"] == "splits/dev.jsonl"
    assert [len(guess.splits[name]) for name in ("train", "dev", "test")] == [80, 10, 30]
    assert (tmp_path / "train.jsonl").read_text().count("\n") == 89  # what was there is left as it was
    settle(guess)


def test_groups_keep_one_name_when_files_are_mixed(tmp_path: Path) -> None:
    def records(start: int, count: int) -> list[dict[str, Any]]:
        numbers = range(start, start + count)
        return [{"nr_id": n, "user": f"u{n // 3}", "question": asked(n), "answer": f"a{n}"} for n in numbers]

    write_lines(tmp_path / "train.jsonl", records(0, 90))
    write_lines(tmp_path / "test.jsonl", records(100, 30))
    settle(guess_task(tmp_path))


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_conversations(suffix: str, tmp_path: Path) -> None:
    talks = [
        {"conversations": [{"from": "human", "value": asked(n)}, {"from": "gpt", "value": asked(n + 999)}] * 2}
        for n in range(40)
    ]
    text = json.dumps(talks) if suffix == "json" else "\n".join(map(json.dumps, talks))
    (tmp_path / f"talks.{suffix}").write_text(text)
    guess = guess_task(tmp_path)
    assert guess.shape == "sharegpt" and guess.metric == "token_f1"
    assert sum(map(len, guess.splits.values())) == 40
    settle(guess)


CHAT = """[2024-01-02] User: My wheel
is broken.
Assistant: Send a picture.
User: Here it is
Assistant: Thank you.

It will be repaired.
"""


def test_a_chat_log() -> None:
    assert looks_like_chat_log(CHAT) and not looks_like_chat_log("Note: this is prose.\nAnswer: no")
    rows = parse_chat_log(CHAT, "log.txt")
    assert [(row.place, row.messages) for row in rows] == [
        ("log.txt:1", (Message("user", "My wheel\nis broken."), Message("assistant", "Send a picture."))),
        ("log.txt:4", (Message("user", "Here it is"), Message("assistant", "Thank you.\n\nIt will be repaired."))),
    ]
    parted = parse_chat_log(
        "Customer: a\nAgent: b\nCustomer: c\nAgent: d\n-----\nCustomer: e\nAgent: f\nCustomer: g", "l"
    )
    assert [[m.content for m in row.messages or ()] for row in parted] == [["a", "b", "c", "d"], ["e", "f"]]


def test_a_folder_with_a_chat_log_and_documents(tmp_path: Path) -> None:
    log = "\n".join(f"User: {asked(n)}\nAssistant: {asked(n + 700)}" for n in range(30))
    (tmp_path / "log.txt").write_text(log)
    (tmp_path / "manual").mkdir()
    for name in ("a.md", "b.html", "c.pdf"):
        (tmp_path / "manual" / name).write_text("text")
    (tmp_path / "README.md").write_text("read me")
    guess = guess_task(tmp_path)
    assert (guess.shape, guess.documents) == ("chat log", "manual")
    assert sum(map(len, guess.splits.values())) == 30 and len(guess.splits["test"]) == 3
    assert settle(guess).spec.documents == "manual"


def test_documents_alone(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    (tmp_path / "b.txt").write_text("text")
    guess = guess_task(tmp_path)
    assert (guess.shape, guess.documents, guess.splits) == ("documents", ".", {})
    assert settle(guess).spec.data.train is None
    assert "no examples yet" in render_task_yaml(guess)


def test_one_file_and_nothing(tmp_path: Path) -> None:
    write_lines(tmp_path / "one.jsonl", [{"text": asked(n)} for n in range(9)])
    write_lines(tmp_path / "other.jsonl", [{"prompt": asked(n), "completion": "x"} for n in range(50)])
    guess = guess_task(tmp_path / "one.jsonl")
    assert (guess.shape, guess.data, guess.name) == ("text", {"train": "one.jsonl"}, "one")
    settle(guess)
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "empty", "neither examples"), (tmp_path / "absent", "no such folder")):
        with pytest.raises(BadInput, match=message):
            guess_task(path)


def test_bad_records_and_unused_files_are_told(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"prompt": asked(n), "completion": "x y"} for n in range(20)] + [{"prompt": 1}])
    write_table(tmp_path / "b.csv", ["text", "label"], [(asked(1), "x")])
    write_lines(tmp_path / "numbers.jsonl", [1, 2, 3])
    guess = guess_task(tmp_path)
    text = render_task_yaml(guess)
    assert "1 record could not be read; the first: a.jsonl:21" in " ".join(text.replace("#", "").split())
    assert set(guess.left_out) == {"numbers.jsonl", "b.csv"}


def test_facts_stand_in_the_documents(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "parts.md").write_text(
        "\n".join(f"Model {WORDS[n % 15]}{n} has part P-{n * 13}." for n in range(30))
    )
    records = [
        {"prompt": f"{WORDS[n % 15]}{n}: {asked(n)}", "completion": {"part": f"P-{n * 13}", "kind": WORDS[n % 2]}}
        for n in range(30)
    ]
    write_lines(tmp_path / "a.jsonl", records)
    guess = guess_task(tmp_path)
    assert guess.facts == ("part",) and settle(guess).spec.facts == ("part",)
    text, asked_too = " ".join(f"P-{n}" for n in range(99)), [(f"P-{n}", {"part": f"P-{n}"}) for n in range(10, 40)]
    assert guess_facts([("?", answer) for _, answer in asked_too], text) == ("part",)
    assert guess_facts(asked_too, text) == ()


def test_what_was_there_is_never_written_over(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"prompt": asked(n), "completion": {"n": n}} for n in range(20)])
    (tmp_path / "schema.json").write_text("{}")
    (tmp_path / "instruction.txt").write_text("Do it.")
    guess = guess_task(tmp_path)
    assert set(files_of(guess)) == {"splits/train.jsonl", "splits/dev.jsonl", "splits/test.jsonl"}
    task = settle(guess)
    assert task.instruction == "Do it." and task.schema == {}


@pytest.mark.parametrize(
    ("answers", "metric"),
    [
        (['{"a": 1}'] * 20, "json_match"),
        (["yes", "no"] * 20, "label"),
        ([f"P-{n}" for n in range(20)], "exact_match"),
        ([" ".join(WORDS)] * 9, "token_f1"),
        ([" ".join(WORDS * 4)] * 9, "chrf"),
        ([], "exact_match"),
    ],
)
def test_metrics(answers: list[str], metric: str) -> None:
    assert guess_metric(answers)[0] == metric
    assert all(32 <= longest_answer_tokens(answers) <= 2048 for _ in range(1))


def test_columns_by_name_and_by_content() -> None:
    records = [{"nr": n, "when": "2024", "foo": asked(n), "bar": f"x{n}"} for n in range(30)]
    chosen = choose_columns(records)
    assert chosen is not None and (chosen.asked, chosen.answers) == ("foo", ("bar",))
    named = choose_columns(
        [{"Question": asked(n), "Notes": asked(n + 99), "Expected Answer": f"x{n}"} for n in range(30)]
    )
    assert named is not None and (named.asked, named.answers) == ("Question", ("Expected Answer",))
    assert choose_columns([{"a": 1, "b": 2}] * 9) is None
    assert choose_id([{"userId": "u", "uuid": n} for n in range(5)]) == "uuid"
    groups = [{"kind": "same", "customerId": n // 3, "answer": n % 9} for n in range(60)]
    assert choose_group(groups, taken=()) == "customerId"
    assert choose_group([{"user": "one"}] * 20, taken=()) is None


json_objects = st.dictionaries(
    st.text(max_size=3),
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-9, 9) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(values=st.lists(json_objects, min_size=1, max_size=12))
def test_every_answer_fits_the_guessed_schema(values: list[dict[str, Any]]) -> None:
    schema = guess_schema(values)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for value in values:
        validator.validate(value)
    assert not validator.is_valid({**values[0], "a name of its own": 1})


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(str.strip),
        min_size=3,
        max_size=3,
    ),
    group=st.none() | st.text(min_size=1, max_size=4).filter(lambda text: "\x00" not in text),
)
def test_written_splits_read_back(
    texts: list[str], group: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("split")
    rows = [
        Row("a", "a.jsonl:1", (Message("user", texts[0]), Message("assistant", texts[1])), group=group),
        Row("b", "a.jsonl:2", (Message("system", ""), Message("user", texts[1]), Message("assistant", texts[2]))),
        Row("c", "a.jsonl:3", text=texts[2]),
    ]
    write_split(rows, folder / "a.jsonl")
    result = read_rows("a.jsonl", folder=folder)
    assert result.rows == rows and not result.faults


@settings(max_examples=40, deadline=None)
@given(word=st.text(max_size=20), name=st.text(max_size=20))
def test_no_text_breaks_the_task_file(word: str, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("yaml")
    guess = Guess(
        folder,
        "demo",
        "pair",
        labels=(word, "other"),
        instruction=word,
        metric="label",
        why=dict.fromkeys(("metric", "labels", "instruction"), word),
        left_out=[name],
    )
    (folder / "task.yaml").write_text(render_task_yaml(guess), encoding="utf-8")
    spec = load_task(folder / "task.yaml").spec
    assert spec.labels == (word, "other") and spec.instruction == word and spec.data.train is None
