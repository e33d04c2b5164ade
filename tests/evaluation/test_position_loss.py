"""The loss by position is the model's own loss, token by token."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.models.tiny_models import VOCABULARY, tiny_model
from torch.nn import functional

from luthier.evaluation.position_loss import edges_of, mean_by_bin, position_losses
from luthier.rows.types import Encoded


def row(length: int, seed: int = 0, targets: slice = slice(None)) -> Encoded:
    ids = np.random.default_rng(seed).integers(3, VOCABULARY, length)
    mask = np.zeros(length, dtype=bool)
    mask[targets] = True
    return Encoded(ids, mask, "test:1")


def test_it_is_transformers_loss_of_each_token() -> None:
    model, of_row = tiny_model(), row(300)
    found = position_losses(model, [of_row], most=1000)[0]
    ids = torch.from_numpy(of_row.ids_T)
    with torch.no_grad():
        logits = model(ids[None]).logits[0]
    wanted = functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
    assert math.isnan(found[0])
    np.testing.assert_allclose(found[1:], wanted.numpy(), rtol=1e-4, atol=1e-4)


def test_only_targets_and_only_the_first_tokens_are_read() -> None:
    found = position_losses(tiny_model().train(), [row(20, targets=slice(5, 15))], most=10)[0]
    assert [not math.isnan(loss) for loss in found] == [n >= 5 for n in range(10)]
    assert all(math.isnan(loss) for loss in position_losses(tiny_model(), [row(9, targets=slice(0, 1))], most=9)[0])


def test_bins() -> None:
    assert edges_of(128, 512) == [0, 32, 64, 96, 128, 192, 256, 384, 512]
    assert edges_of(100, 130) == [0, 25, 50, 75, 100, 130]


def test_means_leave_out_what_was_not_asked_and_stop_where_no_text_reaches() -> None:
    nan = math.nan
    edges, means = mean_by_bin([[nan, 1.0, 2.0, nan], [nan, 3.0, nan, nan, 5.0]], [0, 2, 4, 6, 8])
    assert edges == [0, 2, 4, 6]
    assert means == pytest.approx([2.0, 2.0, 5.0])
    assert mean_by_bin([], [0, 2]) == ([0], [])
