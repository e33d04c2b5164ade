"""What `luthier start` makes of a folder: shape, splits, metric, schema, labels and documents, each with its reason.

Existing train, dev and test files are respected; what is missing is taken from the training rows, by group and without
near copies on both sides (80 / 10 / 10). Nothing is asked, and nothing is written here except by `write_split`; the
caller writes `files_of(guess)`.

    guess = guess_task(Path("my-folder"))
    print(render_task_yaml(guess))
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.ground.errors import BadInput
from luthier.ground.files import expanded, write_whole
from luthier.ground.results import Fault
from luthier.ground.strict_json import dump_json
from luthier.ground.words import many
from luthier.rows.guess_answers import (
    as_object,
    guess_facts,
    guess_labels,
    guess_metric,
    guess_schema,
    longest_answer_tokens,
)
from luthier.rows.guess_sources import ExampleFile, Sources, document_text, find_sources
from luthier.rows.split import split_rows
from luthier.rows.tools import list_of
from luthier.rows.types import Message, Row

MODEL = "smollm2-135m-instruct"
SPLITS = ("train", "dev", "test")
SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}
SPLIT_FOLDER = "splits"
SCHEMA_FILE = "schema.json"
SEED = 0


@dataclass
class Guess:
    """A guessed task.

    Attributes:
        shape: messages, sharegpt, alpaca, pair, label, gap, text, table, chat log, or documents.
        splits: rows of train, dev and test, as far as there are any.
        data: split → file, relative to the folder; files under `splits/` are to be written.
        schema: JSON schema of the answers, to be written to `schema_file` unless that file exists.
        why: key of the task file → the reason for its value.
        faults: records that could not be read.
        left_out: files that look like data and are not used.
    """

    folder: Path
    name: str
    shape: str
    splits: dict[str, list[Row]] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    id_field: str | None = None
    group_field: str | None = None
    documents: str | None = None
    instruction: str = ""
    metric: str = "exact_match"
    schema: dict[str, Any] | None = None
    schema_file: str | None = None
    labels: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    max_new_tokens: int = 256
    why: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def guess_task(folder: Path) -> Guess:
    """Return what a folder (or one file of examples) is guessed to be.

    Raises:
        BadInput: there is no such folder, or it holds neither examples nor documents.
    """
    folder = expanded(folder)
    only = folder if folder.is_file() else None
    folder = (folder.parent if only else folder).resolve()
    if not folder.is_dir():
        raise BadInput("there is no such folder", where=str(folder), fix="name the folder that holds your examples")
    sources = find_sources(folder, only.resolve() if only else None)
    if not sources.examples and sources.documents is None:
        raise BadInput(
            "the folder holds neither examples (CSV, JSONL, JSON, Parquet, a chat log) nor documents",
            where=str(folder),
            fix="put one in it",
        )
    guess = Guess(folder, _name(only or folder), "documents", documents=sources.documents)
    if sources.documents is not None:
        guess.why["documents"] = f"{sources.document_files:,} documents lie there: they give the task its retrieval"
    files = _choose_files(sources, guess)
    if files:
        _guess_data(guess, files)
        _guess_answers(guess)
    return guess


def write_split(rows: Sequence[Row], path: Path) -> None:
    """Write rows as JSONL in one shape, whole or not at all."""
    write_whole(path, split_text(rows))


def split_text(rows: Sequence[Row]) -> str:
    """Return rows as JSONL: prompt and completion where a row is one exchange, messages or text otherwise."""
    return "".join(dump_json(_record(row)) + "\n" for row in rows)


def files_of(guess: Guess) -> dict[str, str]:
    """Return what is to be written into the folder, beside the task file: relative path → content."""
    files = {
        path: split_text(guess.splits[split])
        for split, path in guess.data.items()
        if path.startswith(f"{SPLIT_FOLDER}/")
    }
    if guess.schema is not None and guess.schema_file is not None:
        files[guess.schema_file] = json.dumps(guess.schema, indent=2, ensure_ascii=False) + "\n"
    return files


# -- data ----------------------------------------------------------------------------------------------------------


def _choose_files(sources: Sources, guess: Guess) -> list[ExampleFile]:
    """Return the files to be used: those with a role by name, or else all of the most frequent kind."""
    guess.left_out = list(sources.left_out)
    with_role = [file for file in sources.examples if file.role]
    if any(file.role == "train" for file in with_role) or len({file.role for file in with_role}) > 1:
        chosen = with_role
    else:
        sizes: Counter[tuple[str, str]] = Counter()
        for file in sources.examples:
            sizes[file.path.suffix, file.shape] += len(file.rows)
        kind = sizes.most_common(1)[0][0] if sizes else None
        alike = [file for file in sources.examples if (file.path.suffix, file.shape) == kind]
        chosen = [dataclasses.replace(file, role=None) for file in alike]  # a lone "test.csv" is all there is
    used = {file.path for file in chosen}
    unused = [file.path for file in sources.examples if file.path not in used]
    guess.left_out += [path.relative_to(guess.folder).as_posix() for path in unused]
    return chosen


def _guess_data(guess: Guess, files: Sequence[ExampleFile]) -> None:
    first = next((file for file in files if file.role == "train"), files[0])
    guess.shape = first.shape
    guess.faults = [fault for file in files for fault in file.faults]
    by_role: dict[str, list[ExampleFile]] = {}
    for file in files:
        by_role.setdefault(file.role or "train", []).append(file)
    by_role.setdefault("train", [])
    given = {role: [row for file in of_role for row in file.rows] for role, of_role in by_role.items()}
    guess.splits = _complete(given)
    carved = [split for split in guess.splits if split not in given]
    guess.group_field = _common(file.group for file in files)
    guess.id_field = _common(file.row_id for file in files)
    for split in guess.splits:
        guess.data[split], guess.why[f"data.{split}"] = _place(guess, split, by_role.get(split, []), carved, first.why)
    _explain_fields(guess)


def _complete(given: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """Return train, dev and test; a missing one is taken from the training rows, by group."""
    missing = [split for split in ("dev", "test") if not given.get(split)]
    train = list(given["train"])
    texts = train and all(row.messages is None for row in train)
    if not missing or len(train) < 5 or texts:
        splits = {split: list(rows) for split, rows in given.items() if rows}
    else:
        parts = split_rows(train, {part: SHARES[part] for part in ("train", *missing)}, SEED)
        splits = {split: list(rows) for split, rows in given.items() if rows} | parts
    return {split: splits[split] for split in SPLITS if splits.get(split)}


def _place(guess: Guess, split: str, files: Sequence[ExampleFile], carved: Sequence[str], why: str) -> tuple[str, str]:
    """Return where a split lies, and why."""
    count = many(len(guess.splits[split]), "row")
    touched = split in carved or (split == "train" and carved)
    if len(files) == 1 and files[0].native and not touched:
        path = files[0].path.relative_to(guess.folder).as_posix()
        return path, f"{count}; {why}" if split == "train" else f"{count}, as the file's name says"
    path = f"{SPLIT_FOLDER}/{split}.jsonl"
    if split in carved:
        kept = f"by {guess.group_field}" if guess.group_field else "at random"
        return path, f"{count} set aside {kept}, with nothing nearly the same in train"
    rest = f", the rest after {' and '.join(carved)} were set aside" if touched else ""
    return path, f"{count}{rest}; {why}"


def _explain_fields(guess: Guess) -> None:
    """Files that are written anew call the fields id and group; files that stay keep their own names."""
    written = [path for path in guess.data.values() if path.startswith(f"{SPLIT_FOLDER}/")]
    mixed = 0 < len(written) < len(guess.data)
    if guess.group_field is not None:
        guess.why["data.group"] = f'"{guess.group_field}" has values that repeat: such rows are never split'
    if mixed:  # one name for all files: write those anew that would keep their own
        for split in guess.data:
            if (guess.group_field or "group") != "group" or (guess.id_field or "id") != "id":
                guess.data[split] = f"{SPLIT_FOLDER}/{split}.jsonl"
        written = [path for path in guess.data.values() if path.startswith(f"{SPLIT_FOLDER}/")]
    if written:
        guess.group_field = "group" if guess.group_field else None
        guess.id_field = "id" if guess.id_field else None


# -- answers -------------------------------------------------------------------------------------------------------


def _guess_answers(guess: Guess) -> None:
    rows = [row for split in guess.splits.values() for row in split]
    answers = [row.reference for row in rows if row.reference]
    if not answers:
        guess.why["metric"] = "the rows are raw text, without answers to score"
        return
    guess.metric, guess.why["metric"] = guess_metric(answers)
    guess.max_new_tokens = longest_answer_tokens(answers)
    longest = max(map(len, answers))
    guess.why["generation.max_new_tokens"] = f"the longest answer has {longest:,} characters"
    if guess.metric == "json_match":
        _guess_json(guess, rows)
    elif guess.metric == "label":
        guess.labels = guess_labels(answers)
        guess.why["labels"] = f"the {len(guess.labels)} different answers, the most frequent first"
        guess.instruction = f"Answer with one of: {', '.join(guess.labels)}. Write nothing else."
    if (guess.folder / "instruction.txt").is_file():
        guess.instruction = "file:instruction.txt"
        guess.why["instruction"] = "the folder holds this file"
    elif guess.instruction:
        guess.why["instruction"] = "a first wording made from the answers; better ones can be tried on dev"


def _guess_json(guess: Guess, rows: Sequence[Row]) -> None:
    pairs = [(row.input, value) for row in rows if (value := as_object(row.reference)) is not None]
    fields = list(dict.fromkeys(name for _, value in pairs for name in value))
    guess.instruction = f"Answer with one JSON object with the fields {', '.join(fields)}, and nothing else."
    guess.schema_file = SCHEMA_FILE
    if (guess.folder / SCHEMA_FILE).is_file():
        guess.why["schema"] = "the folder holds this file"
    else:
        guess.schema = guess_schema([value for _, value in pairs])
        guess.why["schema"] = f"made from {len(pairs):,} answers, which all fit it; make it stricter or looser by hand"
    if guess.documents is not None:
        guess.facts = guess_facts(pairs[:500], document_text(guess.folder / guess.documents))
        if guess.facts:
            guess.why["facts"] = "their values stand in the documents and not in what is asked"


# -- small parts ---------------------------------------------------------------------------------------------------


def _record(row: Row) -> dict[str, Any]:
    head: dict[str, Any] = {"id": row.id}
    if row.messages is None:
        body: dict[str, Any] = {"text": row.text} | ({"gap": list(row.gap)} if row.gap is not None else {})
    elif [message.role for message in row.messages] == ["user", "assistant"] and not _has_more(row):
        body = {"prompt": row.messages[0].content, "completion": row.messages[1].content}
    else:
        body = {"messages": [_turn(message) for message in row.messages]}
    if row.tools is not None:
        body["tools"] = list_of(row.tools)
    if row.weight != 1.0:
        body["weight"] = row.weight
    return head | body | ({"group": row.group} if row.group is not None else {})


def _has_more(row: Row) -> bool:
    """Tell whether a turn has what a prompt and a completion cannot hold."""
    return any(message.tool_calls or not message.train for message in row.messages or ())


def _turn(message: Message) -> dict[str, Any]:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    return (
        {"role": message.role, "content": message.content}
        | ({"tool_calls": calls} if calls else {})
        | ({"name": message.name} if message.name is not None else {})
        | ({} if message.train else {"train": False})
    )


def _common(values: Any) -> str | None:
    """Return the value that all have, or None."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def _name(path: Path) -> str:
    words = re.sub(r"[^\w.-]+", " ", path.stem if path.is_file() else path.name, flags=re.ASCII).strip(" .-")
    return words[:60] or "task"
