"""What frozen lower layers give is computed once, kept without a trace, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from luthier.adapters.base import get_kind
from luthier.ground.errors import BadInput, Interrupted
from luthier.ground.spec import AdapterSpec, TrainSpec
from luthier.models.segments import Segments
from luthier.objectives.base import ObjectiveContext
from luthier.objectives.sft import SupervisedFinetuning
from luthier.rows.types import Encoded
from luthier.training.engine.body import Engine, FastBody
from luthier.training.engine.states import FrozenStates
from luthier.training.loop import train_rows
from luthier.training.progress import TrainOutcome
from models.tiny_models import tiny_model

ADAPTER = AdapterSpec(rank=4, layers=1)
SPEC = TrainSpec(precision="fp32", epochs=3, tokens_per_step=100, adapter=ADAPTER, save_every=1)


def _rows(count: int, seed: int) -> list[Encoded]:
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        length = int(generator.integers(8, 30))
        ids = generator.integers(3, 90, length)
        rows.append(Encoded(ids, np.arange(length) >= length - 4, f"train.jsonl:{number}"))
    return rows


def _train(run: Path, spec: TrainSpec = SPEC, **more: object) -> tuple[TrainOutcome, list[str]]:
    model, kind, told = tiny_model("llama"), get_kind("lora"), []
    model.requires_grad_(False)
    kind.inject(model, spec.adapter, seed=0)

    def tell(event: dict[str, object]) -> None:
        told.append(event)
        if more.get("stop_at") == event.get("step") and event["kind"] == "save":
            raise Interrupted("enough", signal_number=2)

    outcome = train_rows(
        model,
        SupervisedFinetuning(ObjectiveContext(None)),  # rows come encoded
        _rows(20, 0),
        _rows(4, 1),
        spec,
        run,
        trainable=kind.trainable(model),
        save_adapter=lambda folder: kind.save(model, folder, spec.adapter, None),
        resume=bool(more.get("resume")),
        tell=tell,
    )
    return outcome, [event["text"] for event in told if event["kind"] == "engine"]


def _losses(outcome: TrainOutcome) -> list[float]:
    return [record.loss for record in outcome.history] + [record.dev_loss or 0.0 for record in outcome.evals]


def test_remembered_states_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered, told = _train(tmp_path / "remembered")
    assert any("the lower 1 layers are frozen: computed once" in text for text in told)
    assert not list((tmp_path / "remembered").glob(".states*")), "the file has no name"
    monkeypatch.setattr(Engine, "remember_frozen", lambda *_: "")
    plain, _ = _train(tmp_path / "plain")
    assert _losses(remembered) == pytest.approx(_losses(plain), rel=1e-6)


def test_the_lower_layers_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, runs = FastBody._lower, []
    monkeypatch.setattr(FastBody, "_lower", lambda self, ids, at, n: runs.append(n) or real(self, ids, at, n))
    _train(tmp_path)
    assert len(runs) == 2, "once to check the body, once for the one pack that holds all rows; never in a step"


def test_a_resumed_run_is_bit_equal(tmp_path: Path) -> None:
    whole, _ = _train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        _train(tmp_path / "cut", stop_at=4)
    resumed, _ = _train(tmp_path / "cut", resume=True)
    assert _losses(resumed) == _losses(whole)


def test_nothing_is_remembered_for_one_epoch_or_when_all_layers_train(tmp_path: Path) -> None:
    assert len(_train(tmp_path / "a", SPEC.model_copy(update={"epochs": 1.0}))[1]) == 1
    assert len(_train(tmp_path / "b", SPEC.model_copy(update={"adapter": AdapterSpec(rank=4)}))[1]) == 1


def test_a_full_disk_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    _, told = _train(tmp_path)
    assert "No space left on device" in told[1]


def test_states_of_shared_beginnings_are_put_together(tmp_path: Path) -> None:
    rows = [np.array([1, 2, 3]), np.array([1, 2, 9, 9])]
    states = FrozenStates(tmp_path, rows, width=2, dtype=torch.float32)
    states.put(rows[0], torch.tensor([[1.0, 0], [2, 0], [3, 0]]))
    states.put(rows[1], torch.tensor([[1.0, 0], [2, 0], [7, 0], [8, 0]]))
    ids_T = torch.tensor([1, 2, 3, 9, 9, 0, 0])
    found = states.gather(ids_T, Segments((2, 1, 2, 2), (-1, 0, 0, -1)))
    assert found is not None and found[:, 0].tolist() == [1, 2, 3, 7, 8, 0, 0]
    assert states.gather(torch.tensor([4, 4]), Segments((2,))) is None


def test_more_layers_than_there_are_is_one_sentence() -> None:
    with pytest.raises(BadInput, match=r"train\.adapter\.layers: the model has 2 decoder layers, not 5"):
        get_kind("lora").inject(tiny_model("llama"), AdapterSpec(layers=5), seed=0)
