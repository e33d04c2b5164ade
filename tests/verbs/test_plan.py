"""`luthier plan` on a tiny task and free-hand: what is told, what is chosen, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import luthier as lu
from luthier.adapters.base import ADAPTERS
from luthier.ground.plan_result import PlanResult
from luthier.ground.results import PromptArm, PromptResult
from luthier.ground.task import Task, load_task, train_values
from luthier.machine.limits import memory_total_bytes
from luthier.planning.choose import applied
from luthier.planning.levers import written_keys
from luthier.verbs.encoding import encoded_rows
from luthier.verbs.plan import Hardware, plan
from luthier.verbs.runs import open_run
from luthier.verbs.workbench import Workbench
from tests.verbs.steady import BASELINE, make_steady

ONE_STEP = "train.tokens_per_step=4096"  # 32 rows of about 67 tokens: packs large enough to be worth cutting


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    make_steady(monkeypatch)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[tuple[Path, PlanResult]]:
    """One plan without a budget, shared by the tests that only read it."""
    from tests.verbs.conftest import task_folder

    folder = task_folder.__wrapped__(tmp_path_factory.mktemp("task"), tiny_model)
    with pytest.MonkeyPatch.context() as patch:
        make_steady(patch)
        yield folder, plan(load_task(folder / "task.yaml", [ONE_STEP]))


def with_budget(folder: Path, peak_bytes: int, *more: str) -> Task:
    return load_task(folder / "task.yaml", [ONE_STEP, f"budget.memory={peak_bytes / 1e6:.6f}MB", *more])


# -- a task --------------------------------------------------------------------------------------------------------


def test_the_terms_sum_to_the_peak_and_every_term_with_bytes_has_a_note(planned: tuple[Path, PlanResult]) -> None:
    _, result = planned
    assert sum(result.terms.model_dump().values()) == result.peak_bytes == result.terms.total
    with_bytes = {name.removesuffix("_bytes") for name, value in result.terms.model_dump().items() if value}
    assert {note.term for note in result.notes} == with_bytes >= {"weights", "adapters", "optimizer", "activations"}
    assert result.baseline_bytes == BASELINE < result.terms.overhead_bytes
    assert 0.99 * result.peak_bytes < max(moment.peak_bytes for moment in result.moments) <= result.peak_bytes


def test_the_plan_is_of_the_tasks_own_rows_and_lies_in_its_run(planned: tuple[Path, PlanResult]) -> None:
    folder, result = planned
    assert Path(str(result.run)) == folder / "runs" / "plan-001"
    report = (folder / "runs" / "plan-001" / "report.json").read_text()
    assert PlanResult.model_validate_json(report) == result
    bench = Workbench(load_task(folder / "task.yaml"))
    rows = encoded_rows(bench, _objective(bench), bench.rows("train"), 0, bench.tell)
    lengths = [len(row) for row in rows]
    assert (result.task, result.method, result.seq) == ("orders", "lora", max(lengths))
    assert (result.batch, result.pace.steps) == (len(rows), 2)  # all rows at once, in each of two epochs
    assert result.step_s > 0 and result.total_s == pytest.approx(2 * result.step_s)
    assert result.pace.tokens_per_s == pytest.approx(sum(lengths) / result.step_s)


def test_what_fits_stays_as_it_is_written(planned: tuple[Path, PlanResult]) -> None:
    _, result = planned
    assert (result.fits, result.choice, result.choice_tier) == (True, {}, 0)
    assert result.limit_bytes == memory_total_bytes() and result.limit_source == f"memory of {result.device}"
    assert result.verified and result.measured is None and result.parallel is None
    assert result.concessions and all(each.settings for each in result.concessions)
    assert any(point.chosen for point in result.frontier)


def test_the_limit_is_the_option_before_the_budget_before_the_machine(planned: tuple[Path, PlanResult]) -> None:
    folder, _ = planned
    own = load_task(folder / "task.yaml", ["budget.memory=4GB"])
    by_task = plan(own)
    assert (by_task.limit_bytes, by_task.limit_source, by_task.fits) == (4_000_000_000, "budget.memory", True)
    by_option = plan(own, hardware=Hardware(memory="10MB"))
    assert (by_option.limit_bytes, by_option.limit_source, by_option.fits) == (10_000_000, "--memory", False)
    assert by_option.smallest_bytes is not None and by_option.smallest_bytes > 10_000_000
    assert "does not fit into 10" in by_option.sentence and "smallest" in by_option.sentence


def test_a_budget_below_the_need_changes_only_what_the_task_leaves_open(planned: tuple[Path, PlanResult]) -> None:
    folder, written = planned
    task = with_budget(folder, written.peak_bytes - 2_000_000)
    result = plan(task)
    assert result.fits is True and result.peak_bytes <= written.peak_bytes - 2_000_000
    assert result.choice and result.choice_tier == 1
    assert not set(result.choice) & written_keys(task.spec.train)
    assert all(result.settings.get(key, value) == value for key, value in result.choice.items())
    chosen = applied(task.spec.train, result.choice)
    again = plan(load_task(task.path, [ONE_STEP, *(f"{key}={json.dumps(v)}" for key, v in result.choice.items())]))
    assert again.choice == {} and again.peak_bytes == pytest.approx(result.peak_bytes, abs=500_000)
    assert (chosen.epochs, chosen.learning_rate, chosen.adapter.rank) == (2.0, 0.01, 4)


def test_a_key_that_the_task_sets_stays_while_something_else_fits(planned: tuple[Path, PlanResult]) -> None:
    folder, written = planned
    budget = written.peak_bytes - 2_000_000
    free = plan(with_budget(folder, budget)).choice
    pinned = {key: {"train.checkpointing": "none", "train.pack_tokens": "1536"}[key] for key in free}
    result = plan(with_budget(folder, budget, *(f"{key}={value}" for key, value in pinned.items())))
    assert result.fits is True
    assert result.choice and not set(result.choice) & set(pinned)


def test_break_even_is_told_once_a_prompt_was_chosen(task_folder: Path) -> None:
    task = load_task(task_folder / "task.yaml")
    assert plan(task).break_even is None
    _prompt_run(task, chosen=False)
    assert plan(task).break_even is None
    _prompt_run(task, chosen=True)
    found = plan(task).break_even
    assert found is not None
    bench = Workbench(task)
    rows = encoded_rows(bench, _objective(bench), bench.rows("train"), 0, bench.tell)
    prompts = [len(row) - row.target_tokens for row in rows]
    assert found.prompt_tokens_before == 700.0
    assert found.prompt_tokens_after == pytest.approx(sum(prompts) / len(prompts))


def test_a_task_without_usable_rows_is_one_sentence(task_folder: Path) -> None:
    with pytest.raises(lu.BadInput, match="no rows to plan for"):
        plan(load_task(task_folder / "task.yaml", ["train.max_length=4"]))


def test_measuring_another_machine_is_refused_before_a_run_is_made(task_folder: Path) -> None:
    for hardware in (Hardware(device="H100"), Hardware(devices=2)):
        with pytest.raises(lu.BadInput, match="measures this machine alone"):
            plan(task_folder / "task.yaml", hardware=hardware, measure=True)
    assert not (task_folder / "runs").exists()


def test_a_measured_plan_says_both_numbers(task_folder: Path) -> None:
    result = plan(load_task(task_folder / "task.yaml", [ONE_STEP]), measure=True)
    found = result.measured
    assert found is not None and found.peak_bytes > found.baseline_bytes
    above = result.peak_bytes - result.baseline_bytes
    assert found.predicted_peak_bytes - found.baseline_bytes == above
    assert found.error == pytest.approx(above / (found.peak_bytes - found.baseline_bytes) - 1)
    assert PlanResult.model_validate_json((Path(str(result.run)) / "report.json").read_text()) == result


# -- free-hand -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"hardware": Hardware(device="RTX 9999")}, "RTX 9999"),
        ({"method": "quolra"}, 'there is no method "quolra" (did you mean "qlora"?)'),
        ({"settings": {"optimizer": "adamm"}}, "adamm"),
        ({"settings": {"optimizr": "adamw"}}, "train.optimizr"),
        ({"settings": {"precision": "fp8"}}, "train.precision"),
        ({"settings": {"adapter": 5}}, "train.adapter: this is a mapping"),
        ({"settings": {"adapter": {"kind": "full"}}}, "give --method"),
        ({"settings": {"adapter": {"rank": 0}}}, "train.adapter.rank"),
        ({"method": "full", "settings": {"base": "nf4"}}, "train"),
        ({"hardware": Hardware(memory="lots")}, "lots"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(tiny_model: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(lu.BadInput) as met:
        plan(model=str(tiny_model), seq=16, batch=1, **asked)
    assert said in str(met.value) and "\n" not in str(met.value)


def test_an_unknown_model_or_architecture_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(lu.BadInput, match='there is no model "smolm2-135m-instruct"'):
        plan(model="smolm2-135m-instruct", hardware=Hardware("H100"))
    (tmp_path / "config.json").write_text('{"model_type": "lama"}')
    with pytest.raises(lu.BadInput, match=r'architecture "lama" is unknown to transformers.*llama'):
        plan(model=str(tmp_path / "config.json"), hardware=Hardware("H100"))


def test_a_plan_is_for_a_task_or_for_a_model(tiny_model: Path, task_folder: Path) -> None:
    for asked in ({}, {"task": task_folder / "task.yaml", "model": str(tiny_model)}):
        with pytest.raises(lu.BadInput, match="for a task or for a model"):
            plan(**asked)  # type: ignore[arg-type]  # both or neither, whatever they are
    for more in ({"measure": True}, {"out": task_folder / "out"}):
        with pytest.raises(lu.BadInput, match="need a task"):
            plan(model=str(tiny_model), **more)  # type: ignore[arg-type]  # a flag or a path


def test_qlora_is_lora_on_a_base_of_four_bits(tiny_model: Path) -> None:
    on_h100 = Hardware("H100")
    lora = plan(model=str(tiny_model), method="lora", seq=64, batch=2, hardware=on_h100)
    qlora = plan(model=str(tiny_model), method="qlora", seq=64, batch=2, hardware=on_h100)
    assert (qlora.method, qlora.settings["train.base"], qlora.settings["train.adapter.kind"]) == (
        "qlora",
        "nf4",
        "lora",
    )
    assert "train.base" not in lora.settings
    assert qlora.terms.weights_bytes < lora.terms.weights_bytes
    assert qlora.trainable_parameters == lora.trainable_parameters
    assert (qlora.seq, qlora.batch, qlora.run, qlora.total_s, qlora.cost) == (64, 2, None, None, None)
    assert not qlora.verified and "Unverified" in qlora.warnings[0]
    assert qlora.limit_source == "memory of H100 SXM" and qlora.baseline_bytes > 0


def test_settings_are_keys_of_train(tiny_model: Path) -> None:
    settings = train_values(["train.checkpointing=full", "train.adapter.rank=2", "train.rows_per_step=3"])
    result = plan(model=str(tiny_model), seq=32, batch=2, settings=settings, hardware=Hardware("H100"))
    shown = {"train.checkpointing": "full", "train.adapter.rank": 2, "train.rows_per_step": 3}
    assert {key: result.settings[key] for key in shown} == shown
    assert result.batch == 3
    rank16 = plan(model=str(tiny_model), seq=32, batch=3, hardware=Hardware("H100"))
    assert rank16.trainable_parameters == 8 * result.trainable_parameters


def test_a_plug_ins_adapter_kind_is_a_method(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS._built_in, "twin", ADAPTERS.get("lora"))
    result = plan(model=str(tiny_model), method="twin", seq=16, batch=1, hardware=Hardware("H100"))
    assert (result.method, result.settings["train.adapter.kind"]) == ("twin", "twin")
    assert result.terms.adapters_bytes > 0 and "frozen weights + 16 bytes per trained parameter" in result.rules


def test_several_devices_exchange_and_shards_are_smaller(tiny_model: Path) -> None:
    one, ddp, fsdp = (
        plan(model=str(tiny_model), method="full", seq=32, batch=4, hardware=hardware)
        for hardware in (Hardware("H100"), Hardware("H100", 4, "ddp"), Hardware("H100", 4, "fsdp"))
    )
    assert one.parallel is None and ddp.parallel is not None and fsdp.parallel is not None
    assert (ddp.parallel.devices, ddp.parallel.strategy, fsdp.parallel.strategy) == (4, "ddp", "fsdp")
    assert ddp.parallel.moved_bytes == round(2 * 3 / 4 * 4 * one.trainable_parameters)
    assert ddp.terms.temporary_bytes > one.terms.temporary_bytes
    assert fsdp.terms.optimizer_bytes < one.terms.optimizer_bytes / 3
    assert fsdp.terms.total == fsdp.peak_bytes and not fsdp.verified
    assert "each of 4 x H100" in fsdp.sentence


def test_devices_without_a_link_are_refused(tiny_model: Path) -> None:
    with pytest.raises(lu.BadInput, match="no link between several"):
        plan(model=str(tiny_model), seq=16, batch=4, hardware=Hardware("EPYC 9654", devices=2))


def test_inference_has_a_cache_and_the_textbooks_figure(tiny_model: Path) -> None:
    result = plan(model=str(tiny_model), method="inference", seq=96, batch=5, hardware=Hardware("H100"))
    layers, kv_heads, width = 2, 2, 16
    assert result.terms.kv_cache_bytes == 2 * layers * kv_heads * width * 96 * 5 * 2
    assert result.textbook_bytes == round(1.2 * 2 * result.parameters)
    assert result.terms.gradients_bytes == result.terms.optimizer_bytes == result.terms.adapters_bytes == 0
    assert result.settings == {"precision": "bf16"} and result.choice == {}
    training = plan(model=str(tiny_model), seq=96, batch=5, hardware=Hardware("H100"))
    assert training.textbook_bytes is None and training.terms.kv_cache_bytes == 0


def test_a_device_of_unknown_memory_has_no_limit(tiny_model: Path) -> None:
    result = plan(model=str(tiny_model), seq=16, batch=1, hardware=Hardware("EPYC 9654"))
    assert (result.fits, result.limit_bytes, result.limit_source) == (None, None, "")
    assert "fit" not in result.sentence and not result.verified


@pytest.mark.slow
def test_70b_on_a_card_is_answered_in_seconds_and_in_little_memory(tmp_path: Path) -> None:
    facts = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 8192,
        "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
        "max_position_embeddings": 131072, "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(facts))
    code = (
        "import json, resource, sys; import luthier as lu; from luthier.verbs.plan import Hardware\n"
        "plan = lu.plan(model=sys.argv[1], method='qlora', seq=2048, batch=8, hardware=Hardware('H100'),"
        " settings={'checkpointing': 'full'})\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "print(json.dumps([plan.peak_bytes, plan.fits, plan.parameters, plan.seconds, peak]))"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "config.json")]
    began = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    wall_s = time.perf_counter() - began
    peak_bytes, fits, parameters, seconds, resident = json.loads(done.stdout.splitlines()[-1])
    assert 70e9 < parameters < 71e9 and 39e9 < peak_bytes < 80e9 and fits is True
    assert seconds < 10 and wall_s < 20  # with the imports, on a machine that others use too
    assert resident < 4e9


# -- helpers -------------------------------------------------------------------------------------------------------


def _objective(bench: Workbench) -> Any:

    return bench.objective


def _prompt_run(task: Task, chosen: bool) -> None:
    arm = {"instruction": "", "examples": 1, "score": 0.5, "graded": 0.5, "interval": (0.0, 1.0), "n": 4}
    arms = [PromptArm(**arm, prompt_tokens=90.0), PromptArm(**arm, prompt_tokens=700.0, chosen=chosen)]
    result = PromptResult(instruction="", example_ids=[], arms=arms, dev_items=4, seconds=1.0, key="k")
    with open_run(task, "prompt", None, lambda event: None) as run:
        run.finish(result)
