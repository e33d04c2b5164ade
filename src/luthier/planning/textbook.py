"""Rules of thumb, as the textbooks and other tools give them, to stand beside a traced plan. None decides anything.

Weights are counted in parameters, memory in bytes; 1 GB is 10^9 bytes. A rule says nothing about where it fails; the
docstrings do.

    >>> round(inference_bytes(13_000_000_000, "fp16") / 1e9, 1)
    31.2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from luthier.ground.errors import BadInput

Recomputation = Literal["none", "selective", "full"]

BITS: Mapping[str, float] = {"fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "int4": 4, "nf4": 4}
INT4_GROUP = 128  # weights that share one scale in the usual files of GPTQ and AWQ
NF4_BLOCK = 64  # QLoRA, Dettmers et al. 2023, section 3
NF4_SCALES = 256  # scales that share one float32 scale of their own, double quantisation


def weights_bytes(parameters: int, precision: str, *, group: int | None = None, scale_bits: float = 16) -> int:
    """Return the bytes of stored weights: parameters × bits / 8, and the scales of 4-bit groups.

    10 billion parameters: fp32 40 GB, fp16 20 GB, int8 10 GB, int4 5.16 GB with a 16-bit scale for each 128 weights
    and no zero points. nf4 has an 8-bit scale for each 64 weights and a float32 one for each 256 of those (0.127 bits a
    weight; QLoRA, Dettmers et al. 2023). Left out are the scales of int8, one for each row of a matrix, and whatever a
    format keeps in 16 bits (embedding, head, norms).

    Args:
        group: weights that share a scale of `scale_bits`; None: as above.
    """
    bits = bits_of(precision)
    if precision == "nf4" and group is None:
        bits += 8 / NF4_BLOCK + 32 / (NF4_BLOCK * NF4_SCALES)
    elif group is not None or precision == "int4":
        bits += scale_bits / (group or INT4_GROUP)
    return round(parameters * bits / 8)


def inference_bytes(parameters: int, precision: str) -> int:
    """Return weights × 1.2: 13 billion in fp16 are 26 GB and 20 %, about 31 GB.

    Source: EleutherAI, "Transformer Math 101" (2023), which calls the 20 % overhead of the forward. It knows neither
    length nor batch, so it fails wherever the KV cache is large.
    """
    return round(1.2 * parameters * bits_of(precision) / 8)


def full_finetune_bytes(parameters: int, *, gradient_bits: int = 16) -> int:
    """Return 16 bytes a parameter: mixed precision with Adam, without activations.

    2 (16-bit weights) + 2 (16-bit gradients) + 4 + 4 + 4 (float32 weights and two moments): ZeRO, Rajbhandari et al.
    2020, section 3.1. With float32 gradients 18. Two other ways to 16: all in float32 (4 + 4 + 8), and Luthier's shards
    (docs/scale.md).
    """
    return parameters * (14 + gradient_bits // 8)


def adapter_finetune_bytes(parameters: int, adapter_parameters: int, precision: str) -> int:
    """Return frozen weights in their precision and 16 bytes for each trained one (float32 weight, gradient, Adam).

    LoRA (Hu et al. 2021) on 16 bits, QLoRA on nf4; activations not counted.
    """
    return weights_bytes(parameters, precision) + 16 * adapter_parameters


def accelerate_bytes(parameters: int, precision: str) -> int:
    """Return weights × 4, as `accelerate estimate-memory` has it for training with Adam.

    1 × weights, 1 × gradients, 2 × optimizer, in the weights' precision (accelerate, `estimate_training_usage`: in
    float32 the step's 4 × weights; in 16 bits the optimizer's 2 × float32 weights, which is the same 4). The tool gives
    no figure for int8 and int4; the rule is applied to them as it stands. No activations, no adapters.
    """
    return round(4 * parameters * bits_of(precision) / 8)


def korthikanti_bytes(
    layers: int, seq: int, batch: int, hidden: int, heads: int, recomputation: Recomputation = "none"
) -> int:
    """Return the activations that are kept for the backward of all blocks.

    With s = seq, b = batch, h = hidden, a = heads, for each block: s b h (34 + 5 a s / h); 34 s b h if what lies inside
    of attention is computed again (selective, or any fused attention); 2 s b h if only the block's input is kept
    (full). Source: Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", equation
    1 and table 2, on one device.

    It holds for the block of GPT-2 and 3: 16-bit activations, dropout masks of one byte, an MLP of 4 h with GELU, as
    many key as query heads. Embedding, last norm, logits and loss are not in it.
    """
    sbh = seq * batch * hidden
    if recomputation == "full":
        return layers * 2 * sbh
    scores = 5 * heads * seq * seq * batch if recomputation == "none" else 0
    return layers * (34 * sbh + scores)


def rules(
    parameters: int, precision: str, method: str, *, adapter_parameters: int = 0, base: str | None = None
) -> dict[str, int]:
    """Return what the rules of thumb say about a method, by name: bytes.

    Args:
        precision: of the arithmetic.
        method: `inference`, `full`, `lora`, `qlora` or another adapter kind.
        base: precision of the frozen weights; None: nf4 for qlora, else as `precision`.
    """
    held = base or ("nf4" if method == "qlora" else precision)
    said = {"weights × 1.2": inference_bytes(parameters, held)}
    if method == "inference":
        return said
    said["16 bytes per parameter"] = full_finetune_bytes(parameters)
    said["accelerate: weights × 4"] = accelerate_bytes(parameters, precision)
    if method != "full" and adapter_parameters:
        said["frozen weights + 16 bytes per trained parameter"] = adapter_finetune_bytes(
            parameters, adapter_parameters, held
        )
    return said


def bits_of(precision: str) -> float:
    """Return the bits of one stored number, scales not included."""
    if precision not in BITS:
        raise BadInput(f'"{precision}" is not a precision', fix="name one of: " + ", ".join(BITS))
    return BITS[precision]
