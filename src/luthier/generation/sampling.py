"""Choose the next token of each row: the likeliest, or drawn after temperature, top-k and top-p.

A row draws with its own stream of uniform numbers, so what it says does not depend on its batch mates. Does not touch
the model.

    >>> choose(torch.tensor([[0.0, 2.0, 1.0]]), Settings(), None).tolist()
    [1]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from luthier.generation.settings import Settings
from luthier.ground.seeds import derived_seed

FIRST_CANDIDATES = 512  # a nucleus is nearly always smaller; sorting the whole vocabulary costs more than the model


def choose(logits_BV: Tensor, settings: Settings, uniform_B: Tensor | None) -> Tensor:
    """Return one token id per row, shape [B].

    Args:
        logits_BV: scores of the next token, shape [B, V].
        uniform_B: a number in [0, 1) per row; needed unless greedy.
    """
    if settings.greedy or uniform_B is None:
        return logits_BV.max(-1).indices  # on a CPU five times as fast as argmax
    return _draw(logits_BV.float() / settings.temperature, settings, uniform_B)


def uniform_numbers(seed: int, rows: Sequence[int], count: int) -> Tensor:
    """Return `count` uniform numbers for each row index, [R, count]; a row's numbers depend on its index alone."""
    streams = [torch.Generator().manual_seed(derived_seed(seed, "answer", row)) for row in rows]
    return torch.stack([torch.rand(count, generator=stream, dtype=torch.float64) for stream in streams])


def _draw(scaled_BV: Tensor, settings: Settings, uniform_B: Tensor) -> Tensor:
    """Draw by inverting the distribution function over candidates in order of falling probability."""
    probability_BC, candidate_BC = _candidates(scaled_BV, settings)
    cumulative_BC = probability_BC.double().cumsum(-1)
    total_B1 = cumulative_BC[:, -1:]
    if settings.top_p < 1.0:
        kept_BC = cumulative_BC - probability_BC < settings.top_p * total_B1  # the token that crosses top_p stays
        cumulative_BC = (probability_BC.double() * kept_BC).cumsum(-1)
        total_B1 = cumulative_BC[:, -1:]
    target_B1 = uniform_B.to(cumulative_BC.device).unsqueeze(-1) * total_B1
    place_B1 = torch.searchsorted(cumulative_BC, target_B1, right=True).clamp_(max=probability_BC.shape[-1] - 1)
    return candidate_BC.gather(-1, place_B1).squeeze(-1)


def _candidates(scaled_BV: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Return probabilities and ids of the tokens that may be drawn, likeliest first, each [B, C]."""
    vocabulary = scaled_BV.shape[-1]
    if 0 < settings.top_k < vocabulary:
        top_BC, candidate_BC = scaled_BV.topk(settings.top_k, dim=-1)
        return torch.softmax(top_BC, dim=-1), candidate_BC
    probability_BV = torch.softmax(scaled_BV, dim=-1)
    if settings.top_p < 1.0 and vocabulary > FIRST_CANDIDATES:
        probability_BC, candidate_BC = probability_BV.topk(FIRST_CANDIDATES, dim=-1)
        if bool((probability_BC.sum(-1) >= settings.top_p).all()):
            # The share of top_p is of all tokens: the tail is one more candidate that the cut always removes.
            tail_B1 = (1.0 - probability_BC.sum(-1, keepdim=True)).clamp_(min=0.0)
            return torch.cat([probability_BC, tail_B1], -1), torch.cat([candidate_BC, candidate_BC[:, -1:]], -1)
    probability_BC, candidate_BC = probability_BV.sort(dim=-1, descending=True)
    return probability_BC, candidate_BC
