"""`luthier train` on a quantised base: the record says so, the adapter serves the plain base, `full` is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import luthier as lu
from luthier.adapters.base import load_adapter
from luthier.ground.errors import BadInput
from luthier.ground.task import load_task
from luthier.models.find import find_model
from luthier.models.load import load_model


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_task_is_trained_on_a_quantised_base(kind: str, task_folder: Path, tiny_model: Path) -> None:
    events: list[dict[str, object]] = []
    plain = lu.train(task_folder / "task.yaml")
    result = lu.train(load_task(task_folder / "task.yaml", [f"train.base={kind}"]), tell=events.append)
    assert result.provenance.loaded_as == f"{kind} with float32 beside it"
    assert result.total_parameters == plain.total_parameters and result.steps == plain.steps
    assert [event["name"] for event in events if event["kind"] == "engine"] == ["fast"]
    losses, exact = ([record.loss for record in run.history] for run in (result, plain))
    assert losses != exact and losses == pytest.approx(exact, rel=0.05) and losses[-1] < losses[0]
    facts = json.loads((Path(result.adapter) / "luthier.json").read_text())
    assert facts["base"]["loaded_as"] == result.provenance.loaded_as and facts["base"]["sha256"]
    model = load_model(find_model(str(tiny_model), folder=task_folder), "bf16").model
    assert load_adapter(model, Path(result.adapter)) == "lora"


def test_a_full_finetuning_of_one_is_bad_input(task_folder: Path) -> None:
    with pytest.raises(BadInput, match="kind: full trains the weights that base: nf4 quantises"):
        load_task(task_folder / "task.yaml", ["train.base=nf4", "train.adapter.kind=full"])
