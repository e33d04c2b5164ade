"""Compile the kernels beside this file once per machine, and load them.

They are three C++ files without dependencies; compiling takes about two seconds and needs `c++` (or what `CXX` names).
The library lies in the cache folder under the hash of its source, flags and processor, so it is never stale. Without a
compiler, or with `LUTHIER_KERNELS=plain`, `library()` is None and everything runs on plain PyTorch, only slower.

    if (native := library()) is not None: native.luthier_has_attention()
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch  # noqa: F401  # first: the kernels then share PyTorch's OpenMP threads

from luthier.ground.cache import cache_root

SOURCES = ("rowwise.cpp", "attention.cpp", "dequantize.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
COMPILE_S = 120.0


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None where they cannot be had or are not wanted."""
    if os.environ.get("LUTHIER_KERNELS", "native") == "plain":
        return None
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return None
    for _ in range(2):  # once more if what lies in the cache is damaged
        try:
            target = _compiled(compiler)
        except (OSError, subprocess.SubprocessError):
            return None  # a missing compiler, OpenMP or disk space costs speed, never the run
        try:
            return ctypes.CDLL(str(target))
        except OSError:
            target.unlink(missing_ok=True)
    return None


def functions(signatures: Mapping[str, tuple[type, ...]]) -> dict[str, Callable[..., None]] | None:
    """Return the native functions of these names, with the types of their arguments; None without a library."""
    native = library()
    if native is None:
        return None
    found: dict[str, Any] = {name: getattr(native, name) for name in signatures}
    for name, signature in signatures.items():
        found[name].argtypes, found[name].restype = signature, None
    return found


def has_native_attention() -> bool:
    """Whether the attention kernels work on this processor (AVX512-BF16)."""
    native = library()
    return native is not None and bool(native.luthier_has_attention())


def _compiled(compiler: str) -> Path:
    sources = [Path(__file__).with_name(name) for name in SOURCES]
    key = hashlib.sha256("\0".join([compiler, *FLAGS, _processor(), *(s.read_text() for s in sources)]).encode())
    target = cache_root() / "kernels" / f"{key.hexdigest()[:24]}.so"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / "kernels.so"
            command = [compiler, *FLAGS, *map(str, sources), "-o", str(made)]
            subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_S)  # our own source
            os.replace(made, target)
    return target


def processor_key() -> str:
    """Return a short hash of what this processor can do."""
    return hashlib.sha256(_processor().encode()).hexdigest()[:12]


def _processor() -> str:
    """Return what `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return next((line for line in lines if line.startswith("flags")), platform.machine())
