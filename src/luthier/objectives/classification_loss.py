"""The losses of a classification head: cross entropy, one binary cross entropy a label, squared error.

All are sums over rows, each by its weight, in float32 or better; a step divides by the sum of the weights. Which rows
and which weights is not known here.

    >>> logits_RL, labels_RL = torch.zeros(2, 4), torch.eye(4)[:2]
    >>> round(summed_label_loss("single", logits_RL, labels_RL).item(), 4)  # twice log 4
    2.7726
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

LabelsKind = Literal["single", "multi", "regression"]


def summed_label_loss(
    kind: LabelsKind,
    logits_RL: Tensor,
    labels_RL: Tensor,
    weights_R: Tensor | None = None,
    label_weights_L: Tensor | None = None,
) -> Tensor:
    """Return the sum of the rows' losses.

    single: −log softmax(logits)[label]. multi: the mean over labels of the binary cross entropy of sigmoid(logit), each
    label's by its weight. regression: (logit − value)², with L = 1.

    Args:
        logits_RL: what the head gives for each row, [R, L].
        labels_RL: one-hot, multi-hot, or values.
        weights_R: what each row counts; None: 1.
        label_weights_L: of multi: what each label's own loss counts; their mean is 1, so that rows keep their weights.
    """
    wide = torch.promote_types(logits_RL.dtype, torch.float32)
    logits_RL, labels_RL = logits_RL.to(wide), labels_RL.to(wide)
    if kind == "single":
        losses_R = -(torch.log_softmax(logits_RL, -1) * labels_RL).sum(-1)
    elif kind == "multi":
        losses_RL = functional.binary_cross_entropy_with_logits(logits_RL, labels_RL, reduction="none")
        losses_R = (losses_RL if label_weights_L is None else losses_RL * label_weights_L.to(losses_RL)).mean(-1)
    else:
        losses_R = (logits_RL - labels_RL).square().mean(-1)
    return losses_R.sum() if weights_R is None else (losses_R * weights_R.to(losses_R)).sum()
