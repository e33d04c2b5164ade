"""The fast decoder body: embedding, blocks with their backward written out, final norm at the wanted tokens.

`fast_body` puts it in a model's place for as long as a `with` block lasts; `luthier.models.packed.hidden_at` then uses
it, and nothing else changes: the model's modules, names and values stay, and a model that cannot have it runs by
transformers' own forward. Before it is used once, it answers a few tokens beside that forward, and a difference beyond
rounding puts it aside. Losses, optimizers and checkpoints are not here.

    with fast_body(model) as engine: print(engine.name, engine.reason)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from luthier.models.kernels.build import library
from luthier.models.kernels.varlen import serves
from luthier.models.packed import hidden_states, use_body
from luthier.models.segments import Segments
from luthier.training.engine.block import Checkpointing, Passing, run_block
from luthier.training.engine.families import blocks_of, why_not

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of the largest value; rounding alone stays well below
_CHECKED = Segments((7, 5))


@dataclass(frozen=True)
class Engine:
    """What computes the hidden states: `fast`, or `general` and why not the other; and the kernels' kind."""

    name: str
    kernels: str
    reason: str = ""

    @property
    def sentence(self) -> str:
        """Return what a person wants to know about it."""
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.name} engine{why}, {self.kernels} kernels"


@contextlib.contextmanager
def fast_body(
    model: PreTrainedModel, checkpointing: Checkpointing = "none", tile: int | None = None
) -> Iterator[Engine]:
    """Give the model the fast body for the length of the block, if it can have one."""
    reason = why_not(model)
    if reason is not None:
        yield Engine("general", _kernels(model), reason)
        return
    body = FastBody(model, checkpointing, tile)
    try:
        if (worst := _difference(model, body)) > 1.0:
            yield Engine("general", _kernels(model), f"the fast body differs from this model, {worst:.1f} tolerances")
            return
        with use_body(model, body):
            yield Engine("fast", _kernels(model))
    finally:
        body.release()


class FastBody:
    """Hidden states of a Llama-like model. Its weights are views that the model shares until `release`."""

    def __init__(self, model: PreTrainedModel, checkpointing: Checkpointing = "none", tile: int | None = None) -> None:
        self._base = model.base_model
        self._multiplier = float(getattr(model.config, "embedding_multiplier", 1.0) or 1.0)
        self._checkpointing, self._tile = checkpointing, tile
        self._blocks = blocks_of(model)

    def __call__(self, ids_T: Tensor, positions_T: Tensor, segments: Segments, wanted_N: Tensor) -> Tensor:
        """Return the hidden states [N, D] after the final norm at the tokens `wanted_N`, which rise."""
        x_TD = self._base.embed_tokens(ids_T)
        if self._multiplier != 1.0:
            x_TD = x_TD * self._multiplier
        ropes = self._ropes(positions_T)
        at = Passing(segments, ropes, self._checkpointing, None, self._tile)
        for block in self._blocks[:-1]:
            x_TD = run_block(block, x_TD, at)
        last = Passing(segments, ropes, self._checkpointing, wanted_N, self._tile)
        hidden_ND: Tensor = self._base.norm(run_block(self._blocks[-1], x_TD, last))
        return hidden_ND

    def release(self) -> None:
        """Give the model's weights memory of their own again."""
        for block in self._blocks:
            for half in (block.attention, block.mlp):
                half.inward.release()
                half.outward.release()

    def _ropes(self, positions_T: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        probe = torch.zeros(1, 1, 1, device=positions_T.device)
        ropes = {}
        for kind in {block.attention.rope for block in self._blocks}:
            if self._base.config.model_type.startswith("gemma3"):
                cos, sin = self._base.rotary_emb(probe, positions_T[None], kind)
            else:
                cos, sin = self._base.rotary_emb(probe, positions_T[None])
            half = cos.shape[-1] // 2
            ropes[kind] = (cos[0, :, :half].float().contiguous(), sin[0, :, :half].float().contiguous())
        return ropes


def _difference(model: PreTrainedModel, body: FastBody) -> float:
    """Return how far the body is from the model's own forward on a few tokens, in tolerances."""
    device = next(model.parameters()).device
    ids_T = torch.arange(_CHECKED.tokens, device=device) % model.config.vocab_size
    positions_T = torch.cat([torch.arange(length) for length in _CHECKED.lengths]).to(device)
    with torch.no_grad():
        plain_TD = hidden_states(model, ids_T, positions_T, _CHECKED).float()
        fast_TD = body(ids_T, positions_T, _CHECKED, torch.arange(_CHECKED.tokens, device=device)).float()
    worst = (plain_TD - fast_TD).abs().max() / plain_TD.abs().max().clamp_min(1e-6)
    return float(worst) / _TOLERANCE.get(model.dtype, 5e-2)


def _kernels(model: PreTrainedModel) -> str:
    if library() is None:
        return "plain"
    head_dim = getattr(model.config, "head_dim", None) or 16
    return "native" if serves(model.dtype, model.device, head_dim) else "partly native"
