"""What operators cost: by hand, against PyTorch's own counter, and the closed form against published figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from luthier.planning.work import ModelFacts, Work, closed_form, work_of_call


class Adding(TorchDispatchMode):
    """Adds up `work_of_call` over every operator, as the trace does."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        ins, outs = (
            [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)] for tree in ((args, kwargs), out)
        )
        self.work += work_of_call(
            str(func),
            [tuple(tensor.shape) for tensor in ins],
            [tensor.itemsize for tensor in ins],
            [tuple(tensor.shape) for tensor in outs],
            [tensor.itemsize for tensor in outs],
            causal=False,
        )
        return out


def _leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


def _mlp() -> Tensor:
    return functional.linear(functional.relu(functional.linear(_leaf(6, 8), _leaf(12, 8), _leaf(12))), _leaf(4, 12))


@pytest.mark.parametrize(
    "compute",
    [
        _mlp,
        lambda: torch.baddbmm(_leaf(2, 3, 5), _leaf(2, 3, 4), _leaf(2, 4, 5)),
        lambda: functional.conv1d(_leaf(2, 6, 20), _leaf(10, 6, 5)),
        lambda: functional.conv2d(_leaf(1, 3, 12, 12), _leaf(4, 3, 3, 3), _leaf(4), stride=2),
    ],
)
def test_operations_are_those_that_pytorch_counts(compute: Callable[[], Tensor]) -> None:
    with FlopCounterMode(display=False) as counter, Adding() as adding:
        compute().sum().backward()
    assert adding.work.flops == counter.get_total_flops() > 0


def test_what_pytorch_does_not_count() -> None:
    """A matrix times a vector, with the vector's gradient; and attention on a CPU: two products, and five behind."""
    with Adding() as adding:
        (_leaf(7, 3).detach() @ _leaf(3)).sum().backward()
    assert adding.work.flops == 2 * (2 * 7 * 3)
    with Adding() as adding:
        query, key, value = _leaf(2, 4, 16, 8), _leaf(2, 4, 16, 8), _leaf(2, 4, 16, 8)
        functional.scaled_dot_product_attention(query, key, value).sum().backward()
    assert adding.work.other_flops == (2 + 5) * (2 * 2 * 4 * 16 * 16 * 8)


def test_bytes_of_a_product_are_its_three_matrices() -> None:
    assert work_of_call("aten::mm", [(4, 8), (8, 16)], [2, 2], [(4, 16)], [4]) == Work(
        2 * 4 * 8 * 16, product_bytes=4 * 8 * 2 + 8 * 16 * 2 + 4 * 16 * 4, calls=1
    )


def test_an_output_given_beforehand_changes_no_operations() -> None:
    plain = work_of_call("mm", [(4, 8), (8, 16)], [2, 2], [(4, 16)], [2])
    given = work_of_call("aten.mm.out", [(4, 8), (8, 16), (4, 16)], [2, 2, 2], [(4, 16)], [2])
    assert given.flops == plain.flops
    assert work_of_call("addmm_", [(4, 16), (4, 8), (8, 16)], [2] * 3, [(4, 16)], [2]).flops == plain.flops


@pytest.mark.parametrize(
    ("name", "ins", "sizes", "outs", "moved"),
    [
        ("aten.add.Tensor", [(10,), (10,)], [4, 4], [(10,)], 120),
        ("aten.view.default", [(10,)], [4], [(2, 5)], 0),
        ("embedding", [(50_000, 8), (3,)], [2, 8], [(3, 8)], 2 * 48 + 24),
        ("copy_", [(10,), (10,)], [4, 2], [(10,)], 60),
        ("zeros_like", [(10,)], [4], [(10,)], 40),
        ("index_add_", [(1000, 4), (2,), (2, 4)], [4, 8, 4], [(1000, 4)], 16 + 32 + 64),
    ],
)
def test_bytes_of_other_operators(
    name: str, ins: list[tuple[int, ...]], sizes: list[int], outs: list[tuple[int, ...]], moved: int
) -> None:
    assert work_of_call(name, ins, sizes, outs, sizes[:1]) == Work(other_bytes=moved, calls=1)


def test_products_by_group_count_each_row_once() -> None:
    """8 rows of 4 meet one of 3 matrices each: as one matrix would; and so does the gradient of the matrices."""
    forward = work_of_call("_grouped_mm", [(8, 4), (3, 4, 5), (3,)], [2, 2, 4], [(8, 5)], [2])
    weights = work_of_call("_grouped_mm", [(4, 8), (8, 5), (3,)], [2, 2, 4], [(3, 4, 5)], [2])
    assert forward.flops == weights.flops == 2 * 8 * 4 * 5


def test_causal_attention_is_half_and_its_backward_two_and_a_half_times() -> None:
    shapes = [(1, 4, 32, 8), (1, 2, 32, 8), (1, 2, 32, 8)]
    whole = work_of_call("_scaled_dot_product_flash_attention_for_cpu", shapes, [2] * 3, shapes[:1], [2], causal=False)
    half = work_of_call("_scaled_dot_product_flash_attention_for_cpu", shapes, [2] * 3, shapes[:1], [2])
    back = work_of_call(
        "_scaled_dot_product_flash_attention_for_cpu_backward", shapes[:1] + shapes, [2] * 4, shapes, [2] * 3
    )
    assert whole.other_flops == 2 * 2 * 4 * 32 * 32 * 8
    assert half.other_flops == whole.other_flops / 2
    assert back.other_flops == 2.5 * half.other_flops


def test_work_adds_and_scales() -> None:
    one = Work(1, 2, 3, 4, 5)
    assert one + one == 2 * one == one * 2 == Work(2, 4, 6, 8, 10)


# -- closed form: of one token, in 10^9 operations, without attention ----------------------------------------------

SMOLLM2 = ModelFacts(106_200_000, 28_300_000, 30, 576, 4_880_000, 30 * 576 * 3072)
QWEN25_05B = ModelFacts(357_800_000, 136_100_000, 24, 896, 8_800_000)
LLAMA32_1B = ModelFacts(973_000_000, 263_000_000, 16, 2048, 11_300_000)
LLAMA31_8B = ModelFacts(6_979_000_000, 525_000_000, 32, 4096, 41_900_000)


@pytest.mark.parametrize(
    ("facts", "full", "lora_all", "lora_fifth", "checkpointed"),
    [
        (SMOLLM2, 0.81, 0.57, 0.48, 0.69),
        (QWEN25_05B, 2.96, 2.03, 1.59, 2.31),
        (LLAMA32_1B, 7.41, 5.01, 4.17, 6.12),
        (LLAMA31_8B, 45.0, 30.3, 28.6, 42.6),
    ],
)
def test_the_closed_form_says_what_the_table_of_models_says(
    facts: ModelFacts, full: float, lora_all: float, lora_fifth: float, checkpointed: float
) -> None:
    assert closed_form(facts, 1, 1.0, 0, "full").flops == pytest.approx(full * 1e9, rel=0.01)
    assert closed_form(facts, 1, 1.0, 0, "lora").flops == pytest.approx(lora_all * 1e9, rel=0.015)
    assert closed_form(facts, 1, 0.2, 0, "qlora").flops == pytest.approx(lora_fifth * 1e9, rel=0.015)
    assert closed_form(facts, 1, 0.2, 0, "lora", "full").flops == pytest.approx(checkpointed * 1e9, rel=0.015)


def test_attention_of_the_closed_form_is_13_percent_at_512_tokens() -> None:
    work = closed_form(SMOLLM2, 512, 0.2, 512, "lora")
    assert work.other_flops / work.flops == pytest.approx(0.13, abs=0.005)
    again = closed_form(SMOLLM2, 512, 0.2, 512, "lora", "full")
    assert again.other_flops == pytest.approx(work.other_flops * 4.5 / 3.5)


def test_selective_computes_gate_and_up_again() -> None:
    plain, again = (closed_form(SMOLLM2, 10, 0.2, 100, "lora", kind) for kind in ("none", "selective"))  # type: ignore[arg-type]
    assert again.flops - plain.flops == 10 * 2 * 30 * 576 * 3072
    assert closed_form(SMOLLM2, 10, 0.2, 100, "inference", "full") == closed_form(SMOLLM2, 10, 0.2, 100, "inference")


def test_the_closed_form_agrees_with_a_small_network() -> None:
    """Two linear layers and a head, all trained: the operators' sum is 6 N_b + 6 V·d for each token."""
    first, second, head = _leaf(24, 8), _leaf(8, 24), _leaf(50, 8)
    with Adding() as adding:
        hidden = functional.linear(functional.linear(_leaf(10, 8), first), second)
        functional.linear(hidden, head).sum().backward()
    facts = ModelFacts(first.numel() + second.numel(), head.numel(), 1, 0)
    assert adding.work.flops == closed_form(facts, 10, 1.0, 0, "full").flops
