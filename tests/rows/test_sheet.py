"""The truth sheet finds every fault in data that has it, and calls sound data sound."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from luthier.ground.results import CheckResult
from luthier.rows.compose import Prompt, compose
from luthier.rows.read import ReadResult, read_rows
from luthier.rows.sheet import truth_sheet
from luthier.rows.template import Renderer
from luthier.rows.types import Row
from rows.conftest import make_renderer, make_tokenizer
from rows.families import CHATML

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
    return " ".join(f"{WORDS[number * step % 15]}{number * step}" for step in (1, 4, 7, 11, 13))


def pairs(numbers: Sequence[int], **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": asked(n), "completion": f"answer {n}", **more} for n in numbers]


def split(folder: Path, name: str, records: Sequence[Any]) -> ReadResult:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return read_rows(f"{name}.jsonl", folder=folder)


def sheet(folder: Path, renderer: Renderer | None = None, **splits: Any) -> CheckResult:
    options = {key: splits.pop(key) for key in ("max_length", "on_long", "on_bad", "prompt_of") if key in splits}
    read = {name: split(folder, name, records) for name, records in splits.items()}
    return truth_sheet("demo", read, renderer or make_renderer("chatml"), **options)


def sound(folder: Path, **changes: Any) -> CheckResult:
    parts = {"train": pairs(range(100)), "dev": pairs(range(100, 160)), "test": pairs(range(200, 260))}
    return sheet(folder, **(parts | changes))


def test_sound_data_is_called_sound(tmp_path: Path) -> None:
    result = sound(tmp_path)
    assert (result.ok, result.reasons, result.warnings, result.faults) == (True, [], [], [])
    counts = result.rows["train"]
    assert (counts.read, counts.kept, counts.refused, counts.cut, counts.dropped, counts.without_target) == (
        100, 100, 0, 0, 0, 0,
    )  # fmt: skip
    assert result.end_token == "<|im_end|>" and result.end_token_trained
    assert result.template == "chat template of the model"
    assert CheckResult.model_validate_json(result.model_dump_json()) == result


def test_tokens_are_counted_as_training_sees_them(tmp_path: Path) -> None:
    renderer = make_renderer("chatml")
    prompt = Prompt("Answer.")

    def composed(row: Row) -> Row:
        return compose(row, prompt, with_answer=True)

    result = sound(tmp_path, prompt_of=composed)
    rows = split(tmp_path, "train", pairs(range(100))).rows
    lengths = sorted(len(renderer.encode_row(composed(row))) for row in rows)
    tokens = result.tokens["train"]
    assert tokens.total == sum(lengths)
    assert (tokens.quantiles["p0"], tokens.quantiles["p100"]) == (lengths[0], lengths[-1])
    assert tokens.target == sum(renderer.encode_row(composed(row)).target_tokens for row in rows)
    assert sum(count for _, _, count in tokens.histogram) == 100
    for low, high, count in tokens.histogram:
        assert count == sum(low <= length <= high for length in lengths)


def test_views_show_what_the_model_sees(tmp_path: Path) -> None:
    result = sound(tmp_path)
    assert [view.place for view in result.views] == ["train.jsonl:1", "train.jsonl:51", "train.jsonl:100"]
    assert [(segment.text, segment.trained) for segment in result.views[0].segments] == [
        (f"<|im_start|>user\n{asked(0)}<|im_end|>\n<|im_start|>assistant\n", False),
        ("answer 0<|im_end|>", True),
        ("\n", False),
    ]


def test_refused_rows_forbid_training_unless_skipped(tmp_path: Path) -> None:
    bad = [*pairs(range(100)), *["broken"] * 30]
    result = sound(tmp_path, train=bad)
    assert not result.ok and "train: 30 of 130 rows refused" in result.reasons[0]
    assert len(result.faults) == 20 and result.fault_counts == {"bad_json": 30}
    assert result.faults[0].line == 101
    assert result.rows["train"].read == 130 and result.rows["train"].refused == 30
    assert sound(tmp_path, train=bad, on_bad="skip").ok


def test_rows_that_the_template_refuses_are_faults(tmp_path: Path) -> None:
    twice = {"messages": [{"role": "user", "content": "a"}] * 2 + [{"role": "assistant", "content": "b"}]}
    result = sheet(tmp_path, make_renderer("llama2"), train=[*pairs(range(60)), twice])
    assert result.fault_counts == {"template_refused": 1}
    assert (result.faults[0].file, result.faults[0].line) == ("train.jsonl", 61)
    assert result.rows["train"].kept == 60 and not result.ok


def test_long_rows_by_policy(tmp_path: Path) -> None:
    long_prompt = {"prompt": asked(500) + " wheel" * 300, "completion": "short"}
    long_answer = {"prompt": asked(501), "completion": "wheel " * 300}
    train = [*pairs(range(100)), long_prompt, long_answer]
    dropped = sound(tmp_path, train=train, max_length=120)
    counts = dropped.rows["train"]
    assert (counts.kept, counts.cut, counts.dropped, counts.without_target) == (100, 0, 1, 1)
    assert any("2 rows are longer than 120 tokens" in warning for warning in dropped.warnings) and dropped.ok
    cut = sound(tmp_path, train=train, max_length=120, on_long="cut_prompt").rows["train"]
    assert (cut.kept, cut.cut, cut.dropped, cut.without_target) == (101, 1, 0, 1)
    failed = sound(tmp_path, train=train, max_length=120, on_long="fail")
    assert not failed.ok and "2 rows are longer" in failed.reasons[0]
    for result in (dropped, failed):
        counts = result.rows["train"]
        assert counts.read == counts.refused + counts.kept + counts.dropped + counts.without_target


def test_nothing_kept_is_no_training(tmp_path: Path) -> None:
    result = sound(tmp_path, max_length=4)
    assert not result.ok and result.rows["train"].kept == 0
    assert any("no row is kept" in reason for reason in result.reasons)
    assert not result.end_token_trained and result.views == []
    assert any("no train split" in reason for reason in sheet(tmp_path, test=pairs(range(60))).reasons)


def test_an_end_token_that_is_not_trained(tmp_path: Path) -> None:
    source = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    renderer = Renderer(make_tokenizer(CHATML), chat_template=source)
    result = sheet(tmp_path, renderer, train=pairs(range(60)))
    assert not result.ok and not result.end_token_trained
    assert any("no row trains an end token" in reason for reason in result.reasons)


def test_repetition_and_leakage(tmp_path: Path) -> None:
    train = [*pairs(range(100)), *pairs([3, 4]), {"prompt": asked(5), "completion": "another"}]
    result = sound(tmp_path, train=train, dev=pairs(range(98, 160)), test=pairs(range(200, 260)))
    assert (result.duplicates["train"].exact, result.duplicates["train"].near) == (2, 1)
    assert [(pair.a, pair.b) for pair in result.conflicts] == [("train.jsonl:6", "train.jsonl:103")]
    assert result.overlap["train/dev"].exact == 2 and result.ok
    assert any("dev: 2 items stand exactly in train" in warning for warning in result.warnings)
    leaked = sound(tmp_path, test=pairs(range(90, 160)))
    assert not leaked.ok and leaked.reasons == ["10 test items stand word for word in train; remove from train"]
    assert leaked.overlap["dev/test"].exact == 60


def test_groups_on_both_sides_are_told(tmp_path: Path) -> None:
    result = sound(tmp_path, train=pairs(range(100), group="g"), test=pairs(range(200, 260), group="g"))
    assert any("1 group stands in both train and test, such as g" in warning for warning in result.warnings)


@pytest.mark.parametrize(("share", "ok"), [(95, True), (100, False)])
def test_answers_that_are_all_one(share: int, ok: bool, tmp_path: Path) -> None:
    train = [{"prompt": asked(n), "completion": "yes" if n < share else f"no {n}"} for n in range(100)]
    result = sound(tmp_path, train=train)
    assert result.ok is ok
    assert any(f'{share}% of the answers are "yes"' in warning for warning in result.warnings)


def test_missing_and_small_splits_are_told(tmp_path: Path) -> None:
    result = sheet(tmp_path, train=pairs(range(60)))
    assert result.ok
    assert any("no dev split" in warning for warning in result.warnings)
    assert any("no test split" in warning for warning in result.warnings)
    small = sound(tmp_path, test=pairs([300, 301, 302]))
    assert small.ok and any("test: 3 items are few" in warning for warning in small.warnings)


def test_raw_text_is_checked_too(tmp_path: Path) -> None:
    result = sheet(tmp_path, train=[{"text": asked(n)} for n in range(60)])
    assert result.ok and result.end_token_trained and result.tokens["train"].target > 60
    assert [segment.trained for segment in result.views[0].segments] == [False, True]


def talk(*answers: bool, **more: Any) -> dict[str, Any]:
    messages = [
        turn
        for number, trained in enumerate(answers)
        for turn in (
            {"role": "user", "content": f"{more.get('id', '')} asks {number}"},
            {"role": "assistant", "content": f"answer {more.get('id', '')} {number}", "train": trained},
        )
    ]
    return {"messages": messages, **more}


def test_turns_weights_and_tools_are_counted(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "look", "arguments": {}}]}
    calling = {"messages": [{"role": "user", "content": "see?"}, call], "tools": [{"name": "look"}], "id": "c"}
    rows = [talk(True, True, id="a"), talk(False, True, id="b", weight=2), talk(False, id="d"), calling]
    train = [*rows, talk(True, id="e", weight=0), *pairs(range(100))]
    renderer = Renderer(make_tokenizer(CHATML))  # its own: it keeps the warning about tools
    result = sound(tmp_path, train=train, renderer=renderer)
    turns = result.turns["train"]
    assert (turns.answers, turns.untrained, turns.calls, turns.with_tools) == (107, 2, 1, 1)
    assert (turns.weighted, turns.weightless, turns.smallest_weight, turns.largest_weight) == (2, 1, 0.0, 2.0)
    counts = result.rows["train"]
    assert (counts.read, counts.kept, counts.without_target) == (105, 103, 2)
    assert [warning for warning in result.warnings if warning.startswith("train")] == [
        "train: 1 row has weight 0 and no part in training",
        "train: 1 row has no answer that is to be trained",
    ]
    assert any("does not know tools" in warning for warning in result.warnings) and result.ok
    last = truth_sheet("demo", {"train": split(tmp_path, "train", train)}, renderer, turns="last")
    assert last.turns["train"].untrained == 3


def test_rows_that_differ_in_a_call_or_a_gap_are_no_repeats(tmp_path: Path) -> None:
    calls = [{"role": "assistant", "content": None, "tool_calls": [{"name": name}]} for name in ("look", "go")]
    rows = [{"messages": [{"role": "user", "content": "now"}, call]} for call in calls]
    gaps = [{"text": "one two three four", "gap": gap} for gap in ([0, 3], [4, 7])]
    own = Renderer(make_tokenizer(CHATML))
    result = sound(tmp_path, train=[*rows, *gaps, *pairs(range(100))], renderer=own)
    assert result.duplicates["train"].exact == 0
    assert [(pair.a, pair.b) for pair in result.conflicts] == [("train.jsonl:1", "train.jsonl:2")]
    assert not any("raw text" in warning for warning in sound(tmp_path, dev=gaps).warnings)
