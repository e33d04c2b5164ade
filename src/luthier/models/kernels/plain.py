"""The row-wise kernels in plain PyTorch: the reference of the native ones, and what runs where those do not.

Arguments, shapes and in-place effects are those of `luthier.models.kernels.rowwise`, which explains them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def rms_norm(x_RW: Tensor, weight_W: Tensor, eps: float, out_RW: Tensor, scale_R: Tensor) -> None:
    x = x_RW.float()
    scale_R.copy_(torch.rsqrt(x.square().mean(-1) + eps))
    out_RW.copy_(x * scale_R[..., None] * weight_W)


def rms_norm_back(
    dy_RW: Tensor,
    x_RW: Tensor,
    weight_W: Tensor,
    scale_R: Tensor,
    dx_RW: Tensor,
    add_RW: Tensor | None,
    again_RW: Tensor | None,
) -> None:
    x, scale = x_RW.float(), scale_R[..., None]
    if again_RW is not None:
        again_RW.copy_(x * scale * weight_W)
    scaled = dy_RW.float() * weight_W
    dx = scale * (scaled - x * (scaled * x).mean(-1, keepdim=True) * scale.square())
    dx_RW.copy_(dx if add_RW is None else dx + add_RW.float())


def rms_norm_weight_back(dy_RW: Tensor, x_RW: Tensor, scale_R: Tensor) -> Tensor:
    product = dy_RW.float() * x_RW.float() * scale_R[..., None]
    return product.flatten(0, -2).sum(0)


def rotate(x_THD: Tensor, cos_TC: Tensor, sin_TC: Tensor, sign: float) -> None:
    half = cos_TC.shape[-1]
    first, second = x_THD[..., :half].float(), x_THD[..., half : 2 * half].float()
    cos, sin = cos_TC[:, None], sin_TC[:, None] * sign
    turned = first * cos - second * sin, second * cos + first * sin  # both, before their memory is written to
    x_THD[..., :half], x_THD[..., half : 2 * half] = turned


def gate(gu_TF: Tensor, out_TM: Tensor, activation: str) -> None:
    g, u = gu_TF.float().chunk(2, -1)
    out_TM.copy_(_activation(g, activation) * u)


def gate_back(gu_TF: Tensor, dm_TM: Tensor, activation: str) -> None:
    g, u = gu_TF.float().chunk(2, -1)
    d = dm_TM.float()
    with torch.enable_grad():
        leaf = g.detach().requires_grad_()
        y = _activation(leaf, activation)
    (slope,) = torch.autograd.grad(y, leaf, d * u)
    y = y.detach()
    gradient_TF, product_TM = torch.cat([slope, d * y], -1), y * u  # both, before their memory is written to
    gu_TF.copy_(gradient_TF)
    dm_TM.copy_(product_TM)


def softmax_loss(logits_CV: Tensor, targets_C: Tensor, cap: float, wants_gradient: bool) -> Tensor:
    with torch.enable_grad():
        leaf = logits_CV.detach().float().requires_grad_()
        capped = torch.tanh(leaf / cap) * cap if cap else leaf
        losses = functional.cross_entropy(capped, targets_C, reduction="none")
    if wants_gradient:
        (gradient,) = torch.autograd.grad(losses, leaf, torch.ones_like(losses))
        logits_CV.copy_(gradient)
    return losses.detach()


def _activation(x: Tensor, name: str) -> Tensor:
    return functional.silu(x) if name == "silu" else functional.gelu(x, approximate="tanh")
