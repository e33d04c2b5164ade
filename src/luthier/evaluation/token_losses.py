"""The loss of each target of a pack by itself, in nats; no gradient, and no array of all logits.

nats_N = token_losses(model, one_pack(rows))
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from luthier.models.packed import head_of, hidden_at
from luthier.models.segments import Segments
from luthier.rows.types import Pack

_CHUNK = 256  # rows of logits that exist at once


@torch.no_grad()
def token_losses(model: PreTrainedModel, pack: Pack) -> npt.NDArray[np.float64]:
    """Return −log p of each target of a causal model, [N], in the order of the pack; the model stays in its mode."""
    device = next(model.parameters()).device
    ids_T = torch.from_numpy(pack.ids_T).to(device)
    positions_T = torch.from_numpy(pack.positions_T).to(device)
    targets_N = ids_T[torch.from_numpy(np.flatnonzero(pack.target_T)).to(device)]
    before_N = torch.from_numpy(pack.predictors_N).to(device)
    if not len(targets_N):
        return np.zeros(0)
    hidden_ND = hidden_at(model, ids_T, positions_T, Segments(pack.lengths, pack.parents), before_N)
    head = head_of(model)
    parts = [
        cross_entropy(head(hidden_CD).float(), targets_C, reduction="none")
        for hidden_CD, targets_C in zip(torch.split(hidden_ND, _CHUNK), torch.split(targets_N, _CHUNK), strict=True)
    ]
    nats_N: npt.NDArray[np.float64] = torch.cat(parts).double().cpu().numpy()
    return nats_N
