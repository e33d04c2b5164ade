"""What Luthier can do here beside its core, and what is missing for the rest. Asks no network; imports no package.

[feature.needs for feature in features() if not feature.ready]
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

from luthier.ground.doctor_result import Feature
from luthier.machine.instructions import instructions


def features(*, gpu: bool) -> list[Feature]:
    """Return each optional part, whether it is ready, and the command that would make it so.

    Args:
        gpu: whether PyTorch has a CUDA or Apple GPU here.
    """
    return [
        _compiler(),
        _native_attention(),
        _gpu(gpu),
        _liger(gpu),
        _hub(),
        _package("lancedb", "retrieval", "keyword and vector search"),
        _package("pypdf", "PDF documents", "in a task's documents"),
        _package("datasets", "data sets of the hub", "and Parquet, CSV"),
        _sandbox(),
        _peft(),
    ]


def _compiler() -> Feature:
    wanted = os.environ.get("CXX", "c++")
    plain = os.environ.get("LUTHIER_KERNELS", "native") == "plain"
    there = shutil.which(wanted) is not None
    needs = "unset LUTHIER_KERNELS" if plain else "" if there else "apt install g++, or set CXX"
    note = "switched off by LUTHIER_KERNELS=plain" if plain else f"compiled once, with {wanted}"
    return Feature(name="native kernels", ready=there and not plain, needs=needs, note=note)


def _native_attention() -> Feature:
    there = "avx512_bf16" in instructions()
    note = "AVX512-BF16" if there else "needs a processor with AVX512-BF16; PyTorch's own attention is used instead"
    return Feature(name="native attention", ready=there, needs="", note=note)


def _gpu(gpu: bool) -> Feature:
    note = "PyTorch has one" if gpu else "none that PyTorch can use; everything runs on the processor"
    return Feature(name="GPU", ready=gpu, needs="", note=note)


def _liger(gpu: bool) -> Feature:
    there = _installed("liger_kernel")
    needs = "" if there or not gpu else "pip install 'luthier[liger]'"
    note = "fused kernels for NVIDIA GPUs" if gpu else "fused kernels for NVIDIA GPUs; of no use here"
    return Feature(name="liger kernels", ready=there and gpu, needs=needs, note=note)


def _hub() -> Feature:
    offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if _is_set(name)]
    needs = f"unset {' '.join(offline)}" if offline else ""
    note = "switched off; models in its cache still load" if offline else "allowed; not asked now"
    return Feature(name="models of the hub", ready=not offline, needs=needs, note=note)


def _peft() -> Feature:
    there = _installed("peft")
    needs = "" if there else "pip install 'luthier[peft]'"
    return Feature(name="PEFT", ready=there, needs=needs, note="to load adapters elsewhere; LoRA works without it")


def _sandbox() -> Feature:
    there = sys.platform.startswith("linux")
    note = "memory of a chat template is limited" if there else "only Linux limits the memory of a chat template"
    return Feature(name="template limits", ready=there, needs="", note=note)


def _package(module: str, name: str, note: str) -> Feature:
    there = _installed(module)
    return Feature(name=name, ready=there, needs="" if there else f"pip install {module}", note=note)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in ("1", "on", "yes", "true")
