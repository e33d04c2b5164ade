"""The chunked cross entropy agrees with the plain one, and with NumPy, and never holds many logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from luthier.models.packed import Head
from luthier.objectives.cross_entropy import plain_cross_entropy, summed_cross_entropy


def _problem(rows: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[nn.Linear, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(6, 11).to(dtype)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    hidden = torch.randn(rows, 6, generator=generator).to(dtype).requires_grad_()
    return head, hidden, torch.randint(11, (rows,), generator=generator)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 17), chunk=st.integers(1, 20), seed=st.integers(0, 99), trained=st.booleans())
def test_chunks_agree_with_the_plain_reference(rows: int, chunk: int, seed: int, trained: bool) -> None:
    head, hidden, targets = _problem(rows, seed)
    head.requires_grad_(trained)
    wanted = [hidden, *(head.parameters() if trained else [])]
    loss = summed_cross_entropy(Head(head), hidden, targets, chunk_rows=chunk)
    expected = plain_cross_entropy(Head(head), hidden, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    gradients, references = (torch.autograd.grad(value * 0.37, wanted) for value in (loss, expected))
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-11, atol=1e-12)


def test_value_agrees_with_numpy() -> None:
    head, hidden, targets = _problem(9, 3)
    logits = hidden.detach().numpy() @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    log_sum = np.log(np.exp(logits).sum(1))
    expected = (log_sum - logits[np.arange(9), targets.numpy()]).sum()
    assert summed_cross_entropy(Head(head), hidden, targets).item() == pytest.approx(expected, rel=1e-12)


def test_bfloat16_sums_in_float32() -> None:
    head, hidden, targets = _problem(400, 1, torch.bfloat16)
    head.requires_grad_(False)
    loss = summed_cross_entropy(Head(head), hidden, targets, chunk_rows=32)
    wide = plain_cross_entropy(Head(head.float()), hidden.float(), targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(wide.item(), rel=2e-3)
    (gradient,), (reference,) = (torch.autograd.grad(value, hidden) for value in (loss, wide))
    assert gradient.dtype == torch.bfloat16
    assert ((gradient - reference).float().norm() / reference.float().norm()).item() < 1e-2


def test_the_head_never_sees_more_rows_than_a_chunk() -> None:
    head, hidden, targets = _problem(50, 2)
    seen: list[int] = []
    head.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    summed_cross_entropy(Head(head), hidden, targets, chunk_rows=8).backward()
    assert seen == [8] * 6 + [2], "one forward per chunk, and none in backward"


def test_without_gradients_only_the_value_is_computed() -> None:
    head, hidden, targets = _problem(5, 4)
    with torch.no_grad():
        loss = summed_cross_entropy(Head(head), hidden, targets)
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(plain_cross_entropy(Head(head), hidden, targets).item())


def test_a_trained_head_under_autocast_gets_float32_gradients() -> None:
    head, hidden, targets = _problem(40, 5, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = summed_cross_entropy(Head(head), hidden, targets, chunk_rows=16)
    loss.backward()
    exact = torch.autograd.grad(plain_cross_entropy(Head(head), hidden, targets), head.weight)[0]
    assert head.weight.grad is not None and head.weight.grad.dtype == torch.float32
    assert ((head.weight.grad - exact).norm() / exact.norm()).item() < 1e-2


@pytest.mark.parametrize("trained", [True, False])
def test_the_backward_runs_once(trained: bool) -> None:
    """It scales in place what it kept: a second run would scale twice, and must not go by unseen."""
    head, hidden, targets = _problem(9, 6, torch.float32)
    head.requires_grad_(trained)
    loss = summed_cross_entropy(Head(head), hidden, targets, chunk_rows=4) * 0.5
    (once,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    kept = once.clone()
    with pytest.raises(RuntimeError, match="only once"):
        loss.backward()
    assert torch.equal(once, kept)
    assert hidden.grad is None
    (expected,) = torch.autograd.grad(plain_cross_entropy(Head(head), hidden, targets) * 0.5, hidden)
    torch.testing.assert_close(once, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_trained_heads_gradients_are_the_plain_sum_over_chunks_bit_for_bit(dtype: torch.dtype, bias: bool) -> None:
    """The vocabulary is larger than the rows that are added at once, and no multiple of them."""
    torch.manual_seed(7)
    head = nn.Linear(8, 9001, bias=bias).to(dtype)
    hidden, targets = torch.randn(50, 8).to(dtype), torch.randint(9001, (50,))
    wanted = list(head.parameters())

    def gradients(rows: slice) -> tuple[Tensor, ...]:
        leaf = hidden[rows].clone().requires_grad_()
        return torch.autograd.grad(summed_cross_entropy(Head(head), leaf, targets[rows], chunk_rows=8), [leaf, *wanted])

    whole = gradients(slice(0, 50))
    leaf = hidden.clone().requires_grad_()
    plain = torch.autograd.grad(plain_cross_entropy(Head(head), leaf, targets), [leaf, *wanted])
    for gradient, reference in zip(whole, plain, strict=True):  # row by row, so that none is left out
        apart = torch.linalg.vector_norm((gradient - reference).float().view(len(gradient), -1), dim=1)
        size = torch.linalg.vector_norm(reference.float().view(len(gradient), -1), dim=1)
        assert (apart <= (1e-4 if dtype == torch.float32 else 0.1) * size).all()
    parts = [gradients(slice(start, start + 8)) for start in range(0, 50, 8)]
    assert torch.equal(whole[0], torch.cat([part[0] for part in parts]))
    for number in range(1, len(whole)):
        total = torch.zeros_like(whole[number], dtype=torch.float32)
        for part in parts:
            total += part[number].float()  # a single chunk's gradient is of the head's precision already
        assert whole[number].dtype == dtype
        assert torch.equal(whole[number], total.to(dtype))


def test_a_factor_of_the_loss_keeps_its_float32() -> None:
    """A loss scale or a share that bfloat16 cannot hold must not be rounded before the product is."""
    head, hidden, targets = _problem(12, 8, torch.bfloat16)
    head.requires_grad_(False)
    factor = 1 + 1 / 300  # between two bfloat16 numbers
    plain, scaled = (
        torch.autograd.grad(summed_cross_entropy(Head(head), hidden, targets) * by, hidden)[0] for by in (1.0, factor)
    )
    assert torch.equal(scaled, (plain.float() * factor).to(torch.bfloat16))
    assert not torch.equal(scaled, plain)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_last_of_several_chunks_is_rounded_up_and_the_loss_is_that_of_the_rows(
    trained: bool, weighted: bool
) -> None:
    seen = set()
    for rows in (65, 70, 90, 100, 127):
        head, hidden, targets = _problem(rows, rows, torch.float32)
        head.requires_grad_(trained)
        weights = torch.rand(rows, generator=torch.Generator().manual_seed(1)) if weighted else None
        head.register_forward_hook(lambda module, inputs, output: seen.add(len(output)))
        wanted = [hidden, *(head.parameters() if trained else [])]
        loss = summed_cross_entropy(Head(head), hidden, targets, weights, chunk_rows=64)
        found = torch.autograd.grad(loss, wanted)
        assert seen <= {32, 64}, "few sizes, whatever the rows"
        plain = plain_cross_entropy(Head(head), hidden, targets, weights)
        seen.discard(rows)
        torch.testing.assert_close([loss, *found], [plain, *torch.autograd.grad(plain, wanted)])
