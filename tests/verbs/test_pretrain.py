"""Continued pretraining through every verb on a tiny model: a corpus, a mixture, new words, resume, bits per byte."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import luthier as lu
from luthier.ground.errors import BadInput, Interrupted, Refused
from luthier.ground.results import CompareResult, TrainResult
from luthier.ground.task import load_task
from tests.verbs.conftest import COLOURS, THINGS, write_jsonl

WORDS = "please send want can get ship need today soon monday mail aunt glorbex tricresal".split()  # noqa: SIM905  # reads better


def documents(count: int, seed: int, head: str = "") -> list[dict[str, str]]:
    chance = random.Random(seed)
    bag = [*WORDS, *COLOURS, *THINGS]
    return [{"text": head + " ".join(chance.choices(bag, k=chance.randint(5, 90)))} for _ in range(count)]


def corpus_folder(folder: Path, model: Path) -> Path:
    docs = folder / "docs"
    docs.mkdir()
    for number, row in enumerate(documents(12, 1)):
        (docs / f"{number:02}.txt").write_text(row["text"] + "\n")
    write_jsonl(docs / "more.jsonl", documents(40, 2))
    for name, count, seed, head in (
        ("replay", 15, 3, "we need it by mail. "), ("dev", 6, 4, ""), ("test", 20, 5, ""), ("general", 15, 6, "mail. "),
    ):  # fmt: skip
        write_jsonl(folder / f"{name}.jsonl", documents(count, seed, head))
    (folder / "task.yaml").write_text(
        f"""name: tiny text
model: {model}
data:
  train: [{{source: docs/}}, {{source: replay.jsonl, share: 0.1}}]
  dev: dev.jsonl
  test: test.jsonl
  general: general.jsonl
  shuffle_window: 16
generation: {{precision: fp32}}
train:
  objective: pretrain
  vocabulary: {{tokens: [glorbex, tricresal]}}
  adapter: {{rank: 4, alpha: 8}}
  epochs: 2
  max_length: 48
  tokens_per_step: 512
  precision: fp32
  learning_rate: 0.01
  final_rate: 0.1
  save_every: 2
"""
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    return corpus_folder(tmp_path, tiny_model)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, CompareResult]:
    folder = corpus_folder(tmp_path_factory.mktemp("text"), tiny_model)
    return folder, lu.compare(folder / "task.yaml")


def test_check_counts_each_source(folder: Path) -> None:
    sheet = lu.check(folder / "task.yaml")
    assert sheet.ok and sheet.end_token_trained
    sources = {(source.split, source.source): source for source in sheet.sources}
    assert sources["train", "docs/"].documents == 52
    assert sources["train", "docs/"].pieces > 52
    assert sources["train", "docs/"].bytes == sum(
        len(row["text"]) + (1 if seed == 1 else 0)
        for count, seed in ((12, 1), (40, 2))
        for row in documents(count, seed)
    )
    taken = [sources["train", name].epoch_tokens for name in ("docs/", "replay.jsonl")]
    assert taken[1] / sum(taken) == pytest.approx(0.1, abs=0.02)
    assert sheet.tokens["train"].quantiles["p100"] <= 48
    assert {view.segments[-1].trained for view in sheet.views} == {True}


def test_check_lists_bad_records_and_train_refuses(folder: Path) -> None:
    with open(folder / "docs" / "more.jsonl", "a") as stream:
        stream.write('{"txt": "x"}\n')
    sheet = lu.check(folder / "task.yaml")
    assert not sheet.ok and "1 of 68 records refused" in sheet.reasons[0]
    assert [(fault.file, fault.line) for fault in sheet.faults] == [("docs/more.jsonl", 41)]
    with pytest.raises(Refused, match="records refused"):
        lu.train(folder / "task.yaml")
    assert lu.check(load_task(folder / "task.yaml", overrides=["data.on_bad=skip"])).ok


def test_test_texts_in_train_and_missing_texts_are_told(folder: Path) -> None:
    write_jsonl(folder / "test.jsonl", documents(40, 2)[:3])
    sheet = lu.check(load_task(folder / "task.yaml", overrides=["data.general=null"]))
    assert any("test: 3 documents stand word for word in train" in reason for reason in sheet.reasons)
    assert any("what was forgotten cannot be measured" in warning for warning in sheet.warnings)


def test_plan_knows_the_steps_that_training_takes(folder: Path) -> None:
    plan = lu.plan(folder / "task.yaml")
    trained = lu.train(folder / "task.yaml")
    assert plan.pace.steps == trained.steps
    assert trained.objective == "pretrain" and trained.dev_loss is not None


def test_a_stopped_run_goes_on_bit_for_bit(folder: Path) -> None:
    """The position in the corpus, in each source's cycle and in the window is that of an undisturbed run."""
    whole = lu.train(folder / "task.yaml", out=folder / "whole")

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        lu.train(folder / "task.yaml", out=folder / "stopped", tell=stop)
    again = lu.train(folder / "task.yaml", out=folder / "stopped", resume=True)
    assert losses(again) == losses(whole)
    assert files(Path(again.adapter)) == files(Path(whole.adapter))


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(folder: Path) -> None:
    whole = lu.train(folder / "task.yaml", out=folder / "whole")
    killed = folder / "killed"
    command = [sys.executable, "-m", "luthier", "train", str(folder / "task.yaml"), "--out", str(killed)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (killed / "step-000004").is_dir() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    again = lu.train(folder / "task.yaml", out=killed, resume=True)
    assert losses(again) == losses(whole)
    assert files(Path(again.adapter)) == files(Path(whole.adapter))


def test_a_changed_corpus_is_not_gone_on_with(folder: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        lu.train(folder / "task.yaml", out=folder / "run", tell=stop)
    (folder / "docs" / "00.txt").write_text("something else altogether\n")
    with pytest.raises(Refused, match=r"begun differently: data\.train was"):
        lu.train(folder / "task.yaml", out=folder / "run", resume=True)


def test_max_steps_end_a_run_and_no_more_is_planned(folder: Path) -> None:
    result = lu.train(load_task(folder / "task.yaml", overrides=["train.max_steps=2"]))
    assert (result.steps, result.stopped) == (2, "max_steps")


def test_learned_and_forgotten_stand_in_the_result_and_on_the_page(compared: tuple[Path, CompareResult]) -> None:
    folder, result = compared
    assert result.language is not None
    bits = {(loss.system, loss.text): loss for loss in result.language.losses}
    assert bits["finetuned", "domain"].bits_per_byte < bits["base", "domain"].bits_per_byte
    assert [system.name for system in result.systems] == ["base", "finetuned"]
    for system in result.systems:
        assert system.score == pytest.approx(1 - bits[system.name, "domain"].bits_per_byte / 8)
        assert system.metrics["general"].score == pytest.approx(1 - bits[system.name, "general"].bits_per_byte / 8)
    assert [contrast.verdict for contrast in result.contrasts] == ["better"]
    assert result.verdict == result.language.sentence
    assert "Learned: domain text takes" in result.verdict
    lines = [json.loads(line) for line in Path(result.items).read_text().splitlines()]
    assert len(lines) == 2 * (20 + 15)
    base = [line for line in lines if (line["system"], line["text"]) == ("base", "domain")]
    assert sum(line["bits"] for line in base) / sum(line["bytes"] for line in base) == pytest.approx(
        bits["base", "domain"].bits_per_byte
    )
    page = Path(lu.report(folder / "task.yaml").page).read_text()
    assert "Learned and forgotten" in page and "bits per byte; fewer are better" in page
    advice = lu.advise(folder / "task.yaml")
    assert not {said.rule for said in advice.advice} & {"R1", "R2", "R17", "R22"}, "raw text has no prompts"
    assert advice.rejected == []


def test_the_adapter_carries_the_new_words(compared: tuple[Path, CompareResult]) -> None:
    _, result = compared
    adapter = Path(result.training["finetuned"].adapter)
    assert {"tokenizer.json", "adapter_model.safetensors"} <= {path.name for path in adapter.iterdir()}
    assert list(adapter.glob("vocabulary-*.safetensors"))


def test_every_weight_can_be_trained_with_new_words(folder: Path) -> None:
    overrides = ["train.adapter={kind: full}", "train.learning_rate=0.003"]
    result = lu.compare(load_task(folder / "task.yaml", overrides=overrides))
    assert result.language is not None
    bits = {(loss.system, loss.text): loss.bits_per_byte for loss in result.language.losses}
    assert bits["finetuned", "domain"] < bits["base", "domain"]
    from transformers import AutoModelForCausalLM, AutoTokenizer

    saved = result.training["finetuned"].adapter
    model = AutoModelForCausalLM.from_pretrained(saved)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    assert model.config.vocab_size == model.get_input_embeddings().weight.shape[0] == len(tokenizer)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.tokens_per_step=1000000"], "smaller than one pack"),
        (["train.rows_per_step=5000"], "a step takes 5000 rows"),
        (["train.passages=2"], "no prompt to put passages into"),
        (["compare.systems=[base, prompt]"], "prompt writes answers"),
        (["data.test=null"], "names no test text"),
        (["train.vocabulary={tokens: [please]}"], "has all of these tokens already"),
    ],
)
def test_bad_input_is_told_in_a_sentence(folder: Path, overrides: list[str], words: str) -> None:
    task = load_task(folder / "task.yaml", overrides=overrides)
    with pytest.raises((BadInput, Refused), match=words):
        lu.compare(task)


def test_a_weighted_mixture_serves_every_objective(tmp_path: Path, tiny_model: Path) -> None:
    """sft: half of a source now, the other half in the next epoch, and a second source as a share."""
    from tests.verbs.conftest import rows

    write_jsonl(tmp_path / "a.jsonl", rows("a", 20, 1))
    write_jsonl(tmp_path / "b.jsonl", rows("b", 20, 2))
    (tmp_path / "task.yaml").write_text(
        f"""name: mixed
model: {tiny_model}
data: {{train: [{{source: a.jsonl}}, {{source: b.jsonl, weight: 0.5}}]}}
train: {{epochs: 2, rows_per_step: 10, precision: fp32, adapter: {{rank: 4}}}}
"""
    )
    result = lu.train(tmp_path / "task.yaml")
    assert (result.rows, result.steps) == (40, 6), "30 rows an epoch"
    assert result.epochs == 2.0


def losses(result: TrainResult) -> list[tuple[int, float, float]]:
    return [(record.step, record.loss, record.grad_norm) for record in result.history]


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
