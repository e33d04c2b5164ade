"""A task with a longer window, on all its ways: check, plan, train, compare, report; and what refuses it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.adapters.base import load_adapter
from luthier.ground.errors import BadInput
from luthier.ground.spec import ContextSpec
from luthier.ground.task import load_task
from luthier.models.context import CONTEXT, WEIGHTS, ContextExtension
from luthier.verbs.check import check
from luthier.verbs.compare import compare
from luthier.verbs.plan import plan
from luthier.verbs.report import report
from luthier.verbs.train import train

CONTEXT_SPEC = "context: {factor: 2, trials: 1, depths: 2, lengths: [256, 600, 1000]}\n"
FAST = ("train.max_steps=2", "train.max_length=1024", "data.sample.test=3", "data.sample.dev=3", "documents=null",
        "compare.systems=[base, finetuned]")  # fmt: skip


@pytest.fixture
def longer(task_folder: Path) -> Path:
    """The task of the other tests, with a window of 1,024 tokens instead of 512."""
    file = task_folder / "task.yaml"
    file.write_text(file.read_text() + CONTEXT_SPEC)
    write_texts(task_folder / "general.jsonl", "lamp", 3)
    return file


def write_texts(path: Path, thing: str, count: int) -> None:
    """Texts that are longer than the old window, none like another."""
    texts = [{"text": " ".join(f"please send {n} red {thing} {n * k % 97}" for k in range(70))} for n in range(count)]
    path.write_text("".join(json.dumps(text) + "\n" for text in texts))


def run(file: Path, *overrides: str) -> Any:
    return load_task(file, [*FAST, "data.general=general.jsonl", *overrides])


@pytest.mark.parametrize("shifted", ["false", "true"])
def test_lora_with_a_longer_window(longer: Path, shifted: str) -> None:
    task = run(longer, f"context.shifted={shifted}")
    assert check(task).ok
    result = compare(task)
    adapter = Path(result.training["finetuned"].adapter)
    assert (adapter / CONTEXT).is_file()
    assert (adapter / WEIGHTS).is_file() is (shifted == "true")
    found = result.context
    assert found is not None
    assert (found.old_window, found.new_window) == (512, 1024)
    systems = ["base", "base, positions scaled", "finetuned"]
    assert [position.system for position in found.positions] == systems
    assert list(found.short_loss) == systems
    assert found.short_loss["base"] != found.short_loss["base, positions scaled"]
    assert {(cell.length, cell.depth) for cell in found.cells} == {(n, d) for n in (256, 600, 1000) for d in (0.0, 1.0)}
    assert "Beyond the old window of 512 tokens and up to 1,024" in found.sentence
    page = Path(report(task).page).read_text()
    assert '<section id="context">' in page


def test_a_model_that_was_trained_whole_loads_with_its_window_in_transformers(longer: Path) -> None:
    task = run(longer, "train.adapter.kind=full", "train.adapter.rank=8", "train.objective=sft")
    result = train(task)
    model = AutoModelForCausalLM.from_pretrained(result.adapter)
    assert model.config.max_position_embeddings == 1024
    assert model.config.rope_parameters["rope_type"] == "yarn"
    with torch.no_grad():
        assert torch.isfinite(model(torch.arange(700)[None] % 300).logits).all()
    as_base = load_task(longer, [*FAST, f"model={result.adapter}", "context.factor=2"])
    assert check(as_base).ok  # a scaled base is scaled on: 2,048


def test_an_adapter_loads_in_peft_with_the_config_beside_it(longer: Path) -> None:
    result = train(run(longer))
    adapter, folder = Path(result.adapter), load_task(longer).spec.model
    config = AutoConfig.from_pretrained(folder)
    config.update(json.loads((adapter / CONTEXT).read_text())["config"])
    base = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, str(adapter)).eval()
    ours = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ContextExtension(ContextSpec(factor=2)).load(ours, adapter)
    load_adapter(ours, adapter)
    ids = torch.arange(900)[None] % 300
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-4, rtol=1e-4)


def test_raw_text_with_a_longer_window(longer: Path) -> None:
    write_texts(longer.parent / "texts.jsonl", "bowl", 8)
    write_texts(longer.parent / "held_out.jsonl", "vase", 3)
    task = run(
        longer, "train.objective=pretrain", "data.train=texts.jsonl", "data.dev=null", "data.test=held_out.jsonl",
        "instruction=''", "train.max_length=1000",
    )  # fmt: skip
    result = compare(task)
    assert result.context is not None and result.context.positions[2].edges[-1] > 512
    assert result.context.cells


def test_resume_goes_on_with_the_longer_window(longer: Path, tmp_path: Path) -> None:
    task = run(longer, "train.max_steps=4", "train.save_every=2", "train.eval_every=2")
    whole = train(task, out=tmp_path / "run")
    weights = (Path(whole.adapter) / "adapter_model.safetensors").read_bytes()
    assert whole.best_step == 4
    shutil.rmtree(tmp_path / "run" / "step-000004")
    (tmp_path / "run" / "report.json").unlink()
    again = train(task, out=tmp_path / "run", resume=True)
    assert (again.steps, again.dev_loss) == (4, whole.dev_loss)
    assert (Path(again.adapter) / "adapter_model.safetensors").read_bytes() == weights
    assert (Path(again.adapter) / CONTEXT).is_file()


def test_plan_follows_the_longer_rows(longer: Path) -> None:
    found = plan(run(longer))
    assert found.peak_bytes > 0 and found.terms.activations_bytes > 0


def test_rows_beyond_the_scaled_window_are_refused_by_every_verb(longer: Path) -> None:
    task = run(longer, "train.max_length=1025")
    for verb in (check, train, plan, compare):
        with pytest.raises(BadInput, match="rows of 1,025 tokens reach beyond the scaled window of 1,024"):
            verb(task)
