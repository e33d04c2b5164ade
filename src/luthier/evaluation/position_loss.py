"""The loss of each token by its position in the text: does a model get better, or lose its way, as a text grows?

Each row is read alone, at most up to a number of tokens. Retrieval is `luthier.evaluation.long_context`.

    losses = position_losses(model, rows, most=4096); mean_by_bin(losses, edges_of(1024, 4096))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from transformers import PreTrainedModel

from luthier.evaluation.token_losses import token_losses
from luthier.rows.packing import one_pack
from luthier.rows.types import Encoded


def position_losses(model: PreTrainedModel, rows: Sequence[Encoded], most: int) -> list[list[float]]:
    """Return, for each row, the loss in nats of the token at each position; NaN where the token is no target.

    Args:
        most: tokens of each row that are read.
    """
    was_training = model.training
    model.eval()
    found = [_losses_of(model, row, most) for row in rows]
    model.train(was_training)
    return found


def edges_of(window: int, longest: int) -> list[int]:
    """Return the edges of the bins of positions: quarters of the old window, then halves of it, then whole ones."""
    edges = [round(window * quarters / 4) for quarters in (0, 1, 2, 3, 4)]
    while edges[-1] < longest:
        step = window / 2 if edges[-1] < 2 * window else window
        edges.append(min(longest, round(edges[-1] + step)))
    return edges


def mean_by_bin(losses: Sequence[Sequence[float]], edges: Sequence[int]) -> tuple[list[int], list[float]]:
    """Return the edges of the bins that tokens fall into, and the mean loss in each.

    Args:
        losses: of each text, the loss at each position; NaN where a token is not asked for.
        edges: a bin holds the positions from one edge up to the next.
    """
    kept, means = [edges[0]], []
    for first, end in pairwise(edges):
        inside = [loss for of_text in losses for loss in of_text[first:end] if not math.isnan(loss)]
        if not inside:
            break  # no text is as long
        kept.append(end)
        means.append(sum(inside) / len(inside))
    return kept, means


def _losses_of(model: PreTrainedModel, row: Encoded, most: int) -> list[float]:
    pack = one_pack([replace(row, ids_T=row.ids_T[:most], target_T=row.target_T[:most], weight_T=None)])
    losses_T = np.full(len(pack), np.nan)
    losses_T[pack.target_T] = token_losses(model, pack)
    values: list[float] = losses_T.tolist()
    return values
