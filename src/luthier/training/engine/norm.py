"""RMS norm with its backward, over a module of transformers whose weight may be stored minus one (Gemma).

norm = Norm(layer.input_layernorm); scale_T = norm.forward(x_TD, out_TD)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luthier.models.kernels.rowwise import rms_norm, rms_norm_back, rms_norm_weight_back


class Norm:
    """y = x / sqrt(mean(x²) + eps) · w; rows of [T, W], or heads of [T, H, W] on their own."""

    def __init__(self, module: nn.Module) -> None:
        weight = module.weight
        assert isinstance(weight, nn.Parameter)
        self.weight = weight
        self.eps = float(getattr(module, "variance_epsilon", None) or module.eps)  # type: ignore[arg-type]
        self.offset = 1.0 if type(module).__name__.startswith("Gemma") else 0.0
        self._seen = -1
        self._effective_W = torch.empty(0)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained at present: the weight or nothing."""
        return [self.weight] if self.weight.requires_grad else []

    def forward(self, x_RW: Tensor, out_RW: Tensor) -> Tensor:
        """Write the norm to `out_RW` (which may be `x_RW`) and return the reciprocal roots."""
        return rms_norm(x_RW, self._weight(), self.eps, out_RW)

    def backward(
        self,
        dy_RW: Tensor,
        x_RW: Tensor,
        scale_R: Tensor,
        dx_RW: Tensor,
        add_RW: Tensor | None = None,
        again_RW: Tensor | None = None,
    ) -> list[Tensor]:
        """Write the input's gradient, plus `add_RW`, to `dx_RW`; return the gradients of `parameters`."""
        grads = []
        if self.parameters:
            grads = [rms_norm_weight_back(dy_RW, x_RW, scale_R).to(self.weight.dtype)]
        rms_norm_back(dy_RW, x_RW, self._weight(), scale_R, dx_RW, add_RW, again_RW)
        return grads

    def _weight(self) -> Tensor:
        if self.weight._version != self._seen:
            self._seen = self.weight._version
            self._effective_W = self.weight.detach().float() + self.offset
        return self._effective_W
