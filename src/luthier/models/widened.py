"""An embedding and an output head with more rows than their own matrix has: the new rows are a second, small matrix.

The small one is float32 and may be trained while the large one is frozen; both are never joined. Which rows there are
and what they begin as is `luthier.models.vocabulary`.

    head = WidenedHead(linear, added, first=len(tokenizer)); head(hidden_ND).shape[-1]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Widened(nn.Module):
    """A module, and a few more rows for it.

    The rows lie in a list of their own behind the module: a model's first weight says in which precision it computes.
    """

    def __init__(self, base: nn.Module, added: nn.Parameter, first: int) -> None:
        super().__init__()
        self.base, self.first = base, first
        self.more = nn.ParameterList([added])
        self.train(base.training)

    @property
    def added(self) -> nn.Parameter:
        """The new rows, [A, D]."""
        rows: nn.Parameter = self.more[0]
        return rows

    @property
    def weight(self) -> Tensor:
        """The large matrix."""
        return parts_of(self)[0]


class WidenedEmbedding(_Widened):
    """Token ids to vectors: below `first` by the module that it stands for, from there on by `added`, [A, D]."""

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors of `ids`, in the precision of the large matrix."""
        is_new = ids >= self.first
        old: Tensor = self.base(ids.clamp(max=self.first - 1))
        new = functional.embedding((ids - self.first).clamp(0, len(self.added) - 1), self.added).to(old.dtype)
        return torch.where(is_new[..., None], new * self._scale(old.dtype), old)

    def _scale(self, dtype: torch.dtype) -> Tensor | float:
        """Some models (Gemma 3) multiply vectors as they look them up."""
        module = self.base
        while isinstance(module, WidenedEmbedding):
            module = module.base
        scale = getattr(module, "embed_scale", None)
        return scale.to(dtype) if isinstance(scale, Tensor) else 1.0


class WidenedHead(_Widened):
    """Hidden states to logits: of tokens below `first` by the module that it stands for, of the others by `added`."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits [..., first + A]."""
        if isinstance(self.base, WidenedHead):
            old = self.base(hidden)
        else:
            bias = self.base.bias
            own = bias[: self.first] if isinstance(bias, Tensor) else None
            old = functional.linear(hidden, rows_of(self)[0], own)
        return torch.cat([old, functional.linear(hidden, self.added.to(hidden.dtype)).to(old.dtype)], -1)


def parts_of(module: nn.Module) -> list[Tensor]:
    """Return the matrices of an embedding or a head, the large one first."""
    if isinstance(module, WidenedEmbedding | WidenedHead):
        return [*parts_of(module.base), module.added]
    return [_matrix(module)]


def rows_of(module: nn.Module) -> list[Tensor]:
    """Return the matrices whose rows, one after the other, are those of the tokens."""
    if not isinstance(module, WidenedEmbedding | WidenedHead):
        return [_matrix(module)]
    below = rows_of(module.base)
    return [below[0][: module.first] if len(below) == 1 else below[0], *below[1:], module.added]


def vectors_of(rows: Sequence[Tensor], ids_N: Tensor) -> Tensor:
    """Return the rows `ids_N` of matrices that follow each other, [N, D], float32."""
    out_ND = torch.zeros(len(ids_N), rows[0].shape[1], device=ids_N.device)
    start = 0
    for part in rows:
        own = (ids_N >= start) & (ids_N < start + len(part))
        out_ND[own] = part.detach()[ids_N[own] - start].float()
        start += len(part)
    return out_ND


def _matrix(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight
