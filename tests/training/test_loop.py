"""The loop: golden losses, evaluations, stopping, saving, resuming, refusing, and the odd settings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import tiny_model, tiny_rows, tiny_run, tiny_spec
from torch import Tensor, nn

from luthier.ground.errors import BadInput, Interrupted, Refused
from luthier.ground.locks import folder_lock
from luthier.objectives.base import ObjectiveContext
from luthier.objectives.sft import SupervisedFinetuning
from luthier.rows.types import Encoded, Pack
from luthier.training.batches import plan_steps
from luthier.training.checkpoint import TENSORS, folder_of, saved_steps
from luthier.training.progress import TrainOutcome

GOLDEN = (3.7557750701904298, 3.6631591796875, 3.7163035392761232, 3.525275882921721, 3.7640074561623966,
          3.2421042498420265, 3.0357988530939277, 3.4505996704101562, 3.3253657817840576)  # fmt: skip


def test_golden_losses(tmp_path: Path) -> None:
    """The losses that this very run had when it was written down, float32 on a CPU."""
    outcome = tiny_run(tmp_path, tiny_spec(epochs=2))
    assert [record.loss for record in outcome.history] == pytest.approx(GOLDEN, rel=1e-6)


def test_the_outcome_tells_what_happened(tmp_path: Path) -> None:
    rows, events = tiny_rows(16), []
    outcome = tiny_run(tmp_path, tiny_spec(), train=rows, tell=events.append)
    steps = [event for event in events if event["kind"] == "step"]
    evals = [event for event in events if event["kind"] == "eval"]
    saves = [event for event in events if event["kind"] == "save"]
    assert outcome.steps == len(steps) == steps[-1]["total"] == len(outcome.history)
    assert outcome.tokens == 3 * sum(map(len, rows)) == steps[-1]["tokens"]
    assert outcome.target_tokens == 3 * sum(row.target_tokens for row in rows)
    assert (outcome.epochs, outcome.rows, outcome.stopped) == (3.0, 16, "finished")
    assert len(evals) == len(outcome.evals) == 3, "once an epoch"
    best = min(outcome.evals, key=lambda record: record.dev_loss or 0)
    assert (outcome.best_step, outcome.dev_loss) == (best.step, best.dev_loss)
    assert outcome.history[0].loss > outcome.history[-1].loss
    last_epoch = outcome.history[2 * len(steps) // 3 :]
    assert min(r.loss for r in last_epoch) <= outcome.train_loss <= max(r.loss for r in last_epoch)
    assert outcome.adapter == folder_of(tmp_path, outcome.best_step) / "adapter"
    assert outcome.adapter_bytes == (outcome.adapter / "weights.safetensors").stat().st_size
    assert outcome.peak_bytes > 0 and outcome.tokens_per_s > 0 and outcome.seconds > 0
    assert outcome.trainable_parameters == outcome.total_parameters == sum(p.numel() for p in tiny_model().parameters())
    assert {"learning_rate", "grad_norm", "tokens_per_s", "memory_bytes", "eta_s", "loss"} <= steps[0].keys()
    assert steps[-1]["eta_s"] == 0
    assert saves[-1]["path"] == str(folder_of(tmp_path, outcome.steps))
    assert set(outcome.facts()) >= {"adapter", "history", "evals", "best_step"}


def test_the_model_is_left_with_the_best_weights(tmp_path: Path) -> None:
    scores = iter([0.1, 0.9, 0.5])
    model = tiny_model()
    outcome = tiny_run(tmp_path, tiny_spec(keep=1), model=model, score_dev=lambda: next(scores), dev=[])
    assert [record.metric for record in outcome.evals] == [0.1, 0.9, 0.5]
    assert outcome.best_step == outcome.evals[1].step < outcome.steps
    assert saved_steps(tmp_path) == [outcome.best_step, outcome.steps], "the newest, and the best beside it"
    saved = load_file(outcome.adapter / "weights.safetensors")
    assert all(torch.equal(saved[name], parameter) for name, parameter in model.named_parameters())
    assert not model.training


def test_the_score_chooses_even_against_the_dev_loss(tmp_path: Path) -> None:
    scores = iter([0.9, 0.1, 0.1])
    outcome = tiny_run(tmp_path, tiny_spec(), score_dev=lambda: next(scores))
    assert outcome.best_step == outcome.evals[0].step
    assert outcome.dev_loss == outcome.evals[0].dev_loss


def test_an_evaluation_does_not_change_what_training_draws(tmp_path: Path) -> None:
    spec = tiny_spec(epochs=2)
    plain = tiny_run(tmp_path / "a", spec, dropout=0.3, dev=[])
    watched = tiny_run(tmp_path / "b", spec, dropout=0.3, dev=[], score_dev=lambda: float(torch.rand(())))
    assert [record.loss for record in plain.history] == [record.loss for record in watched.history]


@pytest.mark.parametrize(("patience", "steps"), [(1, 2), (2, 3), (None, 6)])
def test_patience_stops_after_so_many_worse_evaluations(tmp_path: Path, patience: int | None, steps: int) -> None:
    spec = tiny_spec(epochs=50, max_steps=6, eval_every=1, patience=patience)
    scores = iter([0.5, 0.4, 0.5, 0.3, 0.2, 0.1])
    outcome = tiny_run(tmp_path, spec, score_dev=lambda: next(scores), dev=[])
    assert outcome.steps == steps and outcome.best_step == 1
    assert outcome.stopped == ("patience" if patience else "max_steps")


def test_a_deadline_stops_saves_and_can_be_continued(tmp_path: Path) -> None:
    first = tiny_run(tmp_path, tiny_spec(), deadline_s=0.0)
    assert (first.stopped, first.steps, len(first.evals)) == ("time", 1, 1)
    rest = tiny_run(tmp_path, tiny_spec(), resume=True)
    assert rest.stopped == "finished" and rest.steps > 1


def _interrupted(run: Path, at: int, number: int, times: int = 1) -> Any:
    def tell(event: Any) -> None:
        if event["kind"] == "step" and event["step"] == at:
            for _ in range(times):
                os.kill(os.getpid(), number)

    return tiny_run(run, tiny_spec(), dropout=0.2, tell=tell, resume_command="luthier train t --resume --out r")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("at", [1, 7])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path, number: int, code: int, at: int) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match=r"after step .* of 14, which is saved; continue with: luthier train") as stop:
        _interrupted(tmp_path / "run", at, number)
    assert stop.value.exit_code == code
    assert saved_steps(tmp_path / "run")[-1] == at
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    resumed = tiny_run(tmp_path / "run", tiny_spec(), dropout=0.2, resume=True)
    _assert_equal_runs(resumed, tiny_run(tmp_path / "whole", tiny_spec(), dropout=0.2))


def test_the_second_signal_leaves_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tmp_path, 3, signal.SIGINT, times=2)
    assert saved_steps(tmp_path) == [] and not list(tmp_path.glob(".draft*"))


def test_resume_begins_an_empty_run_and_returns_an_ended_one(tmp_path: Path) -> None:
    whole = tiny_run(tmp_path, tiny_spec(), resume=True)
    again = tiny_run(tmp_path, tiny_spec(), resume=True)
    assert again.history == whole.history and again.evals == whole.evals
    assert (again.stopped, again.best_step, again.seconds) == (whole.stopped, whole.best_step, whole.seconds)


def test_a_run_is_not_begun_over_another(tmp_path: Path) -> None:
    tiny_run(tmp_path, tiny_spec(max_steps=1))
    with pytest.raises(BadInput, match="holds the checkpoints of a run; add --resume"):
        tiny_run(tmp_path, tiny_spec(max_steps=1))


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"spec": tiny_spec(learning_rate=0.5)}, r"train.learning_rate was 0.01 and is 0.5"),
        ({"spec": tiny_spec(seed=3)}, r"train.seed was 0 and is 3"),
        ({"train": tiny_rows(16, seed=1)}, r'data.train was "16 rows, \w+" and is "16 rows'),
        ({"train": tiny_rows(17)}, r'data.train was "16 rows, \w+" and is "17 rows'),
        ({"dev": []}, r'data.dev was "4 rows'),
        ({"fingerprint": {"model": "b"}}, r'model was "a" and is "b"'),
        ({"fingerprint": {}}, r'model was "a" and is absent'),
        ({"pack_tokens": 99}, r"pack_tokens was 24 and is 99"),
    ],
)
def test_resuming_something_else_is_refused_with_the_difference(tmp_path: Path, changes: Any, phrase: str) -> None:
    tiny_run(tmp_path, tiny_spec(), fingerprint={"model": "a"}, deadline_s=0.0)
    more = {"spec": tiny_spec(), "fingerprint": {"model": "a"}, **changes}
    with pytest.raises(Refused, match=phrase):
        tiny_run(tmp_path, more.pop("spec"), resume=True, **more)
    assert saved_steps(tmp_path) == [1]


def test_what_is_kept_on_disk_may_change_between_parts(tmp_path: Path) -> None:
    tiny_run(tmp_path, tiny_spec(save_every=1, keep=3), deadline_s=0.0)
    assert tiny_run(tmp_path, tiny_spec(save_every=5, keep=1), resume=True).stopped == "finished"


def test_a_damaged_checkpoint_costs_steps_but_not_the_result(tmp_path: Path) -> None:
    spec, told = tiny_spec(save_every=1, keep=3), []
    with pytest.raises(Interrupted):
        tiny_run(tmp_path / "run", spec, dropout=0.2, tell=_stop_at(8))
    os.truncate(folder_of(tmp_path / "run", 8) / TENSORS, 99)
    resumed = tiny_run(tmp_path / "run", spec, dropout=0.2, resume=True, tell=told.append)
    told = [event for event in told if event["kind"] != "engine"]
    assert "step-000008 is damaged" in told[0]["text"] and told[1]["step"] == 7
    _assert_equal_runs(resumed, tiny_run(tmp_path / "whole", spec, dropout=0.2))


def test_a_damaged_best_checkpoint_is_told_and_not_handed_out(tmp_path: Path) -> None:
    scores, told = iter([0.9, 0.1, 0.1]), []
    tiny_run(tmp_path, tiny_spec(), score_dev=lambda: next(scores), dev=[])
    best = saved_steps(tmp_path)[0]
    os.truncate(folder_of(tmp_path, best) / "adapter" / "weights.safetensors", 9)
    outcome = tiny_run(tmp_path, tiny_spec(), resume=True, dev=[], score_dev=lambda: 0.0, tell=told.append)
    assert outcome.best_step == outcome.steps
    assert any("best checkpoint is damaged" in event.get("text", "") for event in told)


def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, real = tiny_spec(save_every=1, keep=9), os.rename

    def rename(source: Any, target: Any) -> None:
        if str(target).endswith("step-000004"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(BadInput, match=r"step-000004: could not be written \(no space left on device\)"):
        tiny_run(tmp_path / "run", spec, dropout=0.2)
    assert saved_steps(tmp_path / "run") == [1, 2, 3]
    monkeypatch.undo()
    resumed = tiny_run(tmp_path / "run", spec, dropout=0.2, resume=True)
    _assert_equal_runs(resumed, tiny_run(tmp_path / "whole", spec, dropout=0.2))


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from luthier.ground.locks import folder_lock
with folder_lock(Path({str(tmp_path)!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    with _process(script) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BadInput, match=rf"in use by pid {holder.pid}"):
            tiny_run(tmp_path, tiny_spec())
    with folder_lock(tmp_path):
        tiny_run(tmp_path, tiny_spec(max_steps=1))  # who holds the folder may train in it


class _BreaksAt(SupervisedFinetuning):
    """Gives no number from a certain call on."""

    def __init__(self, calls: int) -> None:
        super().__init__(ObjectiveContext(None))
        self._calls = calls

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        loss, count = super().loss(model, pack)
        self._calls -= model.training
        return (loss * float("inf") if self._calls < 0 else loss), count


def test_a_broken_loss_keeps_the_last_good_state(tmp_path: Path) -> None:
    sentence = r"step \d+: the loss of train.jsonl:\d+.* is not finite.*the last good weights are in .*step-0000\d\d"
    with pytest.raises(Refused, match=sentence):
        tiny_run(tmp_path, tiny_spec(), objective=_BreaksAt(6))
    kept = saved_steps(tmp_path)[-1]
    assert 0 < kept < 6
    assert all(tensor.isfinite().all() for tensor in load_file(folder_of(tmp_path, kept) / TENSORS).values())


def test_weights_that_exploded_are_not_saved_as_good(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not finite") as refusal:
        tiny_run(tmp_path, tiny_spec(learning_rate=1e38, warmup=0, epochs=5, save_every=1, max_grad_norm=None))
    for step in saved_steps(tmp_path):
        assert all(tensor.isfinite().all() for tensor in load_file(folder_of(tmp_path, step) / TENSORS).values())
    assert "\n" not in str(refusal.value)


def test_learning_rate_zero_changes_nothing(tmp_path: Path) -> None:
    model = tiny_model()
    outcome = tiny_run(tmp_path, tiny_spec(learning_rate=0.0), model=model)
    assert outcome.stopped == "finished"
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), tiny_model().parameters(), strict=True))


def test_a_warmup_longer_than_the_run_never_reaches_the_peak(tmp_path: Path) -> None:
    outcome = tiny_run(tmp_path, tiny_spec(warmup=1000.0))
    rates = [record.learning_rate for record in outcome.history]
    assert rates == sorted(rates) and rates[-1] < 0.01 * 16 / 1000


def test_one_row_and_no_dev(tmp_path: Path) -> None:
    outcome = tiny_run(tmp_path, tiny_spec(epochs=2), rows=1, dev=[])
    assert (outcome.steps, outcome.dev_loss, outcome.evals) == (2, None, [])
    assert outcome.best_step == 2 and outcome.adapter.is_dir()


def test_nothing_to_learn_is_refused_before_step_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no rows to train on"):
        tiny_run(tmp_path, tiny_spec(), train=[])
    rows = tiny_rows(3)
    rows[1] = Encoded(rows[1].ids_T, rows[1].target_T & False, rows[1].place)
    with pytest.raises(BadInput, match=r"nothing in train.jsonl:2 is a target"):
        tiny_run(tmp_path, tiny_spec(), train=rows)


@pytest.mark.parametrize("every", [1, 4, None])
def test_saving_and_evaluating_at_their_steps(tmp_path: Path, every: int | None) -> None:
    events: list[Any] = []
    outcome = tiny_run(tmp_path, tiny_spec(eval_every=every, keep=99), tell=events.append)
    plan = plan_steps([len(row) for row in tiny_rows(16)], tiny_spec())
    ends = [step for step in range(1, len(plan)) if plan[step - 1].epoch != plan[step].epoch]
    wanted = [*(range(every, outcome.steps, every) if every else ends), outcome.steps]
    assert [event["step"] for event in events if event["kind"] == "eval"] == wanted
    assert [event["step"] for event in events if event["kind"] == "save"] == wanted == saved_steps(tmp_path)


def _stop_at(step: int) -> Any:
    return lambda event: (
        os.kill(os.getpid(), signal.SIGINT) if (event["kind"], event.get("step")) == ("step", step) else None
    )


def _assert_equal_runs(run: TrainOutcome, whole: TrainOutcome) -> None:
    """All that must not depend on interruptions: losses, norms, rates, evaluations, and the last state's bytes."""
    timeless = [record.model_copy(update={"seconds": 0.0}) for record in run.history]
    assert timeless == [record.model_copy(update={"seconds": 0.0}) for record in whole.history]
    assert run.evals == whole.evals and run.best_step == whole.best_step
    folders = [outcome.adapter.parent.parent / f"step-{outcome.steps:06d}" for outcome in (run, whole)]
    for name in (TENSORS, "adapter/weights.safetensors"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def _process(script: str) -> Any:
    return subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_run_that_goes_on_with_other_arithmetic_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, told = tiny_spec(save_every=1), []
    with pytest.raises(Interrupted):
        tiny_run(tmp_path, spec, tell=_stop_at(3))
    monkeypatch.setattr("luthier.training.fingerprint.processor_key", lambda: "another")
    tiny_run(tmp_path, spec, resume=True, tell=told.append)
    assert any("the last bits may differ" in event.get("text", "") and "another" in event["text"] for event in told)


def test_checkpointing_may_change_when_a_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        tiny_run(tmp_path / "cut", tiny_spec(save_every=1), tell=_stop_at(3))
    resumed = tiny_run(tmp_path / "cut", tiny_spec(save_every=1, checkpointing="full"), resume=True)
    whole = tiny_run(tmp_path / "whole", tiny_spec(save_every=1))
    assert [record.loss for record in resumed.history] == [record.loss for record in whole.history]
