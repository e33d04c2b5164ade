"""AdamW with 8-bit state (Dettmers et al. 2022): about 2 bytes for a weight instead of 8; the update is in float32.

Both moments are kept as block-wise codes (`optimizers.blockwise`). One thing differs from the paper: kept is the *root*
of the second moment, which doubles its range, and its code is never zero, so that no update is divided by almost
nothing. Weights of fewer than 4,096 values keep float32 moments. The work is done in pieces, so that the float32 values
of one piece are all the memory it takes. It is another algorithm than `adamw`, close to it.

    optimizer = AdamW8bit([{"params": [weight], "weight_decay": 0.0}], lr=1e-3)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from luthier.ground.spec import TrainSpec
from luthier.training.optimizers.base import OPTIMIZERS, OptimizerKind
from luthier.training.optimizers.blockwise import BLOCK, dequantize, quantize
from luthier.training.optimizers.rounding import piece_starts

SMALL = 4096  # values; below, state stays float32
PIECE = 512 * BLOCK


class AdamW8bit(torch.optim.Optimizer):
    """AdamW over float32 weights; betas and eps are torch's defaults unless given."""

    def __init__(
        self,
        params: list[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state.update(_fresh(weight.shape, weight.device))
        state["step"] += 1
        flat_N = weight.contiguous().view(-1)
        grad_N = weight.grad.reshape(-1)  # type: ignore[union-attr]  # the caller looked
        for start in piece_starts(weight, PIECE):
            part = slice(start, start + PIECE)
            moments = _Moments(state, part)
            _adamw(flat_N[part], grad_N[part], moments, state["step"].item(), group)
            moments.keep()
        if flat_N.data_ptr() != weight.data_ptr():
            weight.copy_(flat_N.view_as(weight))


class _Moments:
    """A piece of both moments in float32: views where they are kept so, otherwise values that `keep` writes back."""

    def __init__(self, state: dict[str, Tensor], part: slice) -> None:
        self._narrow = "exp_avg_scale" in state
        blocks = slice(part.start // BLOCK, -(-part.stop // BLOCK))
        self._kept = {key: state[key].view(-1)[part] for key in ("exp_avg", "exp_avg_sq")}
        self._scales = {key: state[f"{key}_scale"][blocks] for key in self._kept} if self._narrow else {}
        self.first_N = self._wide("exp_avg", signed=True)
        root_N = self._wide("exp_avg_sq", signed=False)
        self.second_N = root_N.square_() if self._narrow else root_N

    def keep(self) -> None:
        """Write the moments back."""
        if not self._narrow:
            return
        self._write("exp_avg", self.first_N, signed=True)
        self._write("exp_avg_sq", self.second_N.sqrt_(), signed=False)
        self._kept["exp_avg_sq"].clamp_(min=1)

    def _wide(self, key: str, *, signed: bool) -> Tensor:
        kept = self._kept[key]
        return dequantize(kept, self._scales[key], signed=signed) if self._narrow else kept

    def _write(self, key: str, values_N: Tensor, *, signed: bool) -> None:
        codes, scales = quantize(values_N, signed=signed)
        self._kept[key].copy_(codes)
        self._scales[key].copy_(scales)


def _adamw(weight_N: Tensor, grad_N: Tensor, moments: _Moments, step: float, group: dict[str, Any]) -> None:
    beta1, beta2 = group["betas"]
    rate = group["lr"]
    moments.first_N.lerp_(grad_N, 1 - beta1)
    moments.second_N.mul_(beta2).addcmul_(grad_N, grad_N, value=1 - beta2)
    denominator_N = moments.second_N.sqrt().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
    weight_N.mul_(1 - rate * group["weight_decay"])
    weight_N.addcdiv_(moments.first_N, denominator_N, value=-rate / (1 - beta1**step))


def _fresh(shape: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    """Return the state before the first step, which stands for zeros, since all scales are zero."""
    size, keys = torch.Size(shape).numel(), ("exp_avg", "exp_avg_sq")
    kept = torch.float32 if size < SMALL else torch.uint8
    state = {"step": torch.zeros(()), **{key: torch.zeros(tuple(shape), dtype=kept, device=device) for key in keys}}
    if size >= SMALL:
        state |= {f"{key}_scale": torch.zeros(-(-size // BLOCK), device=device) for key in keys}
    return state


def _make(groups: list[dict[str, Any]], spec: TrainSpec) -> torch.optim.Optimizer:
    return AdamW8bit(groups, spec.learning_rate)


OPTIMIZERS.register("adamw8bit")(OptimizerKind(_make, _fresh))
