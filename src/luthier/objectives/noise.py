"""Noise on the embeddings of training rows (NEFTune, Jain et al. 2023, arXiv:2310.05914).

Each row of L tokens gets noise drawn evenly from ±alpha / sqrt(L · D) in every one of its L · D embedding values, while
the model trains and never else. L is the row's own length, however it is packed. The numbers come from PyTorch's own
generator, which checkpoints restore, so that a resumed run draws what an undisturbed one draws. What several rows share
(a common beginning computed once) cannot have noise by row; whoever packs must not share.

    with noisy_embeddings(model, pack.lengths, alpha=5.0): hidden_at(model, …)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


@contextlib.contextmanager
def noisy_embeddings(model: PreTrainedModel, lengths: Sequence[int], alpha: float | None) -> Iterator[None]:
    """Add noise to what the model's input embedding gives for rows of `lengths`, for the length of the block.

    Nothing happens if `alpha` is None or the model is in evaluation mode. Tokens after the rows (which fill up a pack)
    stay as they are.
    """
    if alpha is None or not model.training:
        yield
        return

    def add(_module: nn.Module, _inputs: object, embedded: Tensor) -> Tensor:
        return embedded + noise_like(embedded, lengths, alpha)

    handle = model.get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def noise_like(embedded: Tensor, lengths: Sequence[int], alpha: float) -> Tensor:
    """Return the noise for embeddings [..., T, D] of rows of `lengths` tokens end to end, zeros after them."""
    tokens, width = sum(lengths), embedded.shape[-1]
    of_row = torch.tensor(lengths, dtype=torch.float32, device=embedded.device)
    bound_T = torch.repeat_interleave(alpha / (of_row * width).sqrt(), of_row.long(), output_size=tokens)
    noise_TD = torch.rand(tokens, width, device=embedded.device) * 2 - 1
    whole = torch.zeros(embedded.shape[-2], width, dtype=embedded.dtype, device=embedded.device)
    whole[:tokens] = noise_TD * bound_T[:, None]
    return whole
