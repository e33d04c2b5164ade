"""What answering costs: the KV cache, the work of reading a prompt and of writing one token, the time of a request.

Closed forms for a decoder, for what is not traced and to check what is; `luthier.planning.pace` turns work into time.

    >>> kv_cache_bytes(layers=32, kv_heads=8, head_width=128, length=8192, batch=1)
    1073741824
"""

from __future__ import annotations

from collections.abc import Sequence

from luthier.ground.plan_result import Pace
from luthier.machine.catalogue import Device
from luthier.planning.pace import pace_of
from luthier.planning.work import ModelFacts, Work, closed_form


def kv_cache_bytes(
    layers: int,
    kv_heads: int,
    head_width: int,
    length: int,
    batch: int,
    itemsize: float = 2,
    windows: Sequence[int | None] | None = None,
) -> int:
    """Return the bytes of cached keys and values: 2 × layers × kv heads × width × length × batch × bytes.

    Source: Pope et al. 2022, "Efficiently Scaling Transformer Inference", with kv heads for heads. Llama-3 8B at
    8,192 tokens: 2 × 32 × 8 × 128 × 8,192 × 2 = 1.07 GB a row.

    Args:
        length: tokens of a row, prompt and answer together.
        windows: of each layer, the most tokens that it looks back; None for a layer without a window.
    """
    lengths = [length] * layers if windows is None else [min(length, window or length) for window in windows]
    return round(2 * kv_heads * head_width * sum(lengths) * batch * itemsize)


def prompt_work(facts: ModelFacts, prompt_tokens: int, batch: int, weights_bytes: float) -> Work:
    """Return the work of reading prompts: a forward over all tokens, logits for the last of each row."""
    work = closed_form(facts, prompt_tokens * batch, 1 / prompt_tokens, prompt_tokens, "inference")
    return work + Work(product_bytes=weights_bytes)


def decode_work(facts: ModelFacts, length: float, batch: int, weights_bytes: float, cache_bytes: float) -> Work:
    """Return the work of writing one token in each row: all weights and the whole cache are read once.

    2 (N_b + V·d) operations a row, and 4 · length · d_q a layer for attention, which looks at every token before.
    """
    attention = 4.0 * length * facts.query_width * facts.layers
    return Work(
        flops=2.0 * (facts.block_weights + facts.head_weights) * batch,
        product_bytes=weights_bytes,
        other_bytes=cache_bytes,
        other_flops=attention * batch,
    )


def request_paces(
    facts: ModelFacts,
    device: Device,
    precision: str,
    *,
    prompt_tokens: int,
    output_tokens: int,
    batch: int,
    weights_bytes: float,
    cache_bytes: float,
) -> tuple[Pace, Pace]:
    """Return the paces of reading `batch` prompts at once, and of writing one token in each of their answers.

    Args:
        cache_bytes: of all rows at their full length; on the average an answer sees its prompt and half of itself.
    """
    reading = prompt_work(facts, prompt_tokens, batch, weights_bytes)
    length = prompt_tokens + output_tokens / 2
    share = length / max(1, prompt_tokens + output_tokens)
    writing = decode_work(facts, length, batch, weights_bytes, cache_bytes * share)
    return (
        pace_of(reading, device, precision, tokens=prompt_tokens * batch, steps=1, mode="prompt"),
        pace_of(writing, device, precision, tokens=batch, steps=output_tokens, mode="decode"),
    )
