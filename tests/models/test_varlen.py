"""Native attention over trees of segments agrees with the plain one, answers any subset alike, and lets nothing leak.

The kernels multiply bfloat16 (8 bits: a rounding is 0.2 to 0.4 %) and add in float32; weights, outputs and score
gradients are rounded once each, so results lie within 1 % (in norm) of the same bfloat16 inputs in float32.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from luthier.models.attention import pack_attention, plain_attention
from luthier.models.kernels.build import has_native_attention
from luthier.models.kernels.varlen import Heads, attend, attend_back, serves, varlen_attention
from luthier.models.segments import Segments, unit_table, wanted_table

needs_native = pytest.mark.skipif(not has_native_attention(), reason="this processor has no AVX512-BF16")
TOLERANCE = 0.01
FOREST = Segments((9, 5, 1, 7, 3, 40, 33, 2), (-1, 0, 1, 1, 0, -1, 5, -1))


@st.composite
def forests(draw: st.DrawFn) -> Segments:
    """Trees of up to three generations, segments of 1 to 70 tokens (a block of queries has 32)."""
    lengths: list[int] = []
    parents: list[int] = []
    generation: list[int] = []
    for n in range(draw(st.integers(1, 8))):
        root = max((m for m in range(n) if parents[m] < 0), default=0)
        parent = draw(st.sampled_from([-1, *(m for m in range(root, n) if generation[m] < 2)]))
        lengths.append(draw(st.sampled_from([1, 2, 15, 16, 17, 33, 70]) | st.integers(1, 40)))
        parents.append(parent)
        generation.append(0 if parent < 0 else generation[parent] + 1)
    return Segments(tuple(lengths), tuple(parents))


def random_inputs(segments: Segments, heads: Heads, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(segments.tokens, n, heads.size, generator=generator).bfloat16()
        for n in (heads.heads, heads.kv_heads, heads.kv_heads)
    ]


def with_gradients(way: object, inputs: list[Tensor], segments: Segments, heads: Heads) -> list[Tensor]:
    """Return output and the three gradients for a random upstream gradient, as float32."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = way(*leaves, segments, heads)  # type: ignore[operator]
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    return [x.detach().float() for x in (out, *torch.autograd.grad(out, leaves, upstream.to(out.dtype)))]


@needs_native
@settings(max_examples=100, deadline=None)
@given(
    segments=forests(),
    layout=st.sampled_from([(4, 2), (3, 1), (2, 2), (6, 2)]),
    size=st.sampled_from([16, 32, 64, 128]),
    window=st.sampled_from([0, 0, 1, 5, 16, 33, 200]),
    cap=st.sampled_from([0.0, 0.0, 3.0, 50.0]),
    seed=st.integers(0, 99),
)
@example(FOREST, (4, 2), 64, 20, 3.0, 0)
def test_native_and_plain_agree(
    segments: Segments, layout: tuple[int, int], size: int, window: int, cap: float, seed: int
) -> None:
    heads = Heads(*layout, size, size**-0.5, window, cap)
    inputs = random_inputs(segments, heads, seed)
    found = with_gradients(varlen_attention, inputs, segments, heads)
    wanted = with_gradients(plain_attention, [x.float() for x in inputs], segments, heads)
    for name, one, other in zip(("output", "dq", "dk", "dv"), found, wanted, strict=True):
        # In documents of one or two tokens score gradients cancel: there 1 % is of those of values.
        assert float((one - other).norm()) <= TOLERANCE * max(float(other.norm()), 0.2 * float(wanted[3].norm())), name


@needs_native
@settings(max_examples=30, deadline=None)
@given(segments=forests(), window=st.sampled_from([0, 1, 20]), data=st.data())
def test_some_queries_get_the_rows_of_the_full_result_bit_for_bit(
    segments: Segments, window: int, data: st.DataObject
) -> None:
    wanted = data.draw(st.sets(st.integers(0, segments.tokens - 1)))
    wanted_N = torch.tensor(sorted(wanted), dtype=torch.long)
    heads = Heads(4, 2, 32, 0.2, window)
    q, k, v = (x.flatten(1) for x in random_inputs(segments, heads))
    full_TS = torch.empty_like(q)
    lse_TH = attend(q, k, v, heads, unit_table(segments), full_TS)
    some_NS = torch.empty_like(q[wanted_N])
    lse_NH = attend(q[wanted_N], k, v, heads, wanted_table(segments, wanted_N), some_NS)
    assert torch.equal(some_NS, full_TS[wanted_N]) and torch.equal(lse_NH, lse_TH[wanted_N])


@needs_native
@pytest.mark.parametrize("window", [0, 6])
def test_the_gradient_of_some_queries_is_that_of_all_when_the_others_get_none(window: int) -> None:
    heads = Heads(4, 2, 32, 0.2, window)
    inputs = random_inputs(FOREST, heads)
    wanted_N = torch.tensor([3, 8, 9, 20, 21, 40, 64, 99])
    upstream_TS = torch.zeros(FOREST.tokens, 128, dtype=torch.bfloat16)
    upstream_TS[wanted_N] = torch.randn(8, 128, generator=torch.Generator().manual_seed(1)).bfloat16()
    leaves = [x.clone().requires_grad_() for x in inputs]
    full = torch.autograd.grad(varlen_attention(*leaves, FOREST, heads).flatten(1), leaves, upstream_TS)
    some = [x.flatten(1) for x in gradients_of_some(inputs, wanted_N, upstream_TS[wanted_N], heads)]
    assert torch.equal(some[0], full[0].flatten(1)[wanted_N])
    for one, other in zip(some[1:], full[1:], strict=True):
        torch.testing.assert_close(one, other.flatten(1), rtol=2**-7, atol=1e-3)  # sums in another order


def gradients_of_some(inputs: list[Tensor], wanted_N: Tensor, upstream_NS: Tensor, heads: Heads) -> list[Tensor]:
    q, k, v = (x.flatten(1) for x in inputs)
    table = wanted_table(FOREST, wanted_N)
    q_NS, out_NS = q[wanted_N], torch.empty_like(upstream_NS)
    lse_NH = attend(q_NS, k, v, heads, table, out_NS)
    gradients = torch.empty_like(q_NS), torch.full_like(k, 9.0), torch.full_like(v, 9.0)
    attend_back(upstream_NS, out_NS, lse_NH, (q_NS, k, v), heads, table, gradients)
    return list(gradients)


@needs_native
@pytest.mark.parametrize("spoils", ["another value", "not a number"])
def test_nothing_of_a_document_reaches_another(spoils: str) -> None:
    """Changing one tree, or a branch of one, leaves output and gradients of all that does not continue it bit-equal."""
    heads = Heads(4, 2, 32, 0.2)
    inputs = random_inputs(FOREST, heads)
    clean = with_gradients(varlen_attention, inputs, FOREST, heads)
    for changed, allowed in ((5, {5, 6}), (3, {0, 1, 3}), (7, {7})):  # keys of parents get gradients from branches
        start = FOREST.starts[changed]
        spoilt = [x.clone() for x in inputs]
        for x in spoilt:
            x[start : start + FOREST.lengths[changed]] = float("nan") if spoils == "not a number" else 0.5
        found = with_gradients(varlen_attention, spoilt, FOREST, heads)
        for name, one, other in zip(("output", "dq", "dk", "dv"), found, clean, strict=True):
            for n in range(len(FOREST.lengths)):
                span = slice(FOREST.starts[n], FOREST.starts[n] + FOREST.lengths[n])
                follows = changed in FOREST.chain(n)
                if not follows and (name in ("output", "dq") or n not in allowed):
                    assert torch.equal(one[span], other[span]), (name, changed, n)
                elif follows and name == "output":
                    assert not torch.equal(one[span], other[span]), (name, changed, n)
                    assert spoils != "not a number" or not one[span].isfinite().all()


@needs_native
@pytest.mark.parametrize("window", [0, 6])
def test_threads_change_no_bit(window: int) -> None:
    before = torch.get_num_threads()
    heads = Heads(4, 2, 32, 0.2, window)
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(with_gradients(varlen_attention, random_inputs(FOREST, heads), FOREST, heads))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@needs_native
def test_rows_may_lie_in_wider_buffers() -> None:
    """Queries, keys and values side by side, as a fused projection gives them, and outputs in the next one's buffer."""
    heads = Heads(4, 2, 32, 0.2)
    q, k, v = (x.flatten(1) for x in random_inputs(FOREST, heads))
    qkv_TS = torch.cat([q, k, v], 1)
    outs = [torch.full((FOREST.tokens, 128 + extra), 7.0, dtype=torch.bfloat16) for extra in (0, 8)]
    attend(q, k, v, heads, unit_table(FOREST), outs[0])
    attend(qkv_TS[:, :128], qkv_TS[:, 128:192], qkv_TS[:, 192:], heads, unit_table(FOREST), outs[1][:, :128])
    assert torch.equal(outs[0], outs[1][:, :128]) and bool((outs[1][:, 128:] == 7.0).all())


@needs_native
def test_what_the_kernels_cannot_take_is_refused_or_goes_another_way() -> None:
    heads = Heads(4, 2, 32, 0.2)
    q, k, v = (x.flatten(1) for x in random_inputs(FOREST, heads))
    for bad in ((q.float(), k, v), (q, k[:, 1:], v), (q, k, torch.randn(64, len(v)).t().bfloat16())):
        with pytest.raises(ValueError, match="rows of bfloat16"):
            attend(*bad, heads, unit_table(FOREST), torch.empty_like(q))
    cpu = torch.device("cpu")
    assert serves(torch.bfloat16, cpu, 64) and not serves(torch.float32, cpu, 64) and not serves(torch.bfloat16, cpu, 8)


@settings(max_examples=20, deadline=None)
@given(segments=forests(), window=st.sampled_from([0, 1, 9]), cap=st.sampled_from([0.0, 3.0]))
def test_the_way_that_is_chosen_agrees_in_float32(segments: Segments, window: int, cap: float) -> None:
    """And a tree answers as each of its documents alone."""
    heads = Heads(4, 2, 16, 0.25, window, cap)
    inputs = [x.float() for x in random_inputs(segments, heads)]
    found = pack_attention(*inputs, segments, heads)
    torch.testing.assert_close(found, plain_attention(*inputs, segments, heads), rtol=1e-5, atol=1e-5)
    spans = [slice(start, start + length) for start, length in zip(segments.starts, segments.lengths, strict=True)]
    for n, span in enumerate(spans):
        alone = [torch.cat([x[spans[link]] for link in segments.chain(n)]) for x in inputs]
        out = plain_attention(*alone, Segments((len(alone[0]),)), heads)
        torch.testing.assert_close(found[span], out[-segments.lengths[n] :], rtol=1e-5, atol=1e-5)


# -- segments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "parents"),
    [
        ((3, 0), ()),
        ((), ()),
        ((3, 2), (-1,)),
        ((3, 2), (-1, 1)),  # its own parent
        ((3, 2), (1, -1)),  # a parent that comes later
        ((3, 2, 4), (-1, -1, 0)),  # a tree that is interrupted by another
    ],
)
def test_what_is_no_forest_is_refused(lengths: tuple[int, ...], parents: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"segments|tree"):
        Segments(lengths, parents)


def test_segments_know_their_chains() -> None:
    assert Segments((3, 2)).parents == (-1, -1) and Segments((3, 2)).is_flat and not FOREST.is_flat
    assert FOREST.starts == (0, 9, 14, 15, 22, 25, 65, 98) and FOREST.tokens == 100
    assert [FOREST.chain(n) for n in (0, 3, 4, 6, 7)] == [[0], [0, 1, 3], [0, 4], [5, 6], [7]]
    assert [FOREST.root(n) for n in range(8)] == [0, 0, 0, 0, 0, 5, 5, 7]


@settings(max_examples=30, deadline=None)
@given(segments=forests())
def test_the_table_tells_who_sees_whom(segments: Segments) -> None:
    table = unit_table(segments)
    seen = {}
    for (first, queries, ranges_at, ranges, keys), n in zip(table.units.tolist(), range(99), strict=False):
        chain = [
            token
            for start, length in table.ranges[ranges_at : ranges_at + ranges].tolist()
            for token in range(start, start + length)
        ]
        assert len(chain) == keys
        for query in range(first, first + queries):
            assert chain[int(table.places[query])] == query, "its own place is where the chain holds it"
            seen[query] = n
    assert sorted(seen) == list(range(segments.tokens))
    bounds = [(start, start + tokens) for _, _, start, tokens, _ in table.groups.tolist()]
    assert bounds[0][0] == 0 and bounds[-1][1] == segments.tokens
    assert all(one[1] == two[0] for one, two in pairwise(bounds))
