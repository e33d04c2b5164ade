"""Layers in turn: one layer at a time has gradients and state, all get their turn, and a resumed run goes on alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_training import tiny_model, tiny_objective, tiny_rows, tiny_run, tiny_spec, trainable_of

from luthier.adapters.base import get_kind
from luthier.ground.errors import Refused
from luthier.ground.spec import AdapterSpec
from luthier.rows.packing import one_pack
from luthier.training.step import TorchStep


def test_each_turn_changes_one_layer_and_keeps_its_state_only() -> None:
    model = tiny_model()
    step = TorchStep(model, tiny_objective(), trainable_of(model), tiny_spec(layers_in_turn=2))
    seen = []
    for _ in range(8):
        before = {name: weight.clone() for name, weight in model.named_parameters()}
        step.run([one_pack(tiny_rows(4))], 1e-2)
        changed = {
            name.split(".")[2] for name, weight in model.named_parameters() if not torch.equal(weight, before[name])
        }
        states = {name.split("/")[1].split(".")[2] for name in step.tensors() if name.startswith("exp_avg/")}
        assert len(changed) == 1 and changed == states
        seen += changed
    pairs = [seen[at : at + 2] for at in range(0, 8, 2)]
    assert all(first == second for first, second in pairs)
    assert {pairs[0][0], pairs[1][0]} == {pairs[2][0], pairs[3][0]} == {"0", "1"}


@pytest.mark.parametrize("in_backward", [False, True])
def test_a_resumed_run_takes_turns_alike(tmp_path: Path, in_backward: bool) -> None:
    spec = tiny_spec(layers_in_turn=3, max_grad_norm=None, optimizer_in_backward=in_backward)
    whole = tiny_run(tmp_path / "whole", spec, dropout=0.1, dev=[])
    model = tiny_model(0.1)
    tiny_run(tmp_path / "run", spec, model=model, dev=[], deadline_s=0.0)
    resumed = tiny_run(tmp_path / "run", spec, dropout=0.1, dev=[], resume=True)
    last = [(run.adapter.parent / "training.safetensors").read_bytes() for run in (whole, resumed)]
    assert last[0] == last[1] and whole.history[-1].loss < whole.history[0].loss


def test_masters_of_all_weights_are_refused() -> None:
    model, kind, spec = tiny_model().bfloat16(), get_kind("full"), AdapterSpec(kind="full")
    kind.inject(model, spec, seed=0)
    try:
        with pytest.raises(Refused, match="masters: none"):
            TorchStep(model, tiny_objective(), kind.trainable(model), tiny_spec(layers_in_turn=2))
    finally:
        kind.remove(model)
