"""Cross entropy of a language-model head, summed over target tokens, without an array of all logits.

The head runs on chunks of rows; each chunk's gradient is computed at once, while its logits exist, and only the
gradient of the hidden states is kept. So the logits of `CHUNK_ROWS` rows are the most that is ever held, and backward
is one multiplication. The softmax, its logarithm and its gradient are one pass in the logits' own memory, of their own
precision (`luthier.models.kernels.rowwise.softmax_loss`). `torch.nn.functional.linear_cross_entropy` was measured
beside it: slower on CPU, and its bfloat16 sum carries 8 bits. `plain_cross_entropy` is the reference. Neither knows
masks or rows.

    >>> hidden_ND, targets_N = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    >>> bool(summed_cross_entropy(Head(torch.nn.Linear(4, 7)), hidden_ND, targets_N) > 0)
    True
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy

from luthier.models.kernels.rowwise import softmax_loss
from luthier.models.packed import Head
from luthier.models.planned import device_type
from luthier.models.widened import WidenedHead

CHUNK_ROWS = 128  # fastest measured for a 49k vocabulary on CPU: the chunk's logits stay near the cache
_ADDED_ROWS = 4096
FILL = 32  # rows that a chunk is rounded up to
TRAINED_HEAD_CHUNK_ROWS = 512  # a trained head adds one [V, D] gradient per chunk, so fewer chunks pay


def summed_cross_entropy(
    head: Head,
    hidden_ND: Tensor,
    targets_N: Tensor,
    weights_N: Tensor | None = None,
    *,
    chunk_rows: int | None = None,
) -> Tensor:
    """Return the sum over rows n of −weights_N[n] · log softmax(head(hidden_ND[n]))[targets_N[n]], float32 or better.

    Args:
        head: maps hidden states [C, D] to logits [C, V]; what is trained of it gets its gradient too.
        weights_N: what each row counts; None: 1.
        chunk_rows: rows whose logits exist at once.
    """
    trained = [tensor for tensor in head.linear.parameters() if tensor.requires_grad]
    rows = chunk_rows or (TRAINED_HEAD_CHUNK_ROWS if trained else CHUNK_ROWS)
    total: Tensor = _SummedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        head, rows, hidden_ND, targets_N, weights_N, *trained
    )
    return total


def plain_cross_entropy(head: Head, hidden_ND: Tensor, targets_N: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """Return the same sum with all logits [N, V] at once and autograd's own backward: the reference."""
    logits_NV = head(hidden_ND)
    wide_NV = logits_NV.to(_wide(logits_NV.dtype))
    if weights_N is None:
        return cross_entropy(wide_NV, targets_N, reduction="sum")
    return (cross_entropy(wide_NV, targets_N, reduction="none") * weights_N).sum()


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        head: Head,
        rows: int,
        hidden_ND: Tensor,
        targets_N: Tensor,
        weights_N: Tensor | None,
        *trained: Tensor,
    ) -> Tensor:
        total = torch.zeros((), dtype=_wide(hidden_ND.dtype), device=hidden_ND.device)
        wanted = any(ctx.needs_input_grad)
        gradient_ND = torch.zeros_like(hidden_ND) if wanted else None
        gradients = [torch.zeros_like(tensor, dtype=_wide(tensor.dtype)) for tensor in trained]
        in_place = _is_plain(head, hidden_ND)
        for start in range(0, len(hidden_ND), rows):
            chunk = slice(start, start + rows)
            hidden_CD, targets_C = hidden_ND[chunk], targets_N[chunk]
            weights_C = None if weights_N is None else weights_N[chunk]
            if gradient_ND is None:
                total += plain_cross_entropy(head, hidden_CD, targets_C, weights_C)
                continue
            by = _in_place_chunk if in_place else _autograd_chunk
            rounds = start > 0 and rows % FILL == 0  # a last chunk of several
            filled = _filled(hidden_CD, targets_C, weights_C) if rounds else (hidden_CD, targets_C, weights_C)
            loss, gradient_CD, of_head = by(head, *filled, trained)
            gradient_ND[chunk] = gradient_CD[: len(hidden_CD)]
            for whole, part in zip(gradients, of_head, strict=True):
                _add_wide(whole, part)
            total += loss
        if gradient_ND is not None:
            narrow = [whole.to(tensor.dtype) for whole, tensor in zip(gradients, trained, strict=True)]
            ctx.save_for_backward(gradient_ND, *narrow)
            ctx.spent = False
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.spent:
            raise RuntimeError("the loss's backward can run only once: it scales the gradients that it kept in place")
        ctx.spent = True
        scaled = [gradient.mul_(upstream) for gradient in ctx.saved_tensors]  # a scalar keeps its float32
        return (None, None, scaled[0], None, None, *scaled[1:])


def _filled(hidden_CD: Tensor, targets_C: Tensor, weights_C: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Round the last chunk up to a multiple of `FILL` rows with rows of weight 0: for every new number of rows oneDNN
    keeps a kernel and its buffers."""
    missing = -len(hidden_CD) % FILL
    if not missing:
        return hidden_CD, targets_C, weights_C
    own_C = hidden_CD.new_ones(len(hidden_CD), dtype=torch.float32) if weights_C is None else weights_C
    filler_FD = hidden_CD.new_zeros(missing, hidden_CD.shape[1])
    targets = torch.cat([targets_C, targets_C.new_zeros(missing)])
    return torch.cat([hidden_CD, filler_FD]), targets, torch.cat([own_C, own_C.new_zeros(missing)])


def _add_wide(whole: Tensor, part: Tensor) -> None:
    """Add in the wide precision, some rows at a time: adding all at once would first make a wide copy of the part."""
    for start in range(0, len(whole), _ADDED_ROWS):
        whole[start : start + _ADDED_ROWS] += part[start : start + _ADDED_ROWS]


def _in_place_chunk(
    head: Head, hidden_CD: Tensor, targets_C: Tensor, weights_C: Tensor | None, trained: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return loss, gradient of the hidden states and of what is trained; the logits' memory becomes their gradient."""
    rows = head.rows
    logits_CV = head.uncapped(hidden_CD)
    losses_C = softmax_loss(logits_CV, targets_C, head.cap)
    if weights_C is not None:
        losses_C *= weights_C
        logits_CV *= weights_C.to(logits_CV.dtype)[:, None]
    loss = losses_C.sum()
    if head.divisor != 1.0:
        logits_CV.div_(head.divisor)
    of_rows = torch.split(logits_CV, [len(part) for part in rows], dim=1)
    gradient_CD = torch.mm(of_rows[0], rows[0])
    for of_part, part in zip(of_rows[1:], rows[1:], strict=True):
        gradient_CD.addmm_(of_part, part.to(hidden_CD.dtype))
    own = {id(part): of_part for part, of_part in zip(rows, of_rows, strict=True)}
    of_head = [torch.mm(own[id(tensor)].t(), hidden_CD) if tensor.ndim == 2 else logits_CV.sum(0) for tensor in trained]
    return loss, gradient_CD, of_head


def _autograd_chunk(
    head: Head, hidden_CD: Tensor, targets_C: Tensor, weights_C: Tensor | None, trained: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    with torch.enable_grad():
        leaf_CD = hidden_CD.detach().requires_grad_()
        loss = plain_cross_entropy(head, leaf_CD, targets_C, weights_C)
    gradient_CD, *of_head = torch.autograd.grad(loss, (leaf_CD, *trained))
    return loss.detach(), gradient_CD, of_head


def _is_plain(head: Head, hidden_ND: Tensor) -> bool:
    """Whether the head is a linear layer in the hidden states' own precision, float32 or bfloat16."""
    if type(head.linear) not in (nn.Linear, WidenedHead) or torch.is_autocast_enabled(device_type(hidden_ND.device)):
        return False
    return hidden_ND.dtype == head.linear.weight.dtype and hidden_ND.dtype in (torch.float32, torch.bfloat16)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
