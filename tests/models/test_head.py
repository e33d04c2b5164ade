"""A head is put beside a model, saved, loaded strictly and taken away; the model itself never changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from luthier.ground.errors import BadInput, Refused
from luthier.models.head import FACTS, WEIGHTS, HeadExtension, HeadFacts, classification_head, head_facts

SINGLE = HeadFacts("single", ("card", "loan", "café"), "mean", instruction="Which queue?")
NUMBER = HeadFacts("regression", (), "last", mean=3.5, scale=1.25)


def _model(width: int = 8) -> BertModel:
    torch.manual_seed(0)
    return BertModel(
        BertConfig(vocab_size=9, hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    ).eval()


def _saved(folder: Path, facts: HeadFacts = SINGLE) -> BertModel:
    model, extension = _model(), HeadExtension(facts)
    trained = extension.apply(model, seed=0)
    with torch.no_grad():
        for weight in trained.values():
            weight.normal_()
    extension.save(model, folder)
    return model


@pytest.mark.parametrize("facts", [SINGLE, NUMBER])
def test_what_was_saved_comes_back(tmp_path: Path, facts: HeadFacts) -> None:
    model = _saved(tmp_path, facts)
    pooled = torch.randn(5, 8)
    expected = classification_head(model)(pooled)
    other = _model()
    again = HeadExtension(head_facts(tmp_path))
    assert again.facts == facts
    again.load(other, tmp_path)
    assert torch.equal(classification_head(other)(pooled), expected)
    assert not any(weight.requires_grad for weight in classification_head(other).parameters())


def test_the_model_keeps_its_names_and_bits() -> None:
    model = _model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    extension = HeadExtension(SINGLE)
    trained = extension.apply(model, seed=0)
    assert {name: tuple(value.shape) for name, value in trained.items()} == {"head.weight": (3, 8), "head.bias": (3,)}
    assert all(weight.requires_grad and weight.dtype == torch.float32 for weight in trained.values())
    assert model.state_dict().keys() == before.keys()
    extension.remove(model)
    extension.remove(model)  # harmless
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(BadInput, match="has no classification head"):
        classification_head(model)


def test_it_begins_without_a_preference() -> None:
    model = _model()
    HeadExtension(SINGLE).apply(model, seed=0)
    assert not classification_head(model)(torch.randn(4, 8) * 100).any()


def test_one_head_at_a_time() -> None:
    model = _model()
    HeadExtension(SINGLE).apply(model, seed=0)
    with pytest.raises(BadInput, match="has a classification head already"):
        HeadExtension(SINGLE).apply(model, seed=0)


def test_logits_are_float32_under_autocast_and_of_bfloat16_states() -> None:
    model = _model().to(torch.bfloat16)
    HeadExtension(SINGLE).apply(model, seed=0)
    head = classification_head(model)
    with torch.no_grad():
        head.weight_LD.normal_()
    pooled = torch.randn(4, 8).to(torch.bfloat16)
    expected = pooled.float() @ head.weight_LD.T
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(head(pooled), expected)


def test_it_takes_no_memory_on_a_model_without_memory() -> None:
    with torch.device("meta"):
        model = _model()
    HeadExtension(SINGLE).apply(model, seed=0)
    assert all(weight.is_meta for weight in classification_head(model).parameters())


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (replace(SINGLE, labels=("card", "loan")), "has the labels card, loan, café, and card, loan was wanted"),
        (replace(SINGLE, labels=("loan", "card", "café")), "has the labels"),
        (HeadFacts("multi", SINGLE.labels, "mean"), "answers with single, and the task with multi"),
        (replace(SINGLE, pooling="first"), "pools by mean"),
    ],
)
def test_another_tasks_head_is_refused(tmp_path: Path, other: HeadFacts, sentence: str) -> None:
    _saved(tmp_path)
    with pytest.raises(Refused, match=sentence):
        HeadExtension(other).load(_model(), tmp_path)


def test_other_numbers_are_refused(tmp_path: Path) -> None:
    _saved(tmp_path, NUMBER)
    with pytest.raises(Refused, match="another mean and scale"):
        HeadExtension(replace(NUMBER, mean=3.0)).load(_model(), tmp_path)


def test_a_wider_model_is_refused(tmp_path: Path) -> None:
    _saved(tmp_path)
    with pytest.raises(BadInput, match="the head's tensors have the shapes"):
        HeadExtension(SINGLE).load(_model(16), tmp_path)


def test_a_missing_or_broken_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no classification head here"):
        HeadExtension(SINGLE).load(_model(), tmp_path)
    with pytest.raises(BadInput, match="there is no classification head here"):
        head_facts(tmp_path)
    _saved(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    tensors["bias"][1] = torch.nan
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(BadInput, match="the head's bias holds NaN"):
        HeadExtension(SINGLE).load(_model(), tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"kind": "ranking"}, {"labels": ["card", "card", "loan"]}, {"labels": [1, 2, 3]}, {"scale": 0.0}, {"labels": []}],
)
def test_a_description_that_makes_no_sense_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    _saved(tmp_path)
    facts = json.loads((tmp_path / FACTS).read_text())
    (tmp_path / FACTS).write_text(json.dumps({**facts, **change}))
    with pytest.raises(BadInput, match="description"):
        head_facts(tmp_path)
