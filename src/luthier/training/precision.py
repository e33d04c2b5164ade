"""Which precision weights and arithmetic have, from the task's words for it.

`bf16` computes with bfloat16 weights (float32 weights are cast as they are used), `fp32` in float32, and `fp16` in
float16 from float32 weights, with a scaled loss. A quantised base has its other weights in the arithmetic's precision.
TF32 is a mode of NVIDIA GPUs for float32 products; it has not been run here yet.

    with float32_products(spec, model.device.type, tell): train_rows(..., autocast=autocast_of(spec))
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch

from luthier.ground.events import Tell
from luthier.ground.spec import TrainSpec
from luthier.models.quantized import QuantizedKind


def base_precision(spec: TrainSpec) -> Literal["bf16", "fp32"]:
    """Return the precision in which the base model is loaded, but for weights that are quantised."""
    if spec.base in ("bf16", "fp32"):
        return spec.base
    return "bf16" if spec.precision == "bf16" else "fp32"


def base_quantized(spec: TrainSpec) -> QuantizedKind | None:
    """Return how the frozen linear layers are quantised, or None."""
    return spec.base if spec.base in ("int8", "nf4") else None


def autocast_of(spec: TrainSpec) -> torch.dtype | None:
    """Return the precision of the arithmetic if it is not that of the loaded weights, otherwise None."""
    if spec.precision == "fp16":
        return torch.float16
    return torch.bfloat16 if (spec.base, spec.precision) == ("fp32", "bf16") else None


@contextlib.contextmanager
def float32_products(spec: TrainSpec, device: str, tell: Tell) -> Iterator[None]:
    """Let a GPU multiply in TF32 within the block, if `train.tf32` says so; tell what a setting cannot do here."""
    if spec.precision == "fp16" and device == "cpu":
        text = "float16 is slow on this processor (it has no fast products for it); train.precision: bf16 is quick"
        tell({"kind": "warning", "text": text})
    if spec.tf32 and device != "cuda":
        tell({"kind": "warning", "text": "train.tf32 has no effect here: only NVIDIA GPUs have TF32"})
    if not spec.tf32 or device != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
