"""The loss of each token by its position in the text: does a model get better, or lose its way, as a text grows?

Each row is read alone, at most up to a number of tokens. Retrieval is `luthier.evaluation.long_context`.

    losses = position_losses(model, rows, most=4096); mean_by_bin(losses, edges_of(1024, 4096))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedModel

from luthier.models.packed import Head, head_of, hidden_at
from luthier.models.segments import Segments
from luthier.rows.types import Encoded

_CHUNK = 256  # rows of logits that exist at once


def position_losses(model: PreTrainedModel, rows: Sequence[Encoded], most: int) -> list[list[float]]:
    """Return, for each row, the loss in nats of the token at each position; NaN where the token is no target.

    Args:
        most: tokens of each row that are read.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
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
    device = next(model.parameters()).device
    ids_T = torch.from_numpy(row.ids_T[:most]).to(device)
    target_N = torch.from_numpy(row.target_T[:most]).to(device).nonzero()[:, 0]
    target_N = target_N[target_N > 0]  # nothing stands before the first token
    losses_T = torch.full((len(ids_T),), math.nan)
    if len(target_N):
        positions_T = torch.arange(len(ids_T), device=device)
        hidden_ND = hidden_at(model, ids_T, positions_T, Segments((len(ids_T),)), target_N - 1)
        losses_T[target_N.cpu()] = _cross_entropies(head_of(model), hidden_ND, ids_T[target_N]).cpu()
    values: list[float] = losses_T.tolist()
    return values


def _cross_entropies(head: Head, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    parts = [
        torch.nn.functional.cross_entropy(head(hidden_CD).float(), targets_C, reduction="none")
        for hidden_CD, targets_C in zip(torch.split(hidden_ND, _CHUNK), torch.split(targets_N, _CHUNK), strict=True)
    ]
    return torch.cat(parts)
