"""Shifted sparse attention against a mask, and norms and embeddings that are trained beside LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.models.test_context import WINDOW, short_model
from torch import Tensor
from torch.nn import functional

from luthier.adapters.base import get_kind
from luthier.ground.errors import BadInput
from luthier.ground.spec import AdapterSpec, ContextSpec
from luthier.models.context import WEIGHTS, ContextExtension
from luthier.models.kernels.varlen import Heads
from luthier.models.packed import hidden_states
from luthier.models.segments import Segments
from luthier.models.shifted import groups, shifted_attention, unshift
from luthier.training.engine.families import why_not

LENGTHS = (37, 5, 64)
LEAST = 6


def masked_attention(query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, heads: Heads) -> Tensor:
    """The same by a [H, T, T] mask, which says for each head and pair of tokens whether one sees the other."""
    total, per_kv = sum(LENGTHS), heads.heads // heads.kv_heads
    sees_HTT = torch.zeros(heads.heads, total, total, dtype=torch.bool)
    straight = (heads.kv_heads - heads.kv_heads // 2) * per_kv if heads.kv_heads > 1 else heads.heads - heads.heads // 2
    for head in range(heads.heads):
        start = 0
        for length in LENGTHS:
            group = max(-(-length // 4), LEAST)
            move = group // 2 if head >= straight and group < length else 0
            # With a shift of half a group, token t is in group (t − half) div group, counted from −1.
            number_L = torch.div(torch.arange(length) - move, group, rounding_mode="floor")
            inside = number_L[:, None] == number_L[None, :]
            sees_HTT[head, start : start + length, start : start + length] = inside.tril()
            start += length
    q, k, v = (x.transpose(0, 1)[None] for x in (query_THD, key_TKD, value_TKD))
    k, v = k.repeat_interleave(per_kv, 1), v.repeat_interleave(per_kv, 1)
    out = functional.scaled_dot_product_attention(q, k, v, sees_HTT[None], scale=heads.scale)
    return out[0].transpose(0, 1)


@pytest.mark.parametrize("counts", [(4, 4), (6, 2), (9, 3), (4, 1), (1, 1)])
def test_it_is_attention_by_the_mask_of_groups(counts: tuple[int, int]) -> None:
    heads = Heads(counts[0], counts[1], 8, 0.3)
    torch.manual_seed(0)
    inputs = [torch.randn(sum(LENGTHS), n, 8, requires_grad=True) for n in (counts[0], counts[1], counts[1])]
    upstream = torch.randn(sum(LENGTHS), counts[0], 8)
    found = shifted_attention(*inputs, Segments(LENGTHS), heads, LEAST, 0.0)
    wanted = masked_attention(*inputs, heads)
    torch.testing.assert_close(found, wanted)
    for a, b in zip(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(wanted, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_a_row_within_the_old_window_is_read_whole() -> None:
    assert groups(Segments((48, 200)), 48, is_shifted=False).lengths == (48, 50, 50, 50, 50)
    assert groups(Segments((48, 200)), 48, is_shifted=True).lengths == (48, 25, 50, 50, 50, 25)


def test_rows_that_share_a_beginning_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read in shifted groups"):
        groups(Segments((4, 4, 4), (-1, 0, 0)), 2, is_shifted=False)


def read(model: torch.nn.Module) -> Tensor:
    ids = torch.arange(4 * WINDOW) % 37
    return hidden_states(model, ids, torch.arange(4 * WINDOW), Segments((4 * WINDOW,)))  # type: ignore[arg-type]


def test_only_training_is_sparse() -> None:
    model = short_model()
    full, sparse = ContextSpec(factor=4), ContextSpec(factor=4, shifted=True)
    plain = ContextExtension(full)
    plain.apply(model, seed=0)
    with torch.no_grad():
        wanted = read(model)
        plain.remove(model)
        ContextExtension(sparse).apply(model, seed=0)
        assert torch.equal(read(model), wanted)
        model.train()
        trained = read(model)
    assert torch.equal(trained[: WINDOW // 2], wanted[: WINDOW // 2])  # one group still
    assert not torch.allclose(trained[2 * WINDOW :], wanted[2 * WINDOW :], atol=1e-3)
    assert why_not(model) == "its attention is shifted"
    unshift(model)
    with torch.no_grad():
        assert torch.equal(read(model), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_and_embeddings_are_trained_in_float32_and_given_back(dtype: torch.dtype, tmp_path: Path) -> None:
    model = short_model().to(dtype).requires_grad_(False)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    extension, kind = ContextExtension(ContextSpec(factor=4, shifted=True)), get_kind("lora")
    trained = extension.apply(model, seed=0)
    names = {name.removeprefix("context.") for name in trained}
    assert names == {name for name in before if "norm" in name or "embed_tokens" in name}
    assert all(weight.dtype == torch.float32 for weight in trained.values())
    kind.inject(model, AdapterSpec(rank=2), seed=0)
    model.train()
    read(model).float().pow(2).sum().backward()
    assert all(weight.grad is not None and weight.grad.dtype == torch.float32 for weight in trained.values())
    with torch.no_grad():
        for weight in trained.values():
            weight.add_(0.25)
        model.eval()
        answered = read(model)
    extension.save(model, tmp_path)
    kind.remove(model)
    extension.remove(model)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) and not weight.requires_grad, name
    other = short_model().to(dtype).requires_grad_(False)
    extension.load(other, tmp_path)
    with torch.no_grad():
        assert torch.equal(read(other), answered)  # LoRA's own matrices begin at zero
    extension.remove(other)
    assert all(torch.equal(weight, before[name]) for name, weight in other.named_parameters())


def test_where_every_weight_is_trained_nothing_is_trained_beside() -> None:
    model = short_model()
    extension = ContextExtension(ContextSpec(factor=4, shifted=True), beside=False)
    assert extension.apply(model, seed=0) == {}
    get_kind("full").inject(model, AdapterSpec(kind="full"), seed=0)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    model = short_model()
    extension = ContextExtension(ContextSpec(factor=4, shifted=True))
    extension.apply(model, seed=0)
    extension.save(model, tmp_path)
    wide = short_model(rms_norm_eps=1e-5)
    wide.resize_token_embeddings(44)
    config = wide.config.to_dict()
    with pytest.raises(BadInput, match="norms and embeddings do not fit"):
        extension.load(wide, tmp_path)
    assert wide.config.to_dict() == config
    assert (tmp_path / WEIGHTS).is_file()
