"""The house example: reproducible, held-out wordings, masked as it says, and the whole way on a tiny model."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from luthier.evaluation.metrics.tool_calls import calls_in
from luthier.ground.results import CompareResult, TrainResult
from luthier.ground.task import load_task
from luthier.rows.read import read_rows
from luthier.verbs.check import check
from luthier.verbs.compare import compare
from luthier.verbs.train import train
from rows.conftest import make_tokenizer
from rows.families import CHATML

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "house"
SPLITS = {"train": 360, "dev": 40, "test": 100}


def rows_of(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "generate.py", tmp_path)
    subprocess.run([sys.executable, tmp_path / "generate.py"], check=True)
    for split in SPLITS:
        assert (tmp_path / f"{split}.jsonl").read_bytes() == (FOLDER / f"{split}.jsonl").read_bytes(), split


def test_every_row_reads_and_ends_with_an_answer_or_a_call() -> None:
    for split, size in SPLITS.items():
        result = read_rows(f"{split}.jsonl", folder=FOLDER)
        assert len(result.rows) == size and not result.faults
        ends = [bool(calls_in(row.reference)) for row in result.rows]
        assert 0.7 < sum(ends) / size < 0.95, "most end with a call, and some must not"


def test_what_a_call_says_was_said_before() -> None:
    """Each argument of the last call stands in what the user said, in any turn, or in the calls before it."""
    for row in rows_of("train") + rows_of("test"):
        told = json.dumps(row["messages"][:-1]) + " 0"
        for call in row["messages"][-1].get("tool_calls", []):
            for value in call["function"]["arguments"].values():
                assert str(value) in told, row["id"]


def test_wordings_of_test_items_are_not_trained() -> None:
    values = re.compile(r"\d+|kitchen|study|hall|attic|bathroom|nursery|living room|cellar|front|back|garage|garden"
                        r"|eggs|tea|laundry|bread|pasta|homework")  # fmt: skip

    def wordings(split: str) -> set[str]:
        """One wish said and granted at once, without its values."""
        rows = [row["messages"] for row in rows_of(split) if len(row["messages"]) == 2]
        return {values.sub("_", said["content"]) for said, done in rows if len(done.get("tool_calls", ())) == 1}

    assert 25 <= len(wordings("train")) <= 30 and 8 <= len(wordings("test")) <= 10
    assert not wordings("test") & wordings("train")


def test_mistakes_are_read_and_not_trained() -> None:
    from luthier.rows.template import Renderer

    renderer = Renderer(make_tokenizer(CHATML))
    rows = read_rows("train.jsonl", folder=FOLDER).rows
    corrected = next(row for row in rows if any(not message.train for message in row.messages or ()))
    encoded = renderer.encode_row(corrected)
    learned = renderer.tokens.decode(encoded.ids_T[encoded.target_T].tolist())
    assert learned == corrected.reference + "<|im_end|>"


@pytest.fixture(scope="module")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example on a tiny model, cut short."""
    folder = tmp_path_factory.mktemp("house")
    torch.manual_seed(0)
    tokenizer = make_tokenizer(CHATML)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=2048, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    for split in SPLITS:
        shutil.copy(FOLDER / f"{split}.jsonl", folder)
    text = (FOLDER / "task.yaml").read_text(encoding="utf-8").replace("smollm2-135m-instruct", "tiny")
    (folder / "task.yaml").write_text(text, encoding="utf-8")
    return folder / "task.yaml"


SHORT = (
    "data.sample.train=24", "data.sample.dev=4", "data.sample.test=6", "train.precision=fp32", "prompt.dev_items=2",
    "generation.precision=fp32", "generation.max_new_tokens=8", "train.max_steps=3",
)  # fmt: skip


def test_the_whole_way_on_a_tiny_model(task_file: Path) -> None:
    task = load_task(task_file, SHORT)
    sheet = check(task)
    assert sheet.ok and sheet.turns["train"].calls > 0 and sheet.turns["train"].untrained > 0
    assert any("does not know tools" in warning for warning in sheet.warnings)
    result = compare(task)
    assert isinstance(result, CompareResult)
    assert [system.name for system in result.systems] == ["base", "prompt", "finetuned"]
    assert all(system.n_total == 6 and system.n_failed == 0 for system in result.systems)


EVERYTHING = (
    "train.turns=last", "train.prompt_loss_weight=0.1", "train.neftune_alpha=5", "train.curriculum=length",
    "train.eval_every=1", "train.tokens_per_step=2500",
)  # fmt: skip


def test_all_settings_of_sft_together_and_resumed(task_file: Path, tmp_path: Path) -> None:
    task = load_task(task_file, (*SHORT, *EVERYTHING))
    whole = train(task, out=tmp_path / "whole")
    parts = tmp_path / "parts"
    train(load_task(task_file, (*SHORT, *EVERYTHING, "budget.time=0.001s")), out=parts)
    (parts / "report.json").unlink()
    resumed = train(task, out=parts, resume=True)
    assert isinstance(whole, TrainResult) and whole.steps == resumed.steps == 3
    assert [record.loss for record in whole.history] == [record.loss for record in resumed.history]
    assert whole.target_tokens > 0.9 * whole.tokens, "prompts have targets as well"


@pytest.mark.slow
@pytest.mark.model
def test_the_real_model_learns_to_call() -> None:
    """About ten minutes on two cores: finetuned beats the best prompt by far."""
    result = compare(load_task(FOLDER / "task.yaml", ("compare.systems=[base, finetuned]",)))
    scores = {system.name: system.score for system in result.systems}
    assert scores["finetuned"] > 0.6 > scores["base"] + 0.3
