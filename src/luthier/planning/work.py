"""What one stretch of computing costs a machine: operations, bytes moved, calls; by operator, and in closed form.

A `Work` says nothing about time (`luthier.planning.pace` does) and nothing about memory held. The trace adds up
`work_of_call` over every operator that it sees; `closed_form` says what a step must come to, and tests hold the two
together. Multiplying and adding counts as two operations. No tensor is touched here, only shapes.

    >>> work_of_call("mm", [(4, 8), (8, 16)], [2, 2], [(4, 16)], [2]).flops
    1024.0
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Shape = Sequence[int]
Method = Literal["full", "lora", "qlora", "inference"]
Checkpointing = Literal["none", "selective", "full"]

ATTENTION_BACKWARD = 2.5  # products of a fused backward over those of its forward: five against two (Dao 2023)


@dataclass(frozen=True)
class Work:
    """Operations and bytes, which can be added and scaled.

    Attributes:
        flops: of matrix products, batched ones and convolutions included.
        product_bytes: that these read and write.
        other_bytes: that everything else reads and writes.
        other_flops: of fused attention, which runs at a speed of its own. Additions and products element by element
            are not counted: the bytes that they move take longer.
        calls: operators that were called; a view is one as well if it is passed in.
    """

    flops: float = 0.0
    product_bytes: float = 0.0
    other_bytes: float = 0.0
    other_flops: float = 0.0
    calls: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.flops + other.flops,
            self.product_bytes + other.product_bytes,
            self.other_bytes + other.other_bytes,
            self.other_flops + other.other_flops,
            self.calls + other.calls,
        )

    def __sub__(self, other: Work) -> Work:
        """Return what came after `other`, which is a part of this."""
        return self + other * -1

    def __mul__(self, factor: float) -> Work:
        """Return the work of `factor` such stretches."""
        return Work(
            self.flops * factor,
            self.product_bytes * factor,
            self.other_bytes * factor,
            self.other_flops * factor,
            round(self.calls * factor),
        )

    __rmul__ = __mul__


def work_of_call(
    name: str,
    shapes_in: Sequence[Shape],
    itemsizes_in: Sequence[int],
    shapes_out: Sequence[Shape],
    itemsizes_out: Sequence[int],
    *,
    causal: bool = True,
) -> Work:
    """Return what one operator costs, from the shapes of its tensors in the order of its arguments.

    Args:
        name: of the aten operator, with or without `aten::`, overload and the underscore of in-place forms.
        shapes_in, itemsizes_in: of the tensors that go in; an `out=` tensor may stand at the end.
        causal: whether fused attention skips the half above the diagonal, as it does in decoders.
    """
    plain = _plain_name(name)
    ins, outs = _bytes_of(shapes_in, itemsizes_in), _bytes_of(shapes_out, itemsizes_out)
    if plain in _PRODUCTS:
        return Work(_PRODUCTS[plain](shapes_in, shapes_out), float(sum(ins) + sum(outs)), calls=1)
    if plain.startswith("_scaled_dot_product"):
        flops = _attention(plain, shapes_in) * (0.5 if causal else 1.0)
        return Work(other_bytes=float(sum(ins) + sum(outs)), other_flops=flops, calls=1)
    return Work(other_bytes=float(_moved(plain, ins, outs)), calls=1)


@dataclass(frozen=True)
class ModelFacts:
    """The numbers of a decoder that its arithmetic depends on.

    Attributes:
        block_weights: in the linear layers of all blocks that one token passes (N_b); of a mixture, the active ones.
        head_weights: vocabulary × width (V·d), tied or not.
        layers: number of blocks.
        query_width: heads × width of a head (d_q).
        adapter_weights: that are trained beside the frozen ones (P).
        gate_up_weights: of the MLPs' first products, which `checkpointing: selective` computes again.
    """

    block_weights: int
    head_weights: int
    layers: int
    query_width: int
    adapter_weights: int = 0
    gate_up_weights: int = 0


def closed_form(
    facts: ModelFacts,
    tokens: float,
    target_share: float,
    length: float,
    method: Method = "lora",
    checkpointing: Checkpointing = "none",
) -> Work:
    """Return the operations of `tokens` tokens in rows of `length`, of which a share predicts targets.

    A weight costs 2 operations a token in the forward, 2 for the gradient of its input, 2 for its own. With N_b, V·d,
    P as in `ModelFacts` and f the share of targets (the head sees no other position):

    - inference: 2 N_b + 2 V·d f
    - full: 6 N_b + 6 V·d f
    - lora, qlora: 4 N_b + 6 P + 4 V·d f, since frozen weights have no gradient
    - checkpointing: + 2 N_b (+ 2 P) with full, + 2 G (gate and up) with selective
    - attention, causal: 2 · length · d_q · layers in the forward, 2.5 times that in the backward, once more with full

    The trace may find less: the engine's last block computes only what targets need. Bytes and calls are not given.
    """
    f, b = target_share, facts
    if method == "inference":
        linear = 2 * b.block_weights + 2 * b.head_weights * f
    elif method == "full":
        linear = 6 * b.block_weights + 6 * b.head_weights * f
    else:
        linear = 4 * b.block_weights + 6 * b.adapter_weights + 4 * b.head_weights * f
    passes = 1.0 if method == "inference" else 1.0 + ATTENTION_BACKWARD
    if checkpointing == "full" and method != "inference":
        linear += 2 * b.block_weights + (0 if method == "full" else 2 * b.adapter_weights)
        passes += 1.0
    elif checkpointing == "selective" and method != "inference":
        linear += 2 * b.gate_up_weights
    attention = passes * causal_attention_flops(length, b.query_width) * b.layers
    return Work(flops=tokens * linear, other_flops=tokens * attention)


def causal_attention_flops(length: float, query_width: int) -> float:
    """Return the operations of one token's attention in one block, forward, averaged over a row of `length`.

    Scores and their sum over values are 2 · d_q each for every token seen, and half the row is seen on average.
    """
    return 2.0 * length * query_width


# -- single operators ----------------------------------------------------------------------------------------------


def _plain_name(name: str) -> str:
    """Return `addmm` for `aten::addmm_`, `aten.addmm.out`, `addmm`."""
    plain = name.removeprefix("aten::").removeprefix("aten.").split(".")[0]
    return plain[:-1] if plain.endswith("_") and plain[:-1] in _PRODUCTS else plain


def _bytes_of(shapes: Sequence[Shape], itemsizes: Sequence[int]) -> list[int]:
    return [math.prod(shape) * itemsize for shape, itemsize in zip(shapes, itemsizes, strict=True)]


def _product(first: int) -> Callable[[Sequence[Shape], Sequence[Shape]], float]:
    """Return the rule of [..., m, k] × [..., k, n] whose left factor is argument `first`; n is 1 for a vector."""

    def rule(ins: Sequence[Shape], _outs: Sequence[Shape]) -> float:
        left, right = ins[first], ins[first + 1]
        return 2.0 * math.prod(left) * (right[-1] if len(right) > 1 else 1)

    return rule


def _linear(ins: Sequence[Shape], _outs: Sequence[Shape]) -> float:
    return 2.0 * math.prod(ins[0]) * ins[1][0]  # the weight is [out, in]


def _grouped(ins: Sequence[Shape], outs: Sequence[Shape]) -> float:
    """Products by group: each row meets one group's matrix; with three dimensions out, groups share the sum over k."""
    if len(outs[0]) == 3 and len(ins[0]) == 2:
        return 2.0 * math.prod(ins[0]) * ins[1][-1]
    return 2.0 * math.prod(outs[0]) * ins[0][-1]


def _convolution(ins: Sequence[Shape], outs: Sequence[Shape]) -> float:
    return 2.0 * math.prod(outs[0]) * math.prod(ins[1][1:])  # the weight is [out, in / groups, *kernel]


def _convolution_back(ins: Sequence[Shape], outs: Sequence[Shape]) -> float:
    """Gradients of input and weight cost one forward each; a bias's, of one dimension, next to nothing."""
    return 2.0 * math.prod(ins[0]) * math.prod(ins[2][1:]) * sum(len(shape) > 1 for shape in outs)


_PRODUCTS: dict[str, Callable[[Sequence[Shape], Sequence[Shape]], float]] = {
    "mm": _product(0),
    "mv": _product(0),
    "dot": _product(0),
    "bmm": _product(0),
    "_int_mm": _product(0),
    "_scaled_mm": _product(0),
    "addmm": _product(1),
    "addmv": _product(1),
    "baddbmm": _product(1),
    "addbmm": _product(1),
    "linear": _linear,
    "_grouped_mm": _grouped,
    "convolution": _convolution,
    "_convolution": _convolution,
    "convolution_backward": _convolution_back,
}


def _attention(name: str, ins: Sequence[Shape]) -> float:
    """Return the operations of attention without a mask: q [B, H, T, D], k [B, G, S, D], v [B, G, S, E]."""
    backward = name.endswith("backward")
    query, key, value = ins[1:4] if backward else ins[:3]
    forward = 2.0 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    return forward * (ATTENTION_BACKWARD if backward else 1.0)


_FREE = frozenset({
    "view", "_unsafe_view", "reshape", "_reshape_alias", "transpose", "t", "permute", "expand", "slice", "select",
    "narrow", "split", "split_with_sizes", "chunk", "unbind", "squeeze", "unsqueeze", "detach", "alias", "as_strided",
    "diagonal", "unfold", "movedim", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided",
    "lift_fresh", "resize_", "set_",
})  # fmt: skip
_GATHERS = frozenset({"embedding", "index_select", "index", "gather", "take", "take_along_dim"})
_SCATTERS = frozenset({
    "index_put_", "_index_put_impl_", "index_add_", "index_copy_", "scatter_", "scatter_add_", "scatter_reduce_",
})  # fmt: skip
_OVERWRITES = frozenset({
    "copy_", "fill_", "zero_", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "new_zeros",
    "new_ones", "new_full", "normal_", "uniform_",
})  # fmt: skip


def _moved(name: str, ins: list[int], outs: list[int]) -> int:
    """Return the bytes that an operator other than a product reads and writes."""
    if name in _FREE:
        return 0
    if name in _GATHERS:  # of the table only the rows that are asked for
        return 2 * sum(outs) + sum(ins[1:])
    if name in _SCATTERS:  # the last input is added to as many places of the first
        return sum(ins[1:]) + 2 * ins[-1]
    if name in _OVERWRITES:  # what stood there before is not read
        return sum(ins[1:]) + sum(outs)
    if not outs and name.endswith("_"):  # lists of tensors, changed in place
        return 2 * sum(ins)
    return sum(ins) + sum(outs)
