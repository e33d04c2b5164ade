"""Weights that the adapter holds bit for bit are written once, and read back from there."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny_training import saver, tiny_model

from luthier.training.checkpoint import ADAPTER, TENSORS, Checkpoint, save_checkpoint
from luthier.training.twins import with_twins, without_twins


def test_a_checkpoint_holds_each_weight_once(tmp_path: Path) -> None:
    model = tiny_model()
    weights = {f"weight/{name}": weight.detach() for name, weight in model.named_parameters()}
    tensors = {**weights, "exp_avg/lm_head.weight": torch.ones(2)}
    path = save_checkpoint(tmp_path, 1, tensors, {}, saver(model))
    assert set(load_file(path / TENSORS)) == {"exp_avg/lm_head.weight", "random/cpu"}
    found = Checkpoint(path, 1, {}).tensors()
    assert found.keys() == {*tensors, "random/cpu"}
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert (path / ADAPTER).is_dir()


def test_only_what_is_equal_to_the_bit_is_left_out(tmp_path: Path) -> None:
    saved = {"a": torch.tensor([0.0, 1.0]), "b": torch.ones(2), "c": torch.ones(2).bfloat16(), "d": torch.tensor(1.0)}
    save_file(saved, tmp_path / "model.safetensors")
    trained = {
        "weight/a": torch.tensor([-0.0, 1.0]),
        "weight/b": torch.ones(2),
        "weight/c": torch.ones(2),
        "weight/d": torch.tensor(1.0),
    }
    left = without_twins(trained, tmp_path)
    assert set(left) == {"weight/a", "weight/c"}
    whole = with_twins(left, tmp_path)
    assert all(torch.equal(whole[name], trained[name]) and whole[name].dtype == trained[name].dtype for name in trained)
    assert torch.signbit(whole["weight/a"][0])
