"""What operators use inside of themselves on a processor, where a trace cannot see it.

PyTorch's operators on numbers of two precisions first copy the narrower ones, whole, into the wider precision
(TensorIterator on the CPU); reductions that are told a wider result do the same with their input. Measured beside the
resident memory of single operators; what else they use (packed blocks of matrix products) is about a megabyte a thread.

    >>> hidden_bytes("add_", [torch.zeros(9), torch.zeros(9, dtype=torch.bfloat16)], torch.float32)
    36
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ELEMENTWISE = frozenset({
    "add", "add_", "sub", "sub_", "rsub", "mul", "mul_", "div", "div_", "lerp", "lerp_", "addcmul", "addcmul_",
    "addcdiv", "addcdiv_", "maximum", "minimum", "where", "pow",
})  # fmt: skip
_REDUCTIONS = frozenset({"sum", "mean", "linalg_vector_norm", "norm"})


def hidden_bytes(name: str, tensors: Sequence[Tensor], made: torch.dtype | None) -> int:
    """Return the bytes of copies inside an operator.

    Args:
        name: of the aten operator, without overload.
        tensors: that go in.
        made: the precision of the result.
    """
    if name in _ELEMENTWISE:
        wide = [tensor for tensor in tensors if tensor.ndim and tensor.is_floating_point()]
        if len({tensor.dtype for tensor in wide}) < 2:
            return 0
        common = max((tensor.dtype for tensor in wide), key=lambda dtype: dtype.itemsize)
        return sum(tensor.numel() for tensor in wide if tensor.dtype != common) * common.itemsize
    if name in _REDUCTIONS and made is not None and tensors and made.itemsize > tensors[0].itemsize:
        return tensors[0].numel() * made.itemsize
    return 0
