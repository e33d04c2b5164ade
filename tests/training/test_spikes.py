"""What is a spike by NumPy's medians; and what skip, stop and ignore do with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import tiny_model, tiny_rows, tiny_run, tiny_spec
from torch import Tensor, nn

from luthier.ground.errors import Refused
from luthier.ground.results import StepRecord
from luthier.ground.spec import TrainSpec
from luthier.objectives.base import ObjectiveContext
from luthier.objectives.sft import SupervisedFinetuning
from luthier.rows.types import Encoded, Pack
from luthier.training.checkpoint import TENSORS, folder_of, saved_steps
from luthier.training.spikes import FEWEST, MOST_SKIPPED, ceiling_of


def _record(loss: float, norm: float, skipped: Any = "") -> StepRecord:
    counts: dict[str, Any] = {"tokens": 1, "target_tokens": 1, "weight": 1.0, "seconds": 0.0}
    return StepRecord(step=1, learning_rate=1.0, loss=loss, grad_norm=norm, skipped=skipped, **counts)


def test_the_ceiling_agrees_with_numpy() -> None:
    generator = np.random.default_rng(0)
    losses, norms = generator.lognormal(size=80), generator.lognormal(size=80)
    history = [_record(loss, norm) for loss, norm in zip(losses, norms, strict=True)]
    history.insert(60, _record(1e9, 1e9, "spike"))
    ceiling = ceiling_of(history, TrainSpec(spike_factor=6))
    for values, most in ((losses[-50:], ceiling.loss), (norms[-50:], ceiling.grad_norm)):  # type: ignore[union-attr]
        middle = np.median(values)
        assert most == pytest.approx(middle + 6 * 1.4826 * np.median(np.abs(values - middle)))


def test_calm_and_short_histories_make_no_spikes() -> None:
    assert ceiling_of([_record(1.0, 1.0)] * (FEWEST - 1), TrainSpec()) is None
    ceiling = ceiling_of([_record(2.0, 1.0)] * FEWEST, TrainSpec(spike_factor=10))
    assert ceiling is not None and ceiling.loss == pytest.approx(2.4) and ceiling.fault(2.3, 1.1) is None
    assert "gradient norm 1.3 " in (ceiling.fault(2.3, 1.3) or "")


class _Spiky(SupervisedFinetuning):
    """Rows that hold the token 29 count a thousand times."""

    def __init__(self) -> None:
        super().__init__(ObjectiveContext(None))

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        loss, count = super().loss(model, pack)
        return loss * (1000.0 if 29 in pack.ids_T else 1.0), count


def _rows(*bad: int) -> list[Encoded]:
    rows = [Encoded(row.ids_T % 29, row.target_T, row.place) for row in tiny_rows(30)]
    for number in bad:
        rows[number].ids_T[-1] = 29
    return rows


def _run(run: Path, on_spike: str, bad: tuple[int, ...] = (4,), **more: Any) -> Any:
    spec = tiny_spec(on_spike=on_spike, rows_per_step=1, epochs=2, save_every=1, keep=100, learning_rate=1e-3)
    rows = _rows(*bad)
    return tiny_run(run, spec, train=rows, dev=[], objective=_Spiky(), pack_tokens=99, **more), rows


def test_skip_changes_nothing_but_the_count(tmp_path: Path) -> None:
    told: list[Any] = []
    outcome, rows = _run(tmp_path, "skip", tell=told.append)
    skipped = [record.step for record in outcome.history if record.skipped]
    assert skipped and len(outcome.history) == outcome.steps == 60
    before, after = (folder_of(tmp_path, skipped[0] - back) / TENSORS for back in (1, 0))
    assert _weights(before) == _weights(after)
    spikes = [event for event in told if event.get("what") == "spike"]
    assert [event["step"] for event in spikes] == skipped and spikes[0]["rows"] == [rows[4].place]
    assert outcome.history[skipped[0]].learning_rate != outcome.history[skipped[0] - 1].learning_rate


def test_a_resumed_run_skips_alike(tmp_path: Path) -> None:
    whole, _ = _run(tmp_path / "whole", "skip", bad=(4, 11))
    _run(tmp_path / "run", "skip", bad=(4, 11), deadline_s=0.0)
    resumed, _ = _run(tmp_path / "run", "skip", bad=(4, 11), resume=True)
    assert [record.skipped for record in resumed.history] == [record.skipped for record in whole.history]
    last = [(tmp_path / name / "step-000060" / TENSORS).read_bytes() for name in ("run", "whole")]
    assert last[0] == last[1]


def test_stop_keeps_the_state_before(tmp_path: Path) -> None:
    with pytest.raises(
        Refused, match=r"step \d+: the loss .* far above .*its rows are train.jsonl:5; the last good"
    ) as at:
        _run(tmp_path, "stop")
    failed = int(str(at.value).split("step ")[1].split(":")[0])
    assert max(saved_steps(tmp_path)) == failed - 1


def test_ignore_takes_the_step_and_says_so(tmp_path: Path) -> None:
    told: list[Any] = []
    outcome, _ = _run(tmp_path, "ignore", tell=told.append)
    assert not any(record.skipped for record in outcome.history)
    assert any("on_spike: skip would leave it out" in event.get("text", "") for event in told)


def test_a_row_of_spikes_is_none(tmp_path: Path) -> None:
    """From some step on every loss is a thousand times as large: skipping for ever would be no training."""

    class _Later(_Spiky):
        seen = 0

        def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
            self.seen += 1
            loss, count = super().loss(model, pack)
            return loss * (1000.0 if self.seen > 15 else 1.0), count

    spec = tiny_spec(on_spike="skip", rows_per_step=1, epochs=2)
    with pytest.raises(Refused, match=f"{MOST_SKIPPED} steps in a row were skipped"):
        tiny_run(tmp_path, spec, train=_rows(), dev=[], objective=_Later(), pack_tokens=99)


def _weights(file: Path) -> dict[str, bytes]:
    from safetensors.torch import load_file

    return {name: t.numpy().tobytes() for name, t in load_file(file).items() if name.startswith(("weight/", "exp_avg"))}


def test_the_model_is_not_even_touched_by_a_skipped_step() -> None:
    from luthier.rows.packing import one_pack
    from luthier.training.spikes import Ceiling
    from luthier.training.step import TorchStep

    model = tiny_model()
    step = TorchStep(model, _Spiky(), dict(model.named_parameters()), tiny_spec(on_spike="skip"))
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    outcome = step.run([one_pack(_rows(0)[:1])], 1e-2, Ceiling(1.0, 1.0))
    assert outcome.skipped == "spike" and all(torch.equal(before[n], w) for n, w in model.named_parameters())
    assert not [name for name in step.tensors() if name.startswith("exp_avg")]
