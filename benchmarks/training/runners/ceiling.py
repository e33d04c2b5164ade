"""The share of the ceiling: how much of a step's time its own matrix products take when nothing else is done.

One step's products are recorded (operation, shapes, strides, types) where torch dispatches them, then each distinct
one is repeated alone on fresh tensors of the same layout. The least time of each, times how often it occurs, is
`gemm_s`. A product inside a compiled operation is not dispatched and so not recorded; torch's profiler, which sees
more, gives a second count of the arithmetic, and both are told.

    ceiling = measure_ceiling(train_four_times, tokens=1200)
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

Tell = Callable[[dict[str, Any]], None]
PRODUCTS = frozenset(
    {"mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_", "linear", "mv", "addmv", "_linear_pointwise"}
)
REPEATS, ENOUGH_S = 12, 0.4
PLAIN = (1024, 576, 3072)


def measure_ceiling(train_again: Callable[[Tell], None], tokens: int) -> dict[str, Any]:
    """Return `step_s`, `gemm_s`, their ratio `share`, and the speed of a plain product.

    Args:
        train_again: trains the same step several times and tells of each, as `train_rows` does.
        tokens: real tokens of that step.
    """
    times = _step_seconds(train_again)
    recorder = _Recorder()
    with recorder:
        train_again(recorder.hear)
    calls = recorder.last_step
    replayed = [(replay(call), count, call) for call, count in Counter(calls).items()]
    step_s = statistics.median(times[1:])
    gemm_s = sum(seconds * count for seconds, count, _ in replayed)
    plain = plain_product_gflops()
    flop = sum(call.flop * count for _, count, call in replayed)
    return {
        "tokens": tokens,
        "step_s": step_s,
        "gemm_s": gemm_s,
        "share": gemm_s / step_s,
        "products": len(calls),
        "distinct": len(replayed),
        "gemm_gflop": flop / 1e9,
        "plain_share": flop / 1e9 / plain / step_s,
        "gemm_gflops": flop / 1e9 / gemm_s if gemm_s else 0.0,
        "profiled_gflop": _profiled_flop(train_again) / 1e9,
        "plain_gflops": plain,
        "plain": "bf16 {}x{}x{}".format(*PLAIN),
        "tokens_per_s": tokens / step_s,
    }


def plain_product_gflops() -> float:
    """Return GFLOP/s of one plain bfloat16 product, the best of many."""
    rows, inner, columns = PLAIN
    x, w = torch.randn(rows, inner, dtype=torch.bfloat16), torch.randn(columns, inner, dtype=torch.bfloat16)
    best = _best_of(lambda: torch.mm(x, w.t()), repeats=50)
    return 2 * rows * inner * columns / best / 1e9


class Call:
    """One recorded product: the operation and its arguments, tensors replaced by their layout."""

    def __init__(self, func: Any, args: Any, kwargs: Any) -> None:
        leaves, self.tree = tree_flatten((args, kwargs))
        self.func = func
        self.leaves = tuple(_Layout(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves)
        self.key = (str(func), self.leaves)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.key == other.key

    @property
    def flop(self) -> int:
        return product_flop(
            self.func.__name__.split(".")[0], [leaf.shape for leaf in self.leaves if isinstance(leaf, _Layout)]
        )


def product_flop(name: str, shapes: list[tuple[int, ...]]) -> int:
    """Return the floating-point operations of a product (a multiplication and an addition are two).

    >>> product_flop("mm", [(2, 3), (3, 4)]), product_flop("addmm", [(4,), (2, 3), (3, 4)])
    (48, 48)
    """
    a, b = shapes[1:3] if name.startswith(("add", "badd")) else shapes[:2]
    rows = 1
    for size in a:
        rows *= size
    columns = b[0] if "linear" in name else (b[-1] if len(b) > 1 else 1)
    return 2 * rows * columns


def replay(call: Call) -> float:
    """Return the least seconds that the product takes alone."""
    leaves = [leaf.fresh() if isinstance(leaf, _Layout) else leaf for leaf in call.leaves]
    args, kwargs = tree_unflatten(leaves, call.tree)
    with torch.no_grad():
        return _best_of(lambda: call.func(*args, **kwargs))


class _Layout(tuple[Any, ...]):
    """Shape, strides and type of a tensor."""

    def __new__(cls, tensor: torch.Tensor) -> _Layout:
        return super().__new__(cls, (tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        return self[0]

    def fresh(self) -> torch.Tensor:
        shape, stride, dtype = self
        extent = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        return torch.empty(extent, dtype=torch.float32).uniform_(-0.01, 0.01).to(dtype).as_strided(shape, stride)


class _Recorder(TorchDispatchMode):
    """Keeps the products of the last whole step."""

    def __init__(self) -> None:
        super().__init__()
        self._running: list[Call] = []
        self.last_step: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.split(".")[0] in PRODUCTS:
            self._running.append(Call(func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def hear(self, event: dict[str, Any]) -> None:
        if event["kind"] == "step":
            self.last_step, self._running = self._running, []


def _step_seconds(train_again: Callable[[Tell], None]) -> list[float]:
    ends: list[float] = []
    began = time.perf_counter()
    train_again(lambda event: ends.append(time.perf_counter()) if event["kind"] == "step" else None)
    return [end - start for start, end in zip([began, *ends[:-1]], ends, strict=True)]


def _profiled_flop(train_again: Callable[[Tell], None]) -> float:
    """Return the arithmetic of one step's products as torch's profiler sees them."""
    steps = 0

    def hear(event: dict[str, Any]) -> None:
        nonlocal steps
        steps += event["kind"] == "step"

    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        train_again(hear)
    total = 0.0
    for event in profiler.key_averages(group_by_input_shape=True):
        name = event.key.removeprefix("aten::")
        if event.key.startswith("aten::") and name in PRODUCTS - {"linear"}:
            shapes = [tuple(shape) for shape in event.input_shapes if shape]
            total += product_flop(name, shapes) * event.count
    return total / steps


def _best_of(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    best, began = float("inf"), time.perf_counter()
    for number in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        if number >= 3 and time.perf_counter() - began > ENOUGH_S:
            break
    return best
