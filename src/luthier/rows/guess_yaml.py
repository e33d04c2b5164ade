"""Write a guessed task as a commented `task.yaml`: each guess with its reason, each unset key with what it is for.

Values are written as JSON, which YAML reads as it stands, so no text can break out of its place.

    print(render_task_yaml(guess_task(Path("my-folder"))))
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

from luthier.rows.guess import MODEL, SPLITS, Guess
from luthier.rows.sheet_words import count_of

_WIDTH = 100


def render_task_yaml(guess: Guess) -> str:
    """Return the task file's text; it loads as a `TaskSpec`."""
    return "\n".join([*_head(guess), "", *_data(guess), "", *_task(guess), "", *_train(guess)]) + "\n"


def _head(guess: Guess) -> Iterator[str]:
    yield from _comment(
        f"What `luthier start` made of this folder ({guess.shape}). Each line with a reason is a guess: change it "
        "as you like. `luthier check` on this file shows what the model will see; `luthier schema` prints all keys."
    )
    yield f"name: {_value(guess.name)}"
    yield ""
    yield from _comment(
        "A preset, a hub id, a folder, or a GGUF file. The preset needs no account and fits any laptop."
    )
    yield f"model: {MODEL}"


def _data(guess: Guess) -> Iterator[str]:
    if guess.faults:
        first, records = guess.faults[0], count_of(len(guess.faults), "record", "records")
        where = f"{first.file}:{first.line}, {first.message}"
        yield from _comment(f"{records} could not be read; the first: {where}.")
    if guess.left_out:
        yield from _comment(f"Not used: {', '.join(guess.left_out[:8])}{' …' if len(guess.left_out) > 8 else ''}.")
    if not guess.data:
        yield from _comment(
            "There are no examples yet. Without them documents can be searched (`luthier index`, `luthier search`); to "
            'compare or train, write JSONL lines such as {"prompt": "…", "completion": "…"} and name the files here.'
        )
        yield "data: {}"
        return
    yield "data:"
    for split in SPLITS:
        if split in guess.data:
            yield from _comment(guess.why[f"data.{split}"] + ".", "  ")
            yield f"  {split}: {_value(guess.data[split])}"
        else:
            yield from _comment(f"{split}: FILE   (none was found, and the rows are too few or have no answers)", "  ")
    if guess.id_field not in (None, "id"):
        yield from _comment("This field names each row.", "  ")
        yield f"  id: {_value(guess.id_field)}"
    if guess.group_field is not None:
        yield from _comment(guess.why["data.group"] + ".", "  ")
        yield f"  group: {_value(guess.group_field)}"


def _task(guess: Guess) -> Iterator[str]:
    if guess.documents is not None:
        yield from _comment(guess.why["documents"] + ".")
        yield f"documents: {_value(guess.documents)}"
    else:
        yield from _comment("documents: FOLDER   (Markdown, text, HTML, PDF; gives the task its retrieval systems)")
    if guess.instruction:
        yield from _comment(guess.why["instruction"] + ".")
        yield f"instruction: {_value(guess.instruction)}"
    else:
        yield from _comment("instruction: TEXT   (what the model is told to do with each input)")
    if "metric" in guess.why:
        yield from _comment(guess.why["metric"] + ".")
        yield f"metric: {guess.metric}"
    if guess.schema_file is not None:
        yield from _comment(guess.why["schema"] + ".")
        yield f"schema: {_value(guess.schema_file)}"
    if guess.labels:
        yield from _comment(guess.why["labels"] + ".")
        yield f"labels: {_value(list(guess.labels))}"
    if guess.facts:
        yield from _comment(guess.why["facts"] + ".")
        yield f"facts: {_value(list(guess.facts))}"
    if "generation.max_new_tokens" in guess.why:
        yield from _comment(guess.why["generation.max_new_tokens"] + ".")
        yield f"generation: {{max_new_tokens: {guess.max_new_tokens}}}"


def _train(guess: Guess) -> Iterator[str]:
    yield from _comment("Defaults that suit a small model on a laptop; `luthier train` says what they cost.")
    yield "train: {objective: sft, adapter: {kind: lora, rank: 16}, epochs: 2, learning_rate: 0.001}"
    if guess.splits.get("train") and guess.labels == () and guess.metric == "exact_match":
        yield from _comment("metric: score.py   (a Python file of your own is a metric too)")


def _comment(text: str, indent: str = "") -> list[str]:
    """Return a text as comment lines; a text with line breaks cannot leave the comment."""
    clean = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    clean = clean[:1].upper() + clean[1:] if " " in clean and not clean.split(" ")[0].endswith(":") else clean
    return [
        f"{indent}# {line}" for line in textwrap.wrap(clean, _WIDTH, break_long_words=False, break_on_hyphens=False)
    ]


def _value(value: object) -> str:
    # Characters that YAML counts as line breaks or refuses are escaped, as JSON allows.
    text = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
