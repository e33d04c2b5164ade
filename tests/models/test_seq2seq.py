"""Hidden states of encoder-decoders in packs, held against transformers' own forward on each row alone."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from luthier.ground.errors import BadInput
from luthier.models.seq2seq import Lines, decoder_states, head_of_seq2seq, padded_states
from luthier.models.seq2seq_attention import make_row_layout, plain_rows_attention, rows_attention
from models.seq2seq_models import SEQ2SEQ, tiny_seq2seq
from models.tiny_models import VOCABULARY

SOURCES, TARGETS = (5, 17, 3, 12, 11, 30, 1), (4, 2, 9, 1, 12, 7, 3)
TOLERANCE = 1e-10


def lines(lengths: tuple[int, ...], seed: int = 0) -> Lines:
    torch.manual_seed(seed)
    return Lines(torch.randint(3, VOCABULARY, (sum(lengths),)), lengths)


def logits_alone(model: PreTrainedModel, sources: Lines, targets: Lines) -> torch.Tensor:
    rows = zip(sources.ids_T.split(sources.lengths), targets.ids_T.split(targets.lengths), strict=True)
    return torch.cat([model(input_ids=s[None], decoder_input_ids=t[None]).logits[0] for s, t in rows])


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_each_row_alone_equals_the_pack(family: str) -> None:
    model = tiny_seq2seq(family).double()
    sources, targets = lines(SOURCES), lines(TARGETS, 1)
    with torch.no_grad():
        expected_TV = logits_alone(model, sources, targets)
        wanted_N = torch.tensor([0, 3, 37, 5])
        logits_NV = head_of_seq2seq(model)(decoder_states(model, sources, targets, wanted_N))
    assert (logits_NV - expected_TV[wanted_N]).abs().max() < TOLERANCE


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_padded_batches_are_the_same(family: str) -> None:
    model = tiny_seq2seq(family).double()
    sources, targets = lines(SOURCES), lines(TARGETS, 1)
    scale = model.config.d_model**-0.5 if family == "t5" else 1.0
    with torch.no_grad():
        packed = decoder_states(model, sources, targets, torch.arange(sum(TARGETS)))
        assert (packed - scale * padded_states(model, sources, targets)).abs().max() < TOLERANCE


@pytest.mark.parametrize("family", SEQ2SEQ)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_rows_alone(family: str, checkpointing: bool) -> None:
    model = tiny_seq2seq(family).double()
    sources, targets = lines(SOURCES), lines(TARGETS, 1)
    expected = _gradients(model, logits_alone(model, sources, targets))
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    states = decoder_states(model, sources, targets, torch.arange(sum(TARGETS)))
    found = _gradients(model, head_of_seq2seq(model)(states))
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-9 * (1 + gradient.norm()), name


def test_a_row_does_not_see_its_neighbours() -> None:
    model = tiny_seq2seq("t5").double()
    sources, targets = lines(SOURCES), lines(TARGETS, 1)
    other = sources.ids_T.clone()
    other[5:22] = 4  # the second row's source
    with torch.no_grad():
        before, after = (
            decoder_states(model, source, targets, torch.arange(sum(TARGETS)))
            for source in (sources, Lines(other, SOURCES))
        )
    second = slice(4, 6)
    assert not torch.equal(before[second], after[second])
    before[second] = after[second] = 0
    assert torch.equal(before, after)


def test_long_rows_by_sdpa_are_the_same() -> None:
    model = tiny_seq2seq("t5").double()
    sources, targets = lines((900, 40)), lines((30, 800), 1)
    with torch.no_grad():
        states = decoder_states(model, sources, targets, torch.arange(830))
        expected = padded_states(model, sources, targets) * model.config.d_model**-0.5
    assert (states - expected).abs().max() < 1e-8


def test_buckets_against_the_plain_reference() -> None:
    queries, keys = (3, 40, 8, 1, 9, 33), (50, 4, 8, 1, 7, 49)
    torch.manual_seed(0)
    q, k, v = (torch.randn(sum(n), 2, 8, dtype=torch.float64, requires_grad=True) for n in (queries, keys, keys))
    bias = torch.randn(1, 2, 64, 64, dtype=torch.float64, requires_grad=True)
    layout = make_row_layout(queries, keys, torch.device("cpu"))
    assert len(layout.buckets) < len(queries)
    grad = torch.randn(sum(queries), 2, 8, dtype=torch.float64)
    ways = [rows_attention(q, k, v, layout, 0.3, bias), plain_rows_attention(q, k, v, (queries, keys), 0.3, bias)]
    assert torch.allclose(*ways, atol=1e-12)
    for fast, plain in zip(*(torch.autograd.grad(way, (q, k, v, bias), grad) for way in ways), strict=True):
        assert torch.allclose(fast, plain, atol=1e-12)


def test_a_row_beyond_learned_positions_is_refused() -> None:
    with pytest.raises(BadInput, match="65 tokens and the model's positions end at 64"):
        decoder_states(tiny_seq2seq("bart"), lines((65,)), lines((3,)), torch.tensor([0]))


def test_attention_dropout_is_used_in_training_only() -> None:
    model = tiny_seq2seq("t5")
    for module in model.modules():
        if hasattr(module, "key_value_proj_dim"):
            module.dropout = 0.5
    sources, targets = lines((9, 6)), lines((5, 4), 1)
    first, again = (decoder_states(model, sources, targets, torch.arange(9)) for _ in range(2))
    assert torch.equal(first, again)
    model.train()
    first, again = (decoder_states(model, sources, targets, torch.arange(9)) for _ in range(2))
    assert not torch.equal(first, again)


def _gradients(model: PreTrainedModel, logits_TV: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    torch.manual_seed(5)
    (logits_TV * torch.randn_like(logits_TV)).sum().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
