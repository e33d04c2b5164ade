"""The fast decoder body: embedding, blocks with their backward written out, final norm at the wanted tokens.

`engine_for` puts it in a model's place for as long as a `with` block lasts; `luthier.models.packed.hidden_at` then uses
it, and nothing else changes: the model's modules, names and values stay, and a model that cannot have it runs by
transformers' own forward. Before it is used once, it answers a few tokens beside that forward, and a difference beyond
rounding puts it aside. Losses, optimizers and checkpoints are not here.

    with engine_for(model, TrainSpec()) as engine: print(engine.sentence)
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from luthier.ground.errors import BadInput
from luthier.ground.spec import TrainSpec
from luthier.machine.memory import give_back_memory
from luthier.models.kernels.build import library
from luthier.models.kernels.varlen import serves
from luthier.models.packed import hidden_states, use_body
from luthier.models.segments import Segments
from luthier.rows.packing import pack_rows
from luthier.rows.types import Encoded
from luthier.training.engine.block import Checkpointing, Passing, run_block
from luthier.training.engine.families import blocks_of, draws_random_numbers, why_not
from luthier.training.engine.states import FrozenStates

# Relative difference of the middle token. In bfloat16 both ways are 2 to 5 % from float32 on a deep model, and single
# tokens far more; another mathematics would be 30 % and more everywhere.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.15}
_CHECKED = Segments((7, 5))


@dataclass(frozen=True)
class Engine:
    """What computes the hidden states: `fast`, or `general` and why not the other; and the kernels' kind."""

    name: str
    kernels: str
    reason: str = ""
    body: FastBody | None = None
    by_row: bool = False

    @property
    def shares(self) -> bool:
        """Whether common beginnings of rows pay: only the native attention does not slow down for them.

        Noise on embeddings is each row's own (`by_row`), so that nothing can be shared.
        """
        return self.name == "fast" and self.kernels == "native" and not self.by_row

    def remember_frozen(self, rows: Sequence[Encoded], spec: TrainSpec, run: Path, pack_tokens: int) -> str:
        """Compute what never changes for rows that come again, and return a sentence about it ("" if nothing does)."""
        once = spec.epochs <= 1 or spec.layers_in_turn or spec.neftune_alpha  # noise is another one in every epoch
        if self.body is None or once or not self.body.lowest_trained:
            return ""
        try:
            size = self.body.remember(rows, run, pack_tokens)
        except OSError as error:
            return f"the frozen lower layers are computed in every epoch ({error.strerror})"
        return f"the lower {self.body.lowest_trained} layers are frozen: computed once, {size / 1e6:,.0f} MB on disk"

    @property
    def sentence(self) -> str:
        """Return what a person wants to know about it."""
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.name} engine{why}, {self.kernels} kernels"


@contextlib.contextmanager
def engine_for(
    model: PreTrainedModel, spec: TrainSpec, autocast: torch.dtype | None = None, is_sharded: bool = False
) -> Iterator[Engine]:
    """Make the model compute as `spec` wants for the length of the block, by the fast body if it can have one.

    Args:
        autocast: the precision of the arithmetic, if it is not that of the weights.
        is_sharded: whether the weights lie in shards, which only the model's own modules can gather.
    """
    if is_sharded:
        reason: str | None = "its weights lie in shards"
    elif autocast not in (None, model.dtype):
        reason = "arithmetic and weights differ in precision"
    else:
        reason = why_not(model)
    if reason is None:
        with fast_body(model, spec.checkpointing, spec.mlp_tile) as engine:
            if engine.name == "fast":
                yield replace(engine, by_row=spec.neftune_alpha is not None)
                return
            reason = engine.reason
    with _general_body(model, spec, reason) as engine:
        yield engine


@contextlib.contextmanager
def fast_body(
    model: PreTrainedModel, checkpointing: Checkpointing = "none", tile: int | None = None
) -> Iterator[Engine]:
    """Give the model the fast body for the length of the block, unless it differs from the model's own forward."""
    try:
        body = FastBody(model, checkpointing, tile)
    except (AttributeError, TypeError, ValueError) as error:  # it is called like a family that it does not belong to
        give_own_memory(model)
        yield Engine("general", _kernels(model), f"it is built in another way ({error})")
        return
    try:
        if (times := _difference(model, body)) > 1.0:
            yield Engine("general", _kernels(model), f"the fast body differs from it, {times:.1f} tolerances")
            return
        with use_body(model, body):
            give_back_memory()
            yield Engine("fast", _kernels(model), body=body)
    finally:
        give_own_memory(model)


@contextlib.contextmanager
def _general_body(model: PreTrainedModel, spec: TrainSpec, reason: str) -> Iterator[Engine]:
    """Let the model's own modules compute; whole layers are all that they can compute again instead of keeping."""
    reason += _liger(model) + ("; mlp_tile has no effect" if spec.mlp_tile else "")
    if spec.checkpointing == "none":
        yield Engine("general", _kernels(model), reason)
        return
    if not model.supports_gradient_checkpointing:
        raise BadInput(f"{type(model).__name__} cannot checkpoint activations", fix="set train.checkpointing: none")
    # Random states that nobody needs would be kept for every layer, and lie between the large blocks.
    how = {"use_reentrant": False, "preserve_rng_state": draws_random_numbers(model)}
    model.activation_checkpointing_enable(how)
    try:
        yield Engine("general", _kernels(model), f"{reason}; checkpointing: full")
    finally:
        model.activation_checkpointing_disable()


def _liger(model: PreTrainedModel) -> str:
    """On a GPU, take Liger's kernels for norms, rotary positions and gates, if it is installed (not yet run on one)."""
    if model.device.type != "cuda" or importlib.util.find_spec("liger_kernel") is None:
        return ""
    patch = importlib.import_module("liger_kernel.transformers")._apply_liger_kernel_to_instance
    patch(model=model, fused_linear_cross_entropy=False)
    return "; Liger kernels"


def give_own_memory(model: nn.Module) -> None:
    """Give each weight that is a view of joined memory memory of its own again; the values stay."""
    for weight in model.parameters():
        if weight.untyped_storage().nbytes() != weight.numel() * weight.itemsize or not weight.is_contiguous():
            weight.data = weight.data.clone(memory_format=torch.contiguous_format)


class FastBody:
    """Hidden states of a Llama-like model, whose weights are views of its own until `give_own_memory`."""

    def __init__(self, model: PreTrainedModel, checkpointing: Checkpointing = "none", tile: int | None = None) -> None:
        self._base = model.base_model
        self._multiplier = float(getattr(model.config, "embedding_multiplier", 1.0) or 1.0)
        self._checkpointing, self._tile = checkpointing, tile
        self._blocks = blocks_of(model)
        self._states: FrozenStates | None = None

    def __call__(self, ids_T: Tensor, positions_T: Tensor, segments: Segments, wanted_N: Tensor) -> Tensor:
        """Return the hidden states [N, D] after the final norm at the tokens `wanted_N`, which rise."""
        for hook in self._base._forward_pre_hooks.values():  # such as the rounding of float32 masters
            hook(self._base, ())
        ropes = self._ropes(positions_T)
        at = Passing(segments, ropes, self._checkpointing, None, self._tile)
        lowest = self.lowest_trained
        x_TD = self._states.gather(ids_T, segments) if self._states is not None and lowest else None
        if x_TD is None:
            x_TD = self._lower(ids_T, at, lowest)
        for block in self._blocks[lowest:-1]:
            x_TD = run_block(block, x_TD, at)
        last = Passing(segments, ropes, self._checkpointing, wanted_N, self._tile)
        hidden_ND: Tensor = self._base.norm(run_block(self._blocks[-1], x_TD, last))
        return hidden_ND

    @property
    def lowest_trained(self) -> int:
        """The first block from which gradients are needed, at most the last block; 0 if the embedding is trained."""
        if any(weight.requires_grad for weight in self._base.embed_tokens.parameters()):
            return 0
        trained = (n for n, block in enumerate(self._blocks) if block.parameters)
        return min(next(trained, 0), len(self._blocks) - 1)

    def remember(self, rows: Sequence[Encoded], folder: Path, pack_tokens: int) -> int:
        """Compute what the blocks below the lowest trained one give for `rows`; return the bytes that it takes."""
        lowest = self.lowest_trained
        weight = self._base.embed_tokens.weight
        states = FrozenStates(folder, (row.ids_T for row in rows), weight.shape[1], weight.dtype)
        with torch.no_grad():
            for pack in pack_rows(rows, pack_tokens):
                segments = Segments(pack.lengths)
                ids_T, positions_T = torch.from_numpy(pack.ids_T), torch.from_numpy(pack.positions_T)
                x_TD = self._lower(ids_T, Passing(segments, self._ropes(positions_T)), lowest)
                for start, length in zip(segments.starts, segments.lengths, strict=True):
                    states.put(pack.ids_T[start : start + length], x_TD[start : start + length])
        self._states = states
        return states.bytes

    def _lower(self, ids_T: Tensor, at: Passing, blocks: int) -> Tensor:
        """Return what goes into block number `blocks`."""
        x_TD: Tensor = self._base.embed_tokens(ids_T)
        if self._multiplier != 1.0:
            x_TD = x_TD * self._multiplier
        for block in self._blocks[:blocks]:
            x_TD = run_block(block, x_TD, at)
        return x_TD

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
    """Return how far the body is from the model's own forward on a few tokens (the middle one), in tolerances."""
    device = next(model.parameters()).device
    ids_T = torch.arange(_CHECKED.tokens, device=device) % model.config.vocab_size
    positions_T = torch.cat([torch.arange(length) for length in _CHECKED.lengths]).to(device)
    with torch.no_grad():
        plain_TD = hidden_states(model, ids_T, positions_T, _CHECKED).float()
        fast_TD = body(ids_T, positions_T, _CHECKED, torch.arange(_CHECKED.tokens, device=device)).float()
    relative_T = (plain_TD - fast_TD).norm(dim=-1) / plain_TD.norm(dim=-1).clamp_min(1e-6)
    return float(relative_T.nan_to_num(torch.inf).median()) / _TOLERANCE.get(model.dtype, 0.15)


def _kernels(model: nn.Module) -> str:
    if library() is None:
        return "plain"
    weight = next(model.parameters())
    return "native" if serves(weight.dtype, weight.device, 16) else "partly native"
