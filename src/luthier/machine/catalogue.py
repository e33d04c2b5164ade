"""The device catalogue: memory, bandwidth and peak arithmetic of GPUs, TPUs, processors and Apple chips, as data.

The figures lie in `devices.json` beside this file, each device with its source; what nobody publishes is null there and
missing here. `luthier.machine.here` tells of the device of this machine. Predicts nothing.

    >>> find_device("rtx-4090").memory_bytes > 25e9
    True
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from luthier.ground.errors import BadInput

Kind = Literal["gpu", "tpu", "cpu", "apple"]
PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fp8", "int8", "int4")

# Where products run that a device has no units for: the weights are unpacked, or the numbers widened, to the first of
# these that it has. TF32 is only a faster way to do fp32.
_STANDS_IN: Mapping[str, tuple[str, ...]] = {
    "fp32": ("bf16",),  # TPUs make an fp32 product of several bf16 ones; no figure is published
    "tf32": ("fp32",),
    "bf16": ("fp32",),
    "fp16": ("fp32",),
    "fp8": ("bf16", "fp16", "fp32"),
    "int8": ("bf16", "fp16", "fp32"),
    "int4": ("bf16", "fp16", "fp32"),
}
_MARKS = re.compile(r"\((r|tm)\)|\b(nvidia|amd|intel|apple|geforce|tesla|processor|\d+-core|cpu)\b")
_TPU_PASSES = 6  # bf16 products in one fp32 product: XLA's precision "highest" splits each operand into three


@dataclass(frozen=True)
class Device:
    """One device. A peak is dense operations a second; nothing here knows how much of it a program reaches."""

    name: str
    kind: Kind
    memory_bytes: int | None  # that a program can address; None: whatever was installed
    bandwidth_bytes_s: float
    peak_flops_s: Mapping[str, float]  # by precision; only those that are published or measured
    native: tuple[str, ...]  # precisions that have arithmetic of their own
    power_w: float | None = None
    link_bytes_s: float | None = None  # to the other devices of a node, one direction
    node_network_bytes_s: float = 1.25e9  # that a node sends, one direction: a guess
    overhead_bytes: int = 0  # of the runtime before the first tensor: a guess
    source: str = ""
    note: str = ""
    aliases: tuple[str, ...] = ()
    model: str = ""  # the catalogue's name, where `name` says more
    measured: bool = False  # whether bandwidth and peaks were measured on this machine
    speeds: Mapping[str, float | None] = field(default_factory=dict)  # measured on this machine, by precision

    def flops_s(self, precision: str) -> float:
        """Return the operations a second of matrix products in `precision`, or in what stands in for it here."""
        if precision in self.peak_flops_s:
            return self.peak_flops_s[precision]
        stand_in = next((name for name in _STANDS_IN[precision] if name in self.peak_flops_s), None)
        if stand_in is None:
            return max(self.peak_flops_s.values())
        passes = _TPU_PASSES if precision == "fp32" else 1
        return self.peak_flops_s[stand_in] / passes

    def computes_in(self, precision: str) -> str:
        """Return the precision in which such products really run: itself, or what stands in for it."""
        if precision in self.peak_flops_s:
            return precision
        return next((name for name in _STANDS_IN[precision] if name in self.peak_flops_s), precision)


def find_device(name: str) -> Device:
    """Return the device of this name; case, spaces and dashes do not matter.

    A memory size behind the name (`M4 Max 64GB`) sets the memory of devices that are sold with several.

    Raises:
        BadInput: there is no such device, or the name means several.
    """
    by_name = _by_name()
    if (found := by_name.get(_plain(name))) is not None:
        return found
    stem, memory_bytes = _memory_behind(name)
    found = by_name.get(_plain(stem))
    if memory_bytes is not None and found is not None and found.memory_bytes is None:
        title = f"{found.name} {memory_bytes // 2**30}GB"
        return replace(found, name=title, model=found.name, memory_bytes=memory_bytes)
    raise BadInput(
        f'the device "{name}" is not in the catalogue{_did_you_mean(name)}',
        fix="name one of: " + ", ".join(device.name for device in all_devices()),
    )


@lru_cache(maxsize=1)
def all_devices() -> tuple[Device, ...]:
    """Return every device of the catalogue, in its order."""
    data = json.loads(Path(__file__).with_name("devices.json").read_text(encoding="utf-8"))
    return tuple(_device(entry) for entry in data["devices"])


def catalogue_match(reported: str) -> Device | None:
    """Return the device that a driver or the system calls `reported`, or None; vendors and marks are left out."""
    text = _MARKS.sub(" ", reported.lower())
    by_name = _by_name()
    for candidate in (reported, text, text.split("@")[0]):
        if (found := by_name.get(_plain(candidate))) is not None:
            return found
    return None


def _device(entry: dict[str, Any]) -> Device:
    memory, link = entry["memory_gib"], entry["link_gb_s"]
    return Device(
        name=entry["name"],
        kind=entry["kind"],
        memory_bytes=None if memory is None else round(memory * 2**30),
        bandwidth_bytes_s=entry["bandwidth_gb_s"] * 1e9,
        peak_flops_s={name: value * 1e12 for name, value in entry["peak_tflops"].items() if value is not None},
        native=tuple(entry["native"]),
        power_w=entry["power_w"],
        link_bytes_s=None if link is None else link * 1e9,
        node_network_bytes_s=entry["node_network_gb_s"] * 1e9,
        overhead_bytes=round(entry["overhead_gb"] * 1e9),
        source=entry["source"],
        note=entry["note"],
        aliases=tuple(entry["aliases"]),
    )


@lru_cache(maxsize=1)
def _by_name() -> dict[str, Device]:
    return {_plain(name): device for device in all_devices() for name in (device.name, *device.aliases)}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def _memory_behind(name: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(.*?)[\s,-]*\(?(\d+)\s*gi?b\)?\s*", name, re.IGNORECASE)
    return (found[1], int(found[2]) * 2**30) if found else (name, None)


def _did_you_mean(name: str) -> str:
    """Return ` (did you mean …?)`: the devices whose name begins or is spelt alike."""
    wanted, titles = _plain(name), {_plain(device.name): device.name for device in all_devices()}
    alike = [title for plain, title in titles.items() if wanted and plain.startswith(wanted)]
    alike = alike or [titles[plain] for plain in get_close_matches(wanted, titles, n=2, cutoff=0.6)]
    return f" (did you mean {' or '.join(alike[:3])}?)" if alike else ""
