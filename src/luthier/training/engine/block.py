"""One decoder block, forward and backward, keeping only what cannot be had again cheaply.

A block is two halves of one shape, `x + post(out(core(in(pre(x)))))`: attention and MLP. Norm outputs, activations and
products with them are computed again in the backward; what is kept of a half is a `Kept…`. How much more is given up
is the checkpointing policy: `selective` computes gate and up again, `full` the whole block from its input. The plain
way to the same numbers is transformers' own module, and tests hold the two together.

Shapes: T tokens, N of them wanted (the last block answers only there), D model width.

    y_ND = run_block(block, x_TD, passing)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from luthier.models.attention import segment_attention
from luthier.models.kernels.rowwise import gate, gate_back, rotate
from luthier.models.kernels.varlen import Heads, attend, attend_back, serves
from luthier.models.segments import Segments, UnitTable, unit_table, wanted_table
from luthier.training.engine.norm import Norm
from luthier.training.engine.projection import Projection

Checkpointing = Literal["none", "selective", "full"]


@dataclass(frozen=True)
class Passing:
    """What all blocks of one forward share: who sees whom, positions, and what to keep.

    Attributes:
        ropes: cos and sin [T, C] by the kind of layer.
        wanted_N: the tokens at which the block answers, rising; None: all.
        tile: most tokens of the MLP at once; None: all.
    """

    segments: Segments
    ropes: Mapping[str, tuple[Tensor, Tensor]]
    checkpointing: Checkpointing = "none"
    wanted_N: Tensor | None = None
    tile: int | None = None

    def table(self) -> UnitTable:
        """Return who asks what, for the kernels."""
        return unit_table(self.segments) if self.wanted_N is None else wanted_table(self.segments, self.wanted_N)


@dataclass
class KeptAttention:
    """What attention's backward needs. `graph` is autograd's own, where no native kernel serves."""

    x_TD: Tensor
    scale_T: Tensor | None
    z_TR: Tensor
    raw_TS: Tensor | None
    qk_scales: tuple[Tensor, ...]
    qkv_TS: Tensor
    out_NX: Tensor
    lse_NH: Tensor | None
    graph: tuple[Tensor, Tensor] | None
    answer_ND: Tensor | None
    answer_scale_N: Tensor | None


@dataclass
class KeptMlp:
    """What the MLP's backward needs of one tile."""

    x_TD: Tensor
    scale_T: Tensor | None = None
    z_TR: Tensor | None = None
    gu_TF: Tensor | None = None
    low_TR: Tensor | None = None
    answer_TD: Tensor | None = None
    answer_scale_T: Tensor | None = None


@dataclass
class Half:
    """What both halves have: projections in and out, norms before and after, and the residual's factor."""

    inward: Projection
    outward: Projection
    before: Norm | None
    after: Norm | None
    factor: float

    def enter(self, x_TD: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the buffer with the normed input in its first columns, and the norm's roots."""
        h_TX = self.inward.buffer(len(x_TD))
        h_TD = h_TX[:, : self.inward.inputs]
        if self.before is not None:
            return h_TX, self.before.forward(x_TD, h_TD)
        h_TD.copy_(x_TD)
        return h_TX, None

    def leave(self, core_NX: Tensor, x_ND: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return x + what the half adds; and the addend and its roots where a norm comes after."""
        if self.after is None:
            return self.outward.forward(core_NX, x_ND, self.factor), None, None
        answer_ND = self.outward.forward(core_NX)
        y_ND = torch.empty_like(answer_ND)
        scale_N = self.after.forward(answer_ND, y_ND)
        return y_ND.mul_(self.factor).add_(x_ND) if self.factor != 1.0 else y_ND.add_(x_ND), answer_ND, scale_N

    def leave_back(
        self, dy_ND: Tensor, answer_ND: Tensor | None, scale_N: Tensor | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the gradients of the outward projection's output and of its buffer, and of the norm after."""
        da_ND = dy_ND if self.factor == 1.0 else dy_ND * self.factor
        grads: list[Tensor] = []
        if self.after is not None:
            assert answer_ND is not None and scale_N is not None
            back_ND = torch.empty_like(answer_ND)
            grads = self.after.backward(da_ND, answer_ND, scale_N, back_ND)
            da_ND = back_ND
        d_NX = self.outward.input_back(da_ND)
        self.outward.add_low_rank(d_NX)
        return da_ND, d_NX, grads

    def enter_back(
        self, d_TO: Tensor, x_TD: Tensor, scale_T: Tensor | None, z_TR: Tensor, add_TD: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Return the gradient of the half's input (`add_TD` comes past it), and of norm before and projection in."""
        d_TX = self.inward.input_back(d_TO, wants_input or bool(self.before and self.before.parameters))
        dz_TR = d_TX[:, self.inward.inputs :]
        norm_grads: list[Tensor] = []
        dx_TD: Tensor | None = None
        if not wants_input and not (self.before and self.before.parameters):
            h_TD = self.enter(x_TD)[0][:, : self.inward.inputs]
        else:
            self.inward.add_low_rank(d_TX)
            d_TD = d_TX[:, : self.inward.inputs]
            dx_TD = torch.empty_like(x_TD)
            if self.before is None or scale_T is None:
                torch.add(d_TD, add_TD, out=dx_TD)
                h_TD = x_TD
            else:
                h_TD = torch.empty_like(x_TD)
                norm_grads = self.before.backward(d_TD, x_TD, scale_T, dx_TD, add_TD, h_TD)
        return dx_TD, [*norm_grads, *self.inward.parameter_grads(d_TO, h_TD, z_TR, dz_TR)]


@dataclass
class Attention(Half):
    """x + out(attention(rope(qkv(norm(x)))))."""

    heads: Heads
    rope: str
    q_norm: Norm | None
    k_norm: Norm | None
    norms_heads: bool  # each head on its own (Qwen 3, Gemma 3), or all of a token together (OLMo 2)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained, in the order of the backward's gradients."""
        own = [*_trained(self.after), *_trained(self.q_norm), *_trained(self.k_norm)]
        return [*own, *self.outward.parameters, *_trained(self.before), *self.inward.parameters]

    def forward(self, x_TD: Tensor, at: Passing) -> tuple[Tensor, KeptAttention]:
        """Return the half's output at the wanted tokens, and what its backward needs."""
        h_TX, scale_T = self.enter(x_TD)
        qkv_TS = self.inward.forward(h_TX)
        z_TR = h_TX[:, self.inward.inputs :].clone()
        raw_TS, qk_scales = self._norm_heads(qkv_TS)
        rotate(self._rotated(qkv_TS), *at.ropes[self.rope])
        out_NX, lse_NH, graph = self._attend(qkv_TS, at)
        x_ND = x_TD if at.wanted_N is None else x_TD[at.wanted_N]
        y_ND, answer_ND, answer_scale_N = self.leave(out_NX, x_ND)
        kept = KeptAttention(
            x_TD, scale_T, z_TR, raw_TS, qk_scales, qkv_TS, out_NX, lse_NH, graph, answer_ND, answer_scale_N
        )
        return y_ND, kept

    def backward(
        self, dy_ND: Tensor, kept: KeptAttention, at: Passing, wants_input: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Return the gradients of the input and of `parameters`."""
        da_ND, d_NX, after_grads = self.leave_back(dy_ND, kept.answer_ND, kept.answer_scale_N)
        size = self.outward.inputs
        out_grads = self.outward.parameter_grads(da_ND, kept.out_NX[:, :size], kept.out_NX[:, size:], d_NX[:, size:])
        d_qkv_TS = self._attend_back(d_NX[:, :size], kept, at)
        rotate(self._rotated(d_qkv_TS), *at.ropes[self.rope], sign=-1.0)
        qk_grads = self._norm_heads_back(d_qkv_TS, kept)
        add_TD = dy_ND
        if at.wanted_N is not None:
            add_TD = torch.zeros_like(kept.x_TD).index_copy_(0, at.wanted_N, dy_ND)
        dx_TD, in_grads = self.enter_back(d_qkv_TS, kept.x_TD, kept.scale_T, kept.z_TR, add_TD, wants_input)
        return dx_TD, [*after_grads, *qk_grads, *out_grads, *in_grads]

    def _rotated(self, qkv_TS: Tensor) -> Tensor:
        heads = self.heads.heads + self.heads.kv_heads
        return qkv_TS[:, : heads * self.heads.size].view(len(qkv_TS), heads, self.heads.size)

    def _parts(self, qkv_TS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, kv = self.heads.heads * self.heads.size, self.heads.kv_heads * self.heads.size
        return qkv_TS[:, :q], qkv_TS[:, q : q + kv], qkv_TS[:, q + kv :]

    def _attend(self, qkv_TS: Tensor, at: Passing) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor] | None]:
        wanted = at.wanted_N
        rows = len(qkv_TS) if wanted is None else len(wanted)
        out_NX = self.outward.buffer(rows)
        out_NS = out_NX[:, : self.outward.inputs]
        if serves(qkv_TS.dtype, qkv_TS.device, self.heads.size):
            q, k, v = self._parts(qkv_TS)
            q = q if wanted is None else q[wanted]
            return out_NX, attend(q, k, v, self.heads, at.table(), out_NS), None
        with torch.enable_grad():
            leaf_TS = qkv_TS.detach().requires_grad_()
            answer_TS = segment_attention(*self._parts(leaf_TS), self.heads, at.segments)
            answer_NS = answer_TS if wanted is None else answer_TS[wanted]
        out_NS.copy_(answer_NS.detach())
        return out_NX, None, (leaf_TS, answer_NS)

    def _attend_back(self, d_NS: Tensor, kept: KeptAttention, at: Passing) -> Tensor:
        if kept.graph is not None:
            (d_qkv_TS,) = torch.autograd.grad(kept.graph[1], kept.graph[0], d_NS)
            return d_qkv_TS.contiguous()
        assert kept.lse_NH is not None
        d_qkv_TS = torch.empty_like(kept.qkv_TS)
        q, k, v = self._parts(kept.qkv_TS)
        dq, dk, dv = self._parts(d_qkv_TS)
        out_NS = kept.out_NX[:, : self.outward.inputs]
        if at.wanted_N is None:
            attend_back(d_NS, out_NS, kept.lse_NH, (q, k, v), self.heads, at.table(), (dq, dk, dv))
            return d_qkv_TS
        q_NS = q[at.wanted_N]
        dq_NS = torch.empty_like(q_NS)
        attend_back(d_NS, out_NS, kept.lse_NH, (q_NS, k, v), self.heads, at.table(), (dq_NS, dk, dv))
        dq.zero_()
        dq.index_copy_(0, at.wanted_N, dq_NS)
        return d_qkv_TS

    def _normed(self, qkv_TS: Tensor) -> list[tuple[Norm, Tensor]]:
        if self.q_norm is None or self.k_norm is None:
            return []
        q, k, _ = self._parts(qkv_TS)
        if self.norms_heads:
            size = self.heads.size
            q, k = q.view(len(q), -1, size), k.view(len(k), -1, size)
        return [(self.q_norm, q), (self.k_norm, k)]

    def _norm_heads(self, qkv_TS: Tensor) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        pairs = self._normed(qkv_TS)
        if not pairs:
            return None, ()
        raw_TS = qkv_TS[:, : -self.heads.kv_heads * self.heads.size].clone()
        return raw_TS, tuple(norm.forward(x, x) for norm, x in pairs)

    def _norm_heads_back(self, d_qkv_TS: Tensor, kept: KeptAttention) -> list[Tensor]:
        if kept.raw_TS is None:
            return []
        q = self.heads.heads * self.heads.size
        raws = [kept.raw_TS[:, :q], kept.raw_TS[:, q:]]
        if self.norms_heads:
            raws = [raw.view(len(raw), -1, self.heads.size) for raw in raws]
        grads: list[Tensor] = []
        for (norm, d), raw, scale in zip(self._normed(d_qkv_TS), raws, kept.qk_scales, strict=True):
            grads += norm.backward(d, raw, scale, d)
        return grads


@dataclass
class Mlp(Half):
    """x + down(act(gate(norm(x))) · up(norm(x)))."""

    activation: str

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained, in the order of the backward's gradients."""
        return [*_trained(self.after), *self.outward.parameters, *_trained(self.before), *self.inward.parameters]

    def forward(self, x_TD: Tensor, at: Passing) -> tuple[Tensor, list[KeptMlp]]:
        """Return the half's output, and what its backward needs, tile by tile."""
        parts = [
            self._forward(tile, at.checkpointing == "none") for tile in torch.split(x_TD, at.tile or len(x_TD) or 1)
        ]
        return (parts[0][0] if len(parts) == 1 else torch.cat([y for y, _ in parts])), [kept for _, kept in parts]

    def backward(self, dy_TD: Tensor, kept: list[KeptMlp], at: Passing) -> tuple[Tensor, list[Tensor]]:
        """Return the gradients of the input and of `parameters`."""
        parts = [
            self._backward(dy, tile)
            for dy, tile in zip(torch.split(dy_TD, at.tile or len(dy_TD) or 1), kept, strict=True)
        ]
        grads = parts[0][1]
        for _, more in parts[1:]:
            grads = [total.add_(grad) for total, grad in zip(grads, more, strict=True)]
        return (parts[0][0] if len(parts) == 1 else torch.cat([dx for dx, _ in parts])), grads

    def _forward(self, x_TD: Tensor, keeps: bool) -> tuple[Tensor, KeptMlp]:
        kept, gu_TF = self._gate_and_up(x_TD)
        m_TX = self.outward.buffer(len(x_TD))
        gate(gu_TF, m_TX[:, : self.outward.inputs], self.activation)
        y_TD, kept.answer_TD, kept.answer_scale_T = self.leave(m_TX, x_TD)
        kept.low_TR = m_TX[:, self.outward.inputs :].clone()
        return y_TD, (kept if keeps else KeptMlp(x_TD))

    def _gate_and_up(self, x_TD: Tensor) -> tuple[KeptMlp, Tensor]:
        h_TX, scale_T = self.enter(x_TD)
        gu_TF = self.inward.forward(h_TX)
        return KeptMlp(x_TD, scale_T, h_TX[:, self.inward.inputs :].clone(), gu_TF), gu_TF

    def _again(self, kept: KeptMlp) -> KeptMlp:
        """Compute again what was not kept; the way out only where a norm comes after it."""
        return self._forward(kept.x_TD, keeps=True)[1] if self.after else self._gate_and_up(kept.x_TD)[0]

    def _backward(self, dy_TD: Tensor, kept: KeptMlp) -> tuple[Tensor, list[Tensor]]:
        if kept.gu_TF is None:
            kept = self._again(kept)
        assert kept.gu_TF is not None and kept.z_TR is not None
        da_TD, dm_TX, after_grads = self.leave_back(dy_TD, kept.answer_TD, kept.answer_scale_T)
        size = self.outward.inputs
        m_TI = dm_TX[:, :size]
        gate_back(kept.gu_TF, m_TI, self.activation)  # gu becomes its gradient, and what was dm becomes m
        low_TR = self.outward.low_rank(m_TI) if kept.low_TR is None else kept.low_TR
        out_grads = self.outward.parameter_grads(da_TD, m_TI, low_TR, dm_TX[:, size:])
        dx_TD, in_grads = self.enter_back(kept.gu_TF, kept.x_TD, kept.scale_T, kept.z_TR, dy_TD, True)
        assert dx_TD is not None
        return dx_TD, [*after_grads, *out_grads, *in_grads]


def _trained(norm: Norm | None) -> list[torch.nn.Parameter]:
    return norm.parameters if norm else []


@dataclass
class Block:
    """A decoder block."""

    attention: Attention
    mlp: Mlp

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained at present, in the order of the backward's gradients."""
        return self.attention.parameters + self.mlp.parameters

    def forward(self, x_TD: Tensor, at: Passing) -> tuple[Tensor, Any]:
        """Return the block's output at the wanted tokens, and what is kept for the backward."""
        middle_ND, kept_attention = self.attention.forward(x_TD, at)
        y_ND, kept_mlp = self.mlp.forward(middle_ND, at)
        return y_ND, (x_TD if at.checkpointing == "full" else (kept_attention, kept_mlp))

    def backward(self, dy_ND: Tensor, kept: Any, at: Passing, wants_input: bool) -> tuple[Tensor | None, list[Tensor]]:
        """Return the gradients of the block's input and of `parameters`."""
        if isinstance(kept, Tensor):
            middle_ND, kept_attention = self.attention.forward(kept, at)
            kept_mlp = [KeptMlp(tile) for tile in torch.split(middle_ND, at.tile or len(middle_ND) or 1)]
        else:
            kept_attention, kept_mlp = kept
        d_middle_ND, mlp_grads = self.mlp.backward(dy_ND.contiguous(), kept_mlp, at)
        dx_TD, attention_grads = self.attention.backward(d_middle_ND, kept_attention, at, wants_input)
        return dx_TD, attention_grads + mlp_grads


def run_block(block: Block, x_TD: Tensor, at: Passing) -> Tensor:
    """Return the block's output at the wanted tokens, with its gradient."""
    if not torch.is_grad_enabled():
        return block.forward(x_TD, at)[0]
    out: Tensor = _BlockFunction.apply(block, at, x_TD, *block.parameters)  # type: ignore[no-untyped-call]
    return out


class _BlockFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, block: Block, at: Passing, x_TD: Tensor, *_: Tensor) -> Tensor:
        y_ND, kept = block.forward(x_TD, at)
        ctx.block, ctx.at, ctx.kept = block, at, kept
        return y_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_ND: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.kept is None:
            raise RuntimeError("a block's backward can run only once: it works in the memory that it kept")
        kept, ctx.kept = ctx.kept, None
        dx_TD, grads = ctx.block.backward(dy_ND, kept, ctx.at, ctx.needs_input_grad[2])
        return None, None, dx_TD, *grads
