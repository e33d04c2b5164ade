"""Encoders in packs: each row as if it were alone, for every family, both ways of running, and pooled as asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    XLMRobertaConfig,
)

from luthier.ground.errors import BadInput
from luthier.models import encoder
from luthier.models.encoder import packed_states, padded_states, pooled_states, two_way_attention, window_of

LENGTHS = (3, 40, 41, 7, 1, 7)
SIZES: dict[str, Any] = {
    "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 80,
}  # fmt: skip
CONFIGS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES),
    "xlm-roberta": XLMRobertaConfig(**SIZES),
    "camembert": CamembertConfig(**SIZES),
    "electra": ElectraConfig(**SIZES),
    "distilbert": DistilBertConfig(
        vocab_size=99, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=80
    ),
    "albert": AlbertConfig(**SIZES, embedding_size=16),
    "modernbert": ModernBertConfig(
        **SIZES, local_attention=8, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
    ),
}  # fmt: skip


def _model(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModel.from_config(CONFIGS[name]).eval()
    return model


def _ids(lengths: tuple[int, ...] = LENGTHS) -> Tensor:
    return torch.randint(5, 99, (sum(lengths),), generator=torch.Generator().manual_seed(1))


def _alone(model: PreTrainedModel, ids_T: Tensor, lengths: tuple[int, ...]) -> Tensor:
    return torch.cat([model(input_ids=part[None]).last_hidden_state[0] for part in ids_T.split(list(lengths))])


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_padded_rows_are_as_if_alone(name: str) -> None:
    model, ids_T = _model(name), _ids()
    torch.testing.assert_close(padded_states(model, ids_T, LENGTHS), _alone(model, ids_T, LENGTHS))


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(encoder.PACKED))
def test_packed_rows_are_as_if_alone(name: str) -> None:
    model, ids_T = _model(name), _ids()
    expected = _alone(model, ids_T, LENGTHS)
    torch.testing.assert_close(packed_states(model, ids_T, LENGTHS), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(_alone(model, ids_T, LENGTHS), expected)  # ordinary calls go on as before


def test_every_family_that_is_packed_is_tested() -> None:
    assert set(CONFIGS) >= encoder.PACKED


def test_a_pack_gives_the_gradients_of_its_rows() -> None:
    ids_T, gradients = _ids(), []
    for run in (packed_states, padded_states):
        model = _model("bert")
        run(model, ids_T, LENGTHS).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.encoder.parameters() if p.grad is not None]))
    assert ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item() < 1e-5


def test_a_row_does_not_see_its_neighbours() -> None:
    model, ids_T = _model("bert"), _ids()
    other = ids_T.clone()
    other[: LENGTHS[0]] = 7
    with torch.no_grad():
        first, second = (packed_states(model, ids, LENGTHS) for ids in (ids_T, other))
    torch.testing.assert_close(first[LENGTHS[0] :], second[LENGTHS[0] :])
    assert not torch.allclose(first[: LENGTHS[0]], second[: LENGTHS[0]])


@torch.no_grad()
def test_pooling() -> None:
    model, ids_T = _model("bert"), _ids()
    parts = _alone(model, ids_T, LENGTHS).split(list(LENGTHS))
    for how, expected in (
        ("mean", torch.stack([part.mean(0) for part in parts])),
        ("first", torch.stack([part[0] for part in parts])),
        ("last", torch.stack([part[-1] for part in parts])),
    ):
        found = pooled_states(model, ids_T, LENGTHS, how)  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_mean_of_bfloat16_states_is_taken_in_float32() -> None:
    model = _model("bert").to(torch.bfloat16)
    with torch.no_grad():
        assert pooled_states(model, _ids(), LENGTHS, "mean").dtype == torch.float32


def test_attention_agrees_with_plain_softmax() -> None:
    generator = torch.Generator().manual_seed(2)
    lengths = (5, 2, 9)
    q, k, v = (torch.randn(16, 2, 4, generator=generator) for _ in range(3))
    found = two_way_attention(q, k, v, lengths, 0.5)
    parts = []
    for q_LHD, k_LHD, v_LHD in zip(*(x.split(list(lengths)) for x in (q, k, v)), strict=True):
        weights_HLL = torch.softmax(torch.einsum("lhd,mhd->hlm", q_LHD, k_LHD) * 0.5, -1)
        parts.append(torch.einsum("hlm,mhd->lhd", weights_HLL, v_LHD))
    torch.testing.assert_close(found, torch.cat(parts), rtol=1e-4, atol=1e-5)


def test_a_row_beyond_the_window_is_refused() -> None:
    assert window_of(CONFIGS["bert"]) == 80
    assert window_of(CONFIGS["roberta"]) == 78, "two positions stand for padding"
    with pytest.raises(BadInput, match="a row has 81 tokens and the model's window is 80"):
        encoder.encoder_states(_model("bert"), _ids((81,)), (81,))


def test_a_family_that_does_not_ask_the_attention_interface_is_refused() -> None:
    model = _model("bert")
    model.config.num_hidden_layers = 3  # claims more layers than ask
    with pytest.raises(BadInput, match="2 of 3 layers, so rows would leak"):
        packed_states(model, _ids(), LENGTHS)
