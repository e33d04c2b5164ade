"""Attention over documents end to end: both ways agree with a NumPy reference, forward and backward."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from luthier.models import attention
from luthier.models.attention import bucketed_attention, make_layout, pack_attention, plain_attention
from luthier.models.kernels.varlen import Heads
from luthier.models.segments import Segments

CPU = torch.device("cpu")
Floats = npt.NDArray[np.float64]


def numpy_attention(
    q: Floats, k: Floats, v: Floats, lengths: tuple[int, ...], scaling: float, window: int | None, softcap: float | None
) -> Floats:
    """Causal softmax attention by its definition: one document, one head, one query at a time."""
    groups, out, start = q.shape[1] // k.shape[1], np.zeros_like(q), 0
    for length in lengths:
        for head in range(q.shape[1]):
            for t in range(length):
                first = 0 if window is None else max(0, t - window + 1)
                keys = k[start + first : start + t + 1, head // groups]
                scores = keys @ q[start + t, head] * scaling
                scores = scores if softcap is None else softcap * np.tanh(scores / softcap)
                weights = np.exp(scores - scores.max())
                out[start + t, head] = weights / weights.sum() @ v[start + first : start + t + 1, head // groups]
        start += length
    return out


def laid_out(inputs: list[Tensor], scale: float, window: int | None = None, cap: float = 0.0) -> Heads:
    q, k, _ = inputs
    return Heads(q.shape[1], k.shape[1], q.shape[2], scale, window or 0, cap)


def random_inputs(lengths: tuple[int, ...], heads: int = 4, kv_heads: int = 2, size: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    shapes = [(sum(lengths), n, size) for n in (heads, kv_heads, kv_heads)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 14), min_size=1, max_size=6).map(tuple),
    window=st.none() | st.integers(1, 6),
    heads=st.sampled_from([(4, 2), (3, 1), (2, 2)]),
)
def test_both_ways_agree_with_numpy(lengths: tuple[int, ...], window: int | None, heads: tuple[int, int]) -> None:
    q, k, v = random_inputs(lengths, *heads)
    wanted = numpy_attention(*(x.detach().numpy() for x in (q, k, v)), lengths, 0.3, window, None)
    bucketed = bucketed_attention(q, k, v, make_layout(lengths, CPU), 0.3, window)
    plain = plain_attention(q, k, v, Segments(lengths), laid_out([q, k, v], 0.3, window))
    np.testing.assert_allclose(bucketed.detach().numpy(), wanted, atol=1e-10)
    np.testing.assert_allclose(plain.detach().numpy(), wanted, atol=1e-10)


@pytest.mark.parametrize("window", [None, 3])
def test_the_written_out_backward_is_the_gradient(window: int | None) -> None:
    lengths = (2, 5, 4)
    layout = make_layout(lengths, CPU)
    inputs = random_inputs(lengths, heads=2, kv_heads=1, size=2)
    assert torch.autograd.gradcheck(lambda q, k, v: bucketed_attention(q, k, v, layout, 0.4, window), inputs)


@pytest.mark.parametrize("window", [None, 3])
def test_soft_capped_scores_follow_their_definition(window: int | None) -> None:
    lengths = (4, 6)
    q, k, v = random_inputs(lengths)
    wanted = numpy_attention(*(x.detach().numpy() for x in (q, k, v)), lengths, 1.5, window, 2.0)
    found = plain_attention(q, k, v, Segments(lengths), laid_out([q, k, v], 1.5, window, 2.0))
    # The weights of capped scores are rounded to float32, as transformers does.
    np.testing.assert_allclose(found.detach().numpy(), wanted, atol=1e-6)


def test_runs_of_long_and_short_documents_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BMM_MOST_TOKENS", 5)
    segments = Segments((3, 9, 8, 2, 5, 6))
    inputs = random_inputs(segments.lengths)
    found, wanted = (way(*inputs, segments, laid_out(inputs, 0.3)) for way in (pack_attention, plain_attention))
    torch.testing.assert_close(found, wanted)


def test_buckets_hold_each_document_once_and_little_padding() -> None:
    lengths = (100, 7, 95, 6, 81, 79)
    layout = make_layout(lengths, CPU)
    places = sum(bucket.documents * bucket.longest for bucket in layout.buckets)
    assert sorted(layout.place_T.tolist()) == sorted(set(layout.place_T.tolist()))
    assert len(layout.place_T) == sum(lengths) and places <= sum(lengths) / 0.8
    flat = torch.cat([bucket.tokens_BL.view(-1) for bucket in layout.buckets])
    assert flat[layout.place_T].tolist() == list(range(sum(lengths)))


def test_bfloat16_stays_within_its_rounding() -> None:
    lengths = (40, 33)
    inputs = random_inputs(lengths, size=16)
    wanted = plain_attention(*inputs, Segments(lengths), laid_out(inputs, 0.25))
    found = bucketed_attention(*(x.bfloat16() for x in inputs), make_layout(lengths, CPU), 0.25)
    assert (found.double() - wanted).abs().max() < 0.03


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_may_be_narrower_than_keys(dtype: torch.dtype) -> None:
    """As in latent attention (DeepSeek), which the kernels of one width must not be given."""
    lengths, generator = (7, 16, 900), torch.Generator().manual_seed(0)
    shapes = [(sum(lengths), 4, 32), (sum(lengths), 4, 32), (sum(lengths), 4, 16)]
    inputs = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    heads = laid_out(inputs, 0.2)
    outs = [way(*inputs, Segments(lengths), heads) for way in (pack_attention, plain_attention)]
    grads = [torch.autograd.grad(out.float().square().sum(), inputs) for out in outs]
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 5e-2}[dtype]
    torch.testing.assert_close(outs[0], outs[1], atol=tolerance, rtol=tolerance)
    for one, other in zip(*grads, strict=True):
        assert float((one - other).float().norm() / other.float().norm()) < tolerance
