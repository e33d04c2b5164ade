"""How fast this machine multiplies matrices in each precision, and how fast it copies memory: measured, and kept.

Every figure is the best of several runs, because other programs only ever make a run slower; a program reaches part of
it. The measurement takes about two seconds and is kept in the cache folder for a week, under a key of processor,
threads and PyTorch version. If other programs needed the same cores meanwhile, it is kept for ten minutes, and the best
of this one and the one before counts. What a precision cannot do here is None. Measures no model.

    speeds().products_flops_s["bf16"]
"""

from __future__ import annotations

import datetime
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from luthier.ground.cache import cache_root
from luthier.ground.errors import BadInput
from luthier.ground.files import write_json
from luthier.machine.describe import processor_name
from luthier.machine.limits import memory_free_bytes

KEPT_S = 7 * 24 * 3600.0
KEPT_DISTURBED_S = 600.0
DISTURBED = 0.2  # of the cores in use, taken by others
VERSION = 1  # of how it is measured; another one measures again

# Rows × inputs × outputs: the two sizes of a small model's products; a GPU needs larger ones to be busy at all.
_SHAPES = {"cpu": ((1024, 576, 1536), (1024, 2048, 2048)), "mps": ((2048, 2048, 2048),), "cuda": ((8192, 4096, 4096),)}
_ALL_S = 1.6  # for all turns; the last round is finished
_TURN_S = 0.02
_SLOW_S = 0.02  # a precision that needs more than this for the smaller shape is not tried on the larger one
_COPY_BYTES = 256 << 20  # far larger than the caches
_GROUP = 32  # weights that share a scale in 4 bits

Product = Callable[[], object]
Maker = Callable[[int, int, int, str], Product]


@dataclass(frozen=True)
class Speeds:
    """What was measured, and when."""

    products_flops_s: Mapping[str, float | None]  # by precision: fp32 tf32 bf16 fp16 fp8 int8 int4
    bandwidth_bytes_s: float  # of a copy: bytes read and bytes written
    threads: int
    date: str  # ISO 8601
    key: str
    disturbed: bool = False  # other programs needed the same cores: the figures are too low


def speeds(fresh: bool = False) -> Speeds:
    """Return the speeds of the device that PyTorch would use here: kept ones, or measured now.

    Args:
        fresh: measure even if kept ones are recent.
    """
    device = best_device()
    key = _key(device)
    file = cache_root() / "machine" / f"speed-{key}.json"
    kept = _kept(file, key)
    if kept is not None and not fresh and _age_s(kept) < (KEPT_DISTURBED_S if kept.disturbed else KEPT_S):
        return kept
    neighbours = _Neighbours()
    with torch.inference_mode():
        best = _measured(device)
    if device == "cuda":
        torch.cuda.empty_cache()  # gigabytes that a model may need
    found = Speeds(
        products_flops_s={name: best[name] for name in _MAKERS},
        bandwidth_bytes_s=best["copy"] or 0.0,
        threads=torch.get_num_threads(),
        date=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        key=key,
        disturbed=neighbours.took(torch.get_num_threads()) > DISTURBED,
    )
    if kept is not None and found.disturbed:
        found = _best_of(found, kept)
    _keep(file, found)
    return found


def best_device() -> str:
    """Return cuda, mps or cpu: the first that PyTorch has here."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@dataclass(frozen=True)
class _Run:
    """One thing to time: what it counts for, how many operations or bytes it is, and how to do it."""

    name: str
    amount: float
    go: Product


class _Neighbours:
    """What other programs (and, on a virtual machine, its host) took of the processor since this was made."""

    def __init__(self) -> None:
        self._began = self._times()

    def took(self, threads: int) -> float:
        """Return the share of `threads` cores that was not to be had: what others used beyond the cores left over."""
        wall_s, busy_s, own_s = (now - then for now, then in zip(self._times(), self._began, strict=True))
        others = max(0.0, busy_s - own_s) / max(wall_s, 1e-9)
        spare = max(0, (psutil.cpu_count() or 1) - threads)
        return max(0.0, others - spare) / threads

    def _times(self) -> tuple[float, float, float]:
        whole = psutil.cpu_times()._asdict()
        idle = sum(whole.get(name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))  # guests count as user
        return time.perf_counter(), sum(whole.values()) - idle, time.process_time()


def _measured(device: str) -> dict[str, float | None]:
    """Return the best operations a second by precision, and `copy`, the best bytes a second.

    All take turns for several rounds: when a neighbour is busy for half a second, each loses one turn only.
    """
    runs = [run for name, make in _MAKERS.items() for run in _prepared(name, make, device)] + [_copy(device)]
    best: dict[str, float | None] = dict.fromkeys((*_MAKERS, "copy"))
    end = time.perf_counter() + _ALL_S
    while True:
        for run in runs:
            best[run.name] = max(best[run.name] or 0.0, run.amount / _best_s(run.go, device))
        if time.perf_counter() > end:
            return best


def _prepared(name: str, make: Maker, device: str) -> list[_Run]:
    """Return the products of one precision, warmed up; none if PyTorch cannot do them here."""
    runs: list[_Run] = []
    for rows, inputs, outputs in _SHAPES[device]:
        try:
            go = make(rows, inputs, outputs, device)
            _timed(go, device)  # the first run also chooses kernels and fills buffers
            time_s = _timed(go, device)
        except (RuntimeError, NotImplementedError, AttributeError, TypeError, ValueError):  # how PyTorch says no
            break
        runs.append(_Run(name, 2.0 * rows * inputs * outputs, go))
        if time_s > _SLOW_S:
            break
    return runs


def _copy(device: str) -> _Run:
    """Return a copy that fits no cache; it reads and writes each byte once."""
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else memory_free_bytes()
    number = max(1 << 20, min(_COPY_BYTES * (8 if device == "cuda" else 1), free // 8))
    source = torch.ones(number, dtype=torch.uint8, device=device)  # zeros would all lie in one page of memory
    target = torch.ones_like(source)
    return _Run("copy", 2.0 * number, lambda: target.copy_(source))


def _best_s(run: Product, device: str) -> float:
    end, best = time.perf_counter() + _TURN_S, float("inf")
    while True:
        best = min(best, _timed(run, device))
        if time.perf_counter() > end:
            return best


def _timed(run: Product, device: str) -> float:
    _wait(device)
    began = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def _float_product(dtype: torch.dtype) -> Maker:
    def make(rows: int, inputs: int, outputs: int, device: str) -> Product:
        x_TI = torch.randn(rows, inputs, device=device).to(dtype)
        weight_OI = torch.randn(outputs, inputs, device=device).to(dtype)
        return lambda: torch.nn.functional.linear(x_TI, weight_OI)

    return make


def _tf32_product(rows: int, inputs: int, outputs: int, device: str) -> Product:
    if device != "cuda" or torch.cuda.get_device_capability()[0] < 8:
        raise NotImplementedError("TF32 is a mode of NVIDIA's tensor units from Ampere on")
    product = _float_product(torch.float32)(rows, inputs, outputs, device)

    def run() -> None:
        before = torch.backends.cuda.matmul.fp32_precision
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        try:
            product()
        finally:
            torch.backends.cuda.matmul.fp32_precision = before

    return run


def _fp8_product(rows: int, inputs: int, outputs: int, device: str) -> Product:
    x_TI = torch.randn(rows, inputs, device=device).to(torch.float8_e4m3fn)
    weight_OI = torch.randn(outputs, inputs, device=device).to(torch.float8_e4m3fn)
    scale = torch.ones((), device=device)
    return lambda: torch._scaled_mm(x_TI, weight_OI.t(), scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16)


def _int8_product(rows: int, inputs: int, outputs: int, device: str) -> Product:
    x_TI, weight_OI = _whole_numbers(rows, inputs, device), _whole_numbers(outputs, inputs, device)
    return lambda: torch._int_mm(x_TI, weight_OI.t())


def _int4_product(rows: int, inputs: int, outputs: int, device: str) -> Product:
    """Weights of 4 bits in groups with a scale, unpacked as they are used, times bf16: PyTorch's own kernel."""
    x_TI = torch.randn(rows, inputs, device=device).to(torch.bfloat16)
    scales_GO2 = torch.randn(inputs // _GROUP, outputs, 2, device=device).to(torch.bfloat16)
    values_OI = torch.randint(0, 16, (outputs, inputs), device=device, dtype=torch.int32)
    if device == "cpu":
        packed = torch._convert_weight_to_int4pack_for_cpu(values_OI, 1)
        return lambda: torch._weight_int4pack_mm_for_cpu(x_TI, packed, _GROUP, scales_GO2)
    pairs = (values_OI[:, ::2] << 4 | values_OI[:, 1::2]).to(torch.uint8)
    tiles = torch._convert_weight_to_int4pack(pairs, 8)
    return lambda: torch._weight_int4pack_mm(x_TI, tiles, _GROUP, scales_GO2)


def _whole_numbers(rows: int, columns: int, device: str) -> Tensor:
    return torch.randint(-127, 128, (rows, columns), device=device, dtype=torch.int8)


_MAKERS: Mapping[str, Maker] = {
    "fp32": _float_product(torch.float32),
    "tf32": _tf32_product,
    "bf16": _float_product(torch.bfloat16),
    "fp16": _float_product(torch.float16),
    "fp8": _fp8_product,
    "int8": _int8_product,
    "int4": _int4_product,
}


def _key(device: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else processor_name()
    words = [str(VERSION), device, name, str(torch.get_num_threads()), torch.__version__]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def _best_of(found: Speeds, kept: Speeds) -> Speeds:
    """Return the better figure of each: what neighbours disturbed can only be too low."""
    pairs = {name: (value, kept.products_flops_s.get(name)) for name, value in found.products_flops_s.items()}
    products = {name: max((value for value in pair if value), default=None) for name, pair in pairs.items()}
    bandwidth = max(found.bandwidth_bytes_s, kept.bandwidth_bytes_s)
    return replace(found, products_flops_s=products, bandwidth_bytes_s=bandwidth)


def _kept(file: Path, key: str) -> Speeds | None:
    """Return what the file holds, or None if there is none, it is older than a week, or it is damaged."""
    try:
        held: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        found = Speeds(**held)
        sound = found.key == key and found.bandwidth_bytes_s > 0 and (found.products_flops_s["fp32"] or 0) > 0
        recent = -60 < _age_s(found) < KEPT_S
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return found if sound and recent else None


def _age_s(found: Speeds) -> float:
    return time.time() - datetime.datetime.fromisoformat(found.date).timestamp()


def _keep(file: Path, found: Speeds) -> None:
    """Keep the speeds; where nothing can be written they are measured again next time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, asdict(found))
    except (OSError, BadInput):
        return
