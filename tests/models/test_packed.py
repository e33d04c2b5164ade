"""Packing equals one row at a time, documents never see each other, and ordinary calls are left alone."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, VOCABULARY, tiny_model
from torch import Tensor
from torch.nn import functional
from transformers import BloomConfig, BloomForCausalLM, PreTrainedModel

from luthier.ground.errors import BadInput
from luthier.models.packed import hidden_at, hidden_states, install_packed_attention, logits_at, use_body
from luthier.models.segments import Segments

LENGTHS = (5, 11, 1, 9)
ROWS = Segments(LENGTHS)


def random_pack(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids_T = torch.randint(3, VOCABULARY, (sum(LENGTHS),), generator=generator)
    return ids_T, torch.cat([torch.arange(length) for length in LENGTHS])


def loss_sum(logits_TV: Tensor, ids_T: Tensor) -> Tensor:
    return functional.cross_entropy(logits_TV[:-1], ids_T[1:], reduction="sum")


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_loss_and_gradient_equal_one_row_at_a_time(family: str) -> None:
    ids_T, positions_T = random_pack()
    alone = tiny_model(family, attention="eager")
    total = sum(loss_sum(alone(input_ids=row[None]).logits[0], row) for row in ids_T.split(LENGTHS) if len(row) > 1)
    assert isinstance(total, Tensor)
    total.backward()

    packed = tiny_model(family)
    logits_TV = logits_at(packed, hidden_states(packed, ids_T, positions_T, ROWS))
    parts = zip(logits_TV.split(LENGTHS), ids_T.split(LENGTHS), strict=True)
    loss = torch.stack([loss_sum(logits, ids) for logits, ids in parts if len(ids) > 1]).sum()
    loss.backward()

    torch.testing.assert_close(loss, total, rtol=1e-5, atol=1e-5)
    wanted = gradients(alone)
    assert wanted.keys() == gradients(packed).keys()
    for name, gradient in gradients(packed).items():
        torch.testing.assert_close(
            gradient, wanted[name], rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_changing_one_document_changes_no_other_at_all(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family).to(dtype)
    ids_T, positions_T = random_pack()
    changed_T = ids_T.clone()
    changed_T[5:16] = (changed_T[5:16] + 7) % VOCABULARY  # the second document
    with torch.no_grad():
        before_TD = hidden_states(model, ids_T, positions_T, ROWS)
        after_TD = hidden_states(model, changed_T, positions_T, ROWS)
    assert not torch.equal(before_TD[5:16], after_TD[5:16])
    assert torch.equal(before_TD[:5], after_TD[:5]) and torch.equal(before_TD[16:], after_TD[16:])


@pytest.mark.parametrize("family", FAMILIES)
def test_ordinary_padded_calls_with_a_cache_are_undisturbed(family: str) -> None:
    """Left-padded prefill and one cached step give the logits of a plain model of transformers."""
    plain, ours = tiny_model(family, attention="eager"), tiny_model(family)
    install_packed_attention(ours)
    ids_BT = torch.tensor([[0, 0, 7, 8, 9, 10], [3, 4, 5, 6, 7, 8]])
    seen_BT = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    positions_BT = (seen_BT.cumsum(1) - 1).clamp(min=0)
    outputs = []
    for model in (plain, ours):
        with torch.no_grad():
            prefill = model(ids_BT, attention_mask=seen_BT, position_ids=positions_BT, use_cache=True)
            step = model(
                torch.tensor([[11], [12]]),
                attention_mask=torch.cat([seen_BT, torch.ones(2, 1, dtype=torch.long)], 1),
                position_ids=positions_BT[:, -1:] + 1,
                past_key_values=prefill.past_key_values,
                use_cache=True,
            )
        outputs.append((prefill.logits[seen_BT.bool()], step.logits))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
def test_gradient_checkpointing_does_not_let_documents_leak(family: str) -> None:
    """Layers that are computed again in the backward pass, outside the call, still see the documents' borders."""
    ids_T, positions_T = random_pack()
    found = []
    for checkpointing in (False, True):
        model = tiny_model(family).train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        hidden_states(model, ids_T, positions_T, ROWS).square().sum().backward()
        found.append(gradients(model))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-6)


def test_a_model_whose_attention_goes_its_own_way_is_refused() -> None:
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)
    model = BloomForCausalLM(config)
    ids_T, positions_T = random_pack()
    with pytest.raises(Exception) as caught:
        hidden_states(model, ids_T, positions_T, ROWS)
    assert isinstance(caught.value, BadInput), caught.value
    assert "BloomForCausalLM" in str(caught.value)


@pytest.mark.parametrize("lengths", [(5, 5), (26, 1), (27,)])
def test_segments_must_cover_the_tokens(lengths: tuple[int, ...]) -> None:
    ids_T, positions_T = random_pack()
    with pytest.raises(ValueError, match="do not cover"):
        hidden_states(tiny_model(), ids_T, positions_T, Segments(lengths))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_beginning_gives_every_row_its_own_states(family: str) -> None:
    """A tree of segments answers as its rows, each on its own."""
    ids_T, _ = random_pack()
    segments = Segments((6, 3, 4, 5, 8), (-1, 0, 1, 0, -1))
    spans = [slice(start, start + length) for start, length in zip(segments.starts, segments.lengths, strict=True)]
    before = [sum(segments.lengths[link] for link in segments.chain(n)[:-1]) for n in range(5)]
    positions_T = torch.cat([torch.arange(b, b + n) for b, n in zip(before, segments.lengths, strict=True)])
    model = tiny_model(family)
    with torch.no_grad():
        found_TD = hidden_states(model, ids_T, positions_T, segments)
        for n in (2, 3, 4):
            row_L = torch.cat([ids_T[spans[link]] for link in segments.chain(n)])
            alone_LD = hidden_states(model, row_L, torch.arange(len(row_L)), Segments((len(row_L),)))
            torch.testing.assert_close(found_TD[spans[n]], alone_LD[before[n] :], rtol=1e-5, atol=1e-5)


def test_states_are_answered_in_any_order_and_more_than_once() -> None:
    ids_T, positions_T = random_pack()
    wanted_N = torch.tensor([7, 3, 3, 20, 0])
    model = tiny_model()
    every_TD = hidden_states(model, ids_T, positions_T, ROWS)
    assert torch.equal(hidden_at(model, ids_T, positions_T, ROWS, wanted_N), every_TD[wanted_N])
    seen: list[Tensor] = []

    def body(ids: Tensor, positions: Tensor, segments: Segments, wanted: Tensor) -> Tensor:
        seen.append(wanted)
        return hidden_states(model, ids, positions, segments)[wanted]

    with use_body(model, body):
        assert torch.equal(hidden_at(model, ids_T, positions_T, ROWS, wanted_N), every_TD[wanted_N])
    hidden_at(model, ids_T, positions_T, ROWS, wanted_N)
    assert [wanted.tolist() for wanted in seen] == [[0, 3, 7, 20]], "rising, once each, and only within the block"


def test_the_saved_config_does_not_name_our_attention(tmp_path: object) -> None:
    model = tiny_model()
    install_packed_attention(model)
    assert "luthier" not in model.config.to_json_string(use_diff=False)


def test_a_body_is_asked_for_few_numbers_of_tokens_and_answers_as_the_model() -> None:
    model = tiny_model("llama")
    asked = []
    for tokens in (300, 310, 333, 350):
        ids_T, positions_T = torch.randint(3, 90, (tokens,)), torch.arange(tokens)
        segments = Segments((tokens,))
        wanted_N = torch.arange(tokens - 1)[torch.rand(tokens - 1) > 0.05]

        def body(ids_T: Tensor, positions_T: Tensor, segments: Segments, wanted_N: Tensor) -> Tensor:
            asked.append(len(wanted_N))
            assert bool((wanted_N[1:] > wanted_N[:-1]).all()), "they rise, each once"
            return hidden_states(model, ids_T, positions_T, segments)[wanted_N]

        with torch.no_grad(), use_body(model, body):
            found_ND = hidden_at(model, ids_T, positions_T, segments, wanted_N)
        with torch.no_grad():
            torch.testing.assert_close(found_ND, hidden_states(model, ids_T, positions_T, segments)[wanted_N])
    assert {number % 64 for number in asked} == {0}
