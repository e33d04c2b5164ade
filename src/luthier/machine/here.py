"""The device of this machine, in the terms of the catalogue: facts, and speeds that were measured here.

A GPU that the catalogue knows has the catalogue's peaks and its own memory; any other device, and every processor, has
what was measured (`luthier.machine.speed`) or, unmeasured, what the catalogue says. Predicts nothing.

    this_device().flops_s("bf16")
"""

from __future__ import annotations

from dataclasses import replace

import torch

from luthier.machine.catalogue import Device, catalogue_match
from luthier.machine.describe import processor_name
from luthier.machine.instructions import native_precisions
from luthier.machine.limits import memory_total_bytes
from luthier.machine.speed import Speeds, best_device, speeds

CONTEXT_BYTES = 500_000_000  # of a CUDA or HIP runtime before the first tensor: a guess
_UNMEASURED_FLOPS_S = 1e11  # of an unknown processor that must not be measured: a few cores with AVX2
_UNMEASURED_BYTES_S = 2e10


def this_device(measure: bool = True) -> Device:
    """Return the device that PyTorch would use here: a CUDA or Apple GPU if it has one, otherwise the processor.

    Args:
        measure: measure its speeds (about two seconds; kept for a week) rather than take the catalogue's or a guess.
    """
    kind = best_device()
    if kind == "cuda":
        return _cuda_device(measure)
    known = catalogue_match(processor_name())
    found = speeds() if measure else None
    return _own_device("apple" if kind == "mps" else "cpu", known, found)


def _cuda_device(measure: bool) -> Device:
    name = torch.cuda.get_device_name()
    memory_bytes = int(torch.cuda.get_device_properties(0).total_memory)
    if (known := _cuda_match(name, memory_bytes)) is not None:
        measured = speeds().products_flops_s if measure else {}
        return replace(known, memory_bytes=memory_bytes, speeds=measured)
    found = speeds()  # nothing else is known of it
    return Device(
        name=name,
        kind="gpu",
        memory_bytes=memory_bytes,
        bandwidth_bytes_s=found.bandwidth_bytes_s,
        peak_flops_s=_measured(found),
        native=native_precisions("cuda"),
        overhead_bytes=CONTEXT_BYTES,
        source=_said(found),
        measured=True,
        speeds=found.products_flops_s,
    )


def _cuda_match(name: str, memory_bytes: int) -> Device | None:
    """Return the catalogue's device; an A100 is told from the other one by its memory."""
    plain = name.lower()
    if "a100" in plain:
        return catalogue_match("A100 40GB" if memory_bytes < 60 * 2**30 else "A100 80GB")
    return catalogue_match(name)


def _own_device(kind: str, known: Device | None, found: Speeds | None) -> Device:
    guess = known or Device(
        name=processor_name(),
        kind="apple" if kind == "apple" else "cpu",
        memory_bytes=None,
        bandwidth_bytes_s=_UNMEASURED_BYTES_S,
        peak_flops_s={"fp32": _UNMEASURED_FLOPS_S},
        native=native_precisions(best_device()),
        source="a guess: not in the catalogue and not measured",
    )
    device = replace(guess, name=processor_name(), memory_bytes=memory_total_bytes())
    if found is None:
        return device
    return replace(
        device,
        native=native_precisions(best_device()),
        bandwidth_bytes_s=found.bandwidth_bytes_s,
        peak_flops_s=_measured(found),
        source=_said(found),
        note="",
        measured=True,
        speeds=found.products_flops_s,
    )


def _measured(found: Speeds) -> dict[str, float]:
    return {name: value for name, value in found.products_flops_s.items() if value is not None}


def _said(found: Speeds) -> str:
    return f"measured on this machine, best of several runs, {found.threads} threads, {found.date[:10]}"
