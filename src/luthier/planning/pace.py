"""How long a stretch of work takes on a device: a roofline with a stated share of the device's speed.

Products compute and move bytes; fused attention has a speed of its own; all else moves bytes; each call of an operator
costs the host a moment. On a processor arithmetic, bytes and calls follow one another. On a GPU, whose shares come from
published whole steps, the longest of the three decides, since the host runs ahead of the device. Measures nothing.

    pace_of(work, find_device("H100"), "bf16", tokens=4096).step_s
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from luthier.ground.errors import BadInput
from luthier.ground.plan_result import Pace
from luthier.machine.catalogue import PRECISIONS, Device
from luthier.planning.work import Work

Mode = Literal["training", "prompt", "decode"]


@dataclass(frozen=True)
class Efficiency:
    """What share of a device's figures a program reaches.

    Attributes:
        products: of the speed of matrix products.
        attention: of the same speed, by fused attention.
        bandwidth: of the memory's bandwidth.
        call_s: seconds of the host for one operator that is no view: Python, autograd and dispatch.
        in_turn: whether arithmetic, bytes and calls add up; otherwise the longest of them is the time.
        source: where the shares come from.
    """

    products: float
    attention: float
    bandwidth: float
    call_s: float
    in_turn: bool
    source: str


# Products: `benchmarks/profile_step.py` (docs/engine.md): 76.5 % of 0.909 s for 1,262 tokens, whose products are 603
# GFLOP and 3.5 GB: 0.94 of 1,061 GFLOP/s if 0.6 of 67 GB/s is paid for the bytes. Attention: 7.2 % for 23 GFLOP by
# 2 · S · d_q forward and 2.5 times that behind, 350 GFLOP/s, a third of the products' speed. Bandwidth: the gated
# activation, 1.05 GB in 26 ms. Calls: what remains, 94 ms for 3,050 operators that are no views.
_CPU = Efficiency(0.94, 0.33, 0.6, 31e-6, True, "shares of one profiled step, docs/engine.md")

# Whole steps, the operations of recomputation counted. Dense models of 0.76 to 70 billion weights in bf16, rows of 512
# to 8,192 tokens on H100: 35 to 59 %, mostly 40 to 50 (llm-foundry's training benchmarks); 38 to 43 % (Llama 3, 2024);
# 44 to 57 % on A100 (Korthikanti et al. 2022). Host: 5 to 25 µs for an operator of eager PyTorch; 10 is taken.
_TRAINING = Efficiency(0.45, 0.45, 0.6, 10e-6, False, "published whole steps of 0.76B to 70B models: 35 to 59 %")
_PROMPT = replace(_TRAINING, products=0.5, attention=0.5, source="assumed a little above published training steps")
# NVIDIA's NeMo tables, Llama-2-7B, one row, 20 tokens after 128: 234 ms on A100 and 154 ms on H100, during which the
# weights are read 20 times: 57 and 52 % of the bandwidth.
_DECODE = replace(_PROMPT, bandwidth=0.55, source="published latencies of Llama-2-7B: 52 to 57 % of the bandwidth")

EFFICIENCIES: Mapping[tuple[str, Mode], Efficiency] = {
    ("host", "training"): _CPU,
    ("host", "prompt"): _CPU,
    ("host", "decode"): _CPU,
    ("accelerator", "training"): _TRAINING,
    ("accelerator", "prompt"): _PROMPT,
    ("accelerator", "decode"): _DECODE,
}
CATALOGUED_CPU = 0.6  # a catalogue's peak is clock × units; the best products reach about so much of it: a guess
MEASURED_GPU = 0.75  # likewise: what was measured is this share of the data sheet, which the shares above are of


def pace_of(
    work: Work,
    device: Device,
    precision: str,
    efficiency: float | Efficiency | None = None,
    *,
    tokens: float,
    steps: int | None = None,
    mode: Mode = "training",
) -> Pace:
    """Return how long `work`, one step, takes on `device`, and what was assumed.

    Args:
        precision: of the arithmetic (fp32, bf16, …), not of frozen weights that are unpacked first.
        efficiency: the share of the products' speed that is reached, or all shares; None: see `EFFICIENCIES`.
        tokens: of a step.
        steps: of the run; None if it is not known, as for inference.

    Raises:
        BadInput: the precision has no name here, or the share is not between 0 and 1.
    """
    if precision not in PRECISIONS:
        raise BadInput(f'"{precision}" is not a precision', fix="name one of: " + ", ".join(PRECISIONS))
    shares = efficiency_of(device, mode, efficiency)
    parts = _parts(work, device, precision, shares)
    step_s = (sum if shares.in_turn else max)(parts.values())
    return Pace(
        step_s=step_s,
        steps=steps,
        total_s=None if steps is None else steps * step_s,
        tokens_per_s=tokens / step_s if step_s else 0.0,
        flops=work.flops + work.other_flops,
        bytes_moved=work.product_bytes + work.other_bytes,
        products_flops_s=device.flops_s(precision),
        bandwidth_bytes_s=device.bandwidth_bytes_s,
        efficiency=shares.products,
        bound="bandwidth" if parts["bytes"] > parts["arithmetic"] else "arithmetic",
        source=_source(device, precision, shares, parts),
    )


def efficiency_of(device: Device, mode: Mode = "training", given: float | Efficiency | None = None) -> Efficiency:
    """Return the shares that are taken for a device."""
    if isinstance(given, Efficiency):
        return given
    host = device.kind in ("cpu", "apple")
    shares = EFFICIENCIES["host" if host else "accelerator", mode]
    if given is not None:
        if not 0 < given <= 1:
            raise BadInput(f"an efficiency of {given:g} is not possible", fix="give a share above 0 and up to 1")
        return replace(shares, products=given, attention=shares.attention * given / shares.products, source="as given")
    if host and not device.measured:
        share = shares.products * CATALOGUED_CPU
        source = f"{shares.source}, of {CATALOGUED_CPU:.0%} of the catalogue's peak"
        return replace(shares, products=share, attention=shares.attention * CATALOGUED_CPU, source=source)
    if not host and device.measured:
        return replace(shares, products=shares.products / MEASURED_GPU, attention=shares.attention / MEASURED_GPU)
    return shares


def _parts(work: Work, device: Device, precision: str, shares: Efficiency) -> dict[str, float]:
    """Return the seconds of arithmetic, of moving bytes, and of calling operators.

    In turn, products pay for their bytes as well: a processor packs each matrix before it multiplies.
    """
    speed = device.flops_s(precision)
    return {
        "arithmetic": work.flops / (speed * shares.products) + work.other_flops / (speed * shares.attention),
        "bytes": (work.product_bytes + work.other_bytes) / (device.bandwidth_bytes_s * shares.bandwidth),
        "calls": work.calls * shares.call_s,
    }


def _source(device: Device, precision: str, shares: Efficiency, parts: Mapping[str, float]) -> str:
    """Return where the figures come from, in one sentence."""
    ran = device.computes_in(precision)
    inside = "" if ran == precision else f" ({device.name} has no {precision} units: as {ran})"
    said = f"{device.source or device.name}; {device.flops_s(precision) / 1e9:,.0f} GFLOP/s in {precision}{inside}"
    said += (
        f" and {device.bandwidth_bytes_s / 1e9:,.0f} GB/s, of which {shares.products:.0%} and {shares.bandwidth:.0%}"
    )
    said += f" are assumed to be reached ({shares.source})"
    if parts["calls"] > max(parts["arithmetic"], parts["bytes"]):
        said += f"; the host's {parts['calls']:.3g} s of calling operators set the pace"
    return said
