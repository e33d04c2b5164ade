"""Which arithmetic a processor or GPU has of its own, from the instructions that it names.

Linux lists them in /proc/cpuinfo (x86: "flags", Arm: "Features"), macOS through sysctl; NVIDIA GPUs by their compute
capability, AMD GPUs by their architecture. Measures nothing.

    >>> precisions_of({"avx512f", "avx512_bf16"})
    ('fp32', 'bf16')
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

# Instructions that decide about speed, in the order in which they are shown.
_SHOWN = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
    "amx_fp16", "avx10_2", "neon", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "sme", "sme2",
)  # fmt: skip
_BF16 = {"avx512_bf16", "amx_bf16", "avx10_2", "bf16"}
_FP16 = {"avx512_fp16", "amx_fp16", "asimdhp"}
_INT8 = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}


@lru_cache(maxsize=1)
def instructions() -> tuple[str, ...]:
    """Return those instruction sets of this processor that matter for matrix products."""
    has = _reported()
    return tuple(name for name in _SHOWN if name in has)


def precisions_of(has: Collection[str]) -> tuple[str, ...]:
    """Return the precisions in which a processor with these instructions multiplies on its own."""
    names = set(has)
    found = [("bf16", _BF16), ("fp16", _FP16), ("int8", _INT8)]
    return ("fp32", *(name for name, any_of in found if names & any_of))


def precisions_of_nvidia(major: int, minor: int) -> tuple[str, ...]:
    """Return the precisions that NVIDIA's tensor units of this compute capability have (CUDA programming guide)."""
    since = [("tf32", 80), ("bf16", 80), ("fp16", 70), ("fp8", 89), ("int8", 72)]
    capability = 10 * major + minor
    found = [name for name, first in since if capability >= first]
    if 75 <= capability < 90:  # INT4 units came with Turing and went with Hopper
        found.append("int4")
    return ("fp32", *found)


def native_precisions(device: str) -> tuple[str, ...]:
    """Return the precisions with arithmetic of their own on `device`: cpu, cuda or mps."""
    if device == "cpu":
        return precisions_of(instructions())
    if device == "mps":
        return ("fp32", "fp16")
    import torch

    if torch.version.hip is not None:
        names = torch.cuda.get_device_properties(0).gcnArchName
        return ("fp32", "tf32", "bf16", "fp16", "fp8", "int8") if "gfx94" in names else ("fp32", "bf16", "fp16", "int8")
    return precisions_of_nvidia(*torch.cuda.get_device_capability())


def _reported() -> set[str]:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                words = set(line.split(":", 1)[1].split())
                return words | ({"neon"} if "asimd" in words else set())
    if platform.system() == "Darwin":
        return _reported_by_macos()
    return set()


def _reported_by_macos() -> set[str]:
    names = {
        "hw.optional.neon": "neon",
        "hw.optional.arm.FEAT_FP16": "asimdhp",
        "hw.optional.arm.FEAT_DotProd": "asimddp",
        "hw.optional.arm.FEAT_BF16": "bf16",
        "hw.optional.arm.FEAT_I8MM": "i8mm",
        "hw.optional.arm.FEAT_SME": "sme",
        "hw.optional.avx2_0": "avx2",
        "hw.optional.avx512f": "avx512f",
    }
    said = subprocess.run(["/usr/sbin/sysctl", *names], capture_output=True, text=True, check=False).stdout
    pairs = [line.split(":", 1) for line in said.splitlines() if ":" in line]
    return {names[key] for key, value in pairs if key in names and value.strip() == "1"}
