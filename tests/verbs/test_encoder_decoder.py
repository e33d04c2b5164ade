"""Supervised finetuning of encoder-decoders from end to end on tiny models: check, plan, train, resume, compare."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

import luthier as lu
from luthier.ground.results import CompareResult
from models.seq2seq_models import tiny_seq2seq_folder

TASK = """name: shout
model: model
data: {train: train.jsonl, dev: dev.jsonl, test: test.jsonl}
instruction: Shout.
metric: gleu
generation: {max_new_tokens: 6, precision: fp32}
prompt: {examples: [0, 1], dev_items: 3}
train: {epochs: 3, tokens_per_step: 256, save_every: 3, learning_rate: 0.01, adapter: {rank: 4, alpha: 8}}
"""
FLOAT32 = ["train.precision=fp32", "train.base=fp32"]


def make_task(folder: Path, family: str) -> Path:
    folder.mkdir(exist_ok=True)
    tiny_seq2seq_folder(folder / "model", family)
    for split, count, seed in (("train", 24, 1), ("dev", 6, 2), ("test", 8, 3)):
        chance = random.Random(seed)
        lines = []
        for number in range(count):
            words = " ".join(chance.choice(["red", "blue", "cat", "dog"]) for _ in range(3))
            row = {"id": f"{split}{number}", "prompt": f"{words} {seed}{number}", "completion": words.upper()}
            lines.append(json.dumps(row) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines))
    (folder / "task.yaml").write_text(TASK)
    return folder / "task.yaml"


@pytest.fixture(scope="module", params=["t5", "flan", "mt5", "bart"])
def compared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompareResult]:
    path = make_task(tmp_path_factory.mktemp("task") / "task", request.param)
    return path, lu.compare(lu.load_task(path, FLOAT32))


def test_base_prompt_and_finetuned_are_compared(compared: tuple[Path, CompareResult]) -> None:
    path, result = compared
    assert [system.name for system in result.systems] == ["base", "prompt", "finetuned"]
    assert all(system.n_failed == 0 for system in result.systems)
    trained = result.training["finetuned"]
    assert trained.dev_loss is not None and trained.target_tokens < trained.tokens
    first, last = trained.history[0].loss, trained.history[-1].loss
    assert last < first
    page = lu.report(path, run=result.run, out=path.parent / "page.html")
    assert Path(page.page).stat().st_size > 10_000


def test_the_check_shows_both_sides(compared: tuple[Path, CompareResult]) -> None:
    sheet = lu.check(compared[0])
    assert sheet.ok and sheet.end_token_trained
    read, _start, written = sheet.views[0].segments
    assert read.text.startswith("Shout.") and not read.trained
    assert written.text.endswith("</s>") and written.trained
    assert sheet.template.startswith("source text")


def test_the_plan_traces_the_real_step(compared: tuple[Path, CompareResult]) -> None:
    plan = lu.plan(compared[0])
    assert plan.fits and plan.terms.adapters_bytes > 0 and plan.terms.activations_bytes > 0


@pytest.mark.parametrize(
    ("family", "settings"),
    [("t5", []), ("bart", ["train.adapter={kind: full}"]), ("flan", ["train.checkpointing=full", *FLOAT32])],
)
def test_a_resumed_run_is_the_undisturbed_one(tmp_path: Path, family: str, settings: list[str]) -> None:
    task = lu.load_task(make_task(tmp_path, family), ["train.max_steps=6", *settings])
    lu.train(task, out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "step-000006")
    (tmp_path / "cut" / "report.json").unlink()
    again = lu.train(task, out=tmp_path / "cut", resume=True)
    assert again.steps == 6
    ends = [sorted((tmp_path / name / "step-000006" / "adapter").glob("*.safetensors")) for name in ("whole", "cut")]
    assert ends[0] and all(a.read_bytes() == b.read_bytes() for a, b in zip(*ends, strict=True))


def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    task = lu.load_task(make_task(tmp_path, "t5"), ["train.max_steps=3", "train.pack_tokens=96", *FLOAT32])
    one, two = lu.train(task), lu.train(task, procs=2)
    for a, b in zip(one.history, two.history, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-4)


def test_wrong_combinations_are_one_sentence(tmp_path: Path) -> None:
    path = make_task(tmp_path, "t5")
    with pytest.raises(lu.BadInput, match=r"train.prompt_loss_weight.*the encoder reads the prompt"):
        lu.check(lu.load_task(path, ["train.prompt_loss_weight=0.1"]))
    with pytest.raises(lu.BadInput, match="encoder-decoder"):
        lu.train(lu.load_task(path, ["train.objective=pretrain"]))
    text = json.dumps({"id": "raw", "text": "only text"}) + "\n"
    with (path.parent / "train.jsonl").open("a") as stream:
        stream.write(text)
    sheet = lu.check(path)
    assert not sheet.ok
    assert "raw text has no answer for the decoder" in sheet.faults[0].message
