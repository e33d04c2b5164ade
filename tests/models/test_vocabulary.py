"""New tokens: their first vectors, training beside a frozen embedding, saving, removing, merging."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from luthier.adapters.base import get_kind, remove_adapter
from luthier.ground.errors import BadInput
from luthier.ground.spec import AdapterSpec
from luthier.models.find import find_model
from luthier.models.load import load_model
from luthier.models.vocabulary import VocabularyExtension, merge
from models.tiny_models import FAMILIES, tiny_folder, tiny_model, tiny_tokenizer

WORDS = ["ab", " ab", "ba"]


def _extended(family: str) -> tuple[PreTrainedModel, VocabularyExtension]:
    return tiny_model(family), VocabularyExtension(tiny_tokenizer(), WORDS)


def _weights(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def _ids(extension: VocabularyExtension) -> Tensor:
    return torch.tensor([[5, extension.first, 6, extension.first + 2, 7]])


@pytest.mark.parametrize("family", FAMILIES)
def test_old_tokens_keep_their_logits_and_removal_leaves_no_trace(family: str) -> None:
    model, extension = _extended(family)
    before, old_ids = _weights(model), torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        plain = model(input_ids=old_ids).logits
        extension.apply(model, seed=0)
        longer = model(input_ids=old_ids).logits
    assert longer.shape[-1] == extension.first + 3 == model.config.vocab_size
    torch.testing.assert_close(longer[..., : extension.first], plain[..., : extension.first])
    extension.remove(model)
    extension.remove(model)  # harmless
    assert {name: weight.shape for name, weight in before.items()} == {
        name: weight.shape for name, weight in model.state_dict().items()
    }
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert model.config.vocab_size == plain.shape[-1]


@pytest.mark.parametrize("init", ["subwords", "mean"])
def test_first_vectors(init: str) -> None:
    model, tokenizer = tiny_model("qwen2"), tiny_tokenizer()
    extension = VocabularyExtension(tokenizer, ["ab"], init)  # type: ignore[arg-type]
    (vectors, of_head) = extension.apply(model, seed=0).values()
    pieces = tokenizer.encode("ab") if init == "subwords" else list(range(extension.first))
    for found, matrix in ((vectors, model.get_input_embeddings().weight), (of_head, model.lm_head.weight)):
        torch.testing.assert_close(found[0].detach(), matrix[pieces].float().mean(0))


def test_tied_matrices_share_one_vector_and_untied_ones_have_two() -> None:
    for family, count in (("llama", 1), ("qwen2", 2)):
        model, extension = _extended(family)
        trained = extension.apply(model, seed=0)
        assert len(trained) == count
        ids = _ids(extension)
        model(input_ids=ids, labels=ids).loss.backward()
        assert all(bool(vectors.grad.abs().sum()) for vectors in trained.values() if vectors.grad is not None)
        assert {vectors.dtype for vectors in trained.values()} == {torch.float32}


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text"])
def test_saved_vectors_come_back_and_answer_alike(family: str, tmp_path: Path) -> None:
    model, extension = _extended(family)
    for vectors in extension.apply(model, seed=0).values():
        vectors.data.add_(torch.randn_like(vectors))
    logits = model(input_ids=_ids(extension)).logits
    extension.save(model, tmp_path)
    extension.remove(model)
    extension.load(model, tmp_path)
    assert torch.equal(model(input_ids=_ids(extension)).logits, logits)
    assert not any(weight.requires_grad for name, weight in model.named_parameters() if name.endswith("added"))
    assert AutoTokenizer.from_pretrained(tmp_path).tokenize("abxba") == ["ab", "x", "ba"]


def test_loading_is_strict(tmp_path: Path) -> None:
    model, extension = _extended("llama")
    extension.apply(model, seed=0)
    extension.save(model, tmp_path)
    other = VocabularyExtension(tiny_tokenizer(), ["ab", " ab", "xy"])
    with pytest.raises(BadInput, match="other tokens"):
        other.load(tiny_model(), tmp_path)
    with pytest.raises(BadInput, match="do not fit this model"):
        VocabularyExtension(tiny_tokenizer(), WORDS).load(tiny_model("qwen2"), tmp_path)
    with pytest.raises(BadInput, match="has these tokens already"):
        extension.load(model, tmp_path)
    (tmp_path / "vocabulary-96.safetensors").unlink()
    with pytest.raises(BadInput, match="so the new tokens have no vectors"):
        extension.load(tiny_model(), tmp_path)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text", "gpt2"])
def test_a_merged_model_loads_in_transformers_with_the_same_logits(family: str, tmp_path: Path) -> None:
    """Two extensions, as new words and marks for infilling would be."""
    model, words = _extended(family)
    marks = VocabularyExtension(words.tokenizer, ["<gap>"], special=True)
    trained = {**words.apply(model, seed=0), **marks.apply(model, seed=0)}
    for vectors in trained.values():
        vectors.data.add_(torch.randn_like(vectors))
    ids = torch.tensor([[5, words.first, marks.first, 7]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        merge(model, [words, marks])
        model.save_pretrained(tmp_path)
        marks.tokenizer.save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
        torch.testing.assert_close(loaded(input_ids=ids).logits, logits)
    tied = loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert tied == (len(trained) == 2)
    assert loaded.config.vocab_size == loaded.get_input_embeddings().weight.shape[0] == words.first + 4
    assert AutoTokenizer.from_pretrained(tmp_path).encode("ab<gap>") == [words.first, marks.first]


@pytest.mark.parametrize(("family", "masters"), [("llama", "fp32"), ("llama", "none"), ("olmo2", "fp32")])
def test_where_every_weight_is_trained_the_matrices_themselves_grow(family: str, masters: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "base", family)
    loaded = load_model(find_model(str(folder), folder=tmp_path), "bf16")
    model, before = loaded.model, _weights(loaded.model)
    extension, full = VocabularyExtension(loaded.tokenizer, WORDS, resized=True), get_kind("full")
    assert extension.apply(model, seed=0) == {}
    spec = AdapterSpec(kind="full", masters=masters)  # type: ignore[arg-type]
    full.inject(model, spec, seed=0)
    tied = family == "llama"
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    for weight in full.trainable(model).values():
        weight.data.add_(torch.randn_like(weight) * 0.1)
    ids = _ids(extension)
    logits = model(input_ids=ids).logits
    full.save(model, tmp_path / "trained", spec, loaded.provenance)
    extension.save(model, tmp_path / "trained")
    remove_adapter(model)
    extension.remove(model)
    after = model.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "trained")
    torch.testing.assert_close(again(input_ids=ids).logits, logits)
    extension.load(model, tmp_path / "trained")
    full.load(model, tmp_path / "trained")
    torch.testing.assert_close(model(input_ids=ids).logits, logits)


def test_a_grown_base_is_not_held_twice(tmp_path: Path) -> None:
    from luthier.adapters.base_weights import BaseWeights

    folder = tiny_folder(tmp_path / "base")
    loaded = load_model(find_model(str(folder), folder=tmp_path), "fp32")
    VocabularyExtension(loaded.tokenizer, WORDS, resized=True).apply(loaded.model, seed=0)
    base, before = BaseWeights.of(loaded.model, folder), _weights(loaded.model)
    assert not base.copies and {name: len(rows) for name, rows in base.grown.items()} == {
        "model.embed_tokens.weight": 3
    }
    for weight in loaded.model.parameters():
        weight.data.zero_()
    base.put_into(loaded.model)
    assert all(torch.equal(before[name], weight) for name, weight in loaded.model.state_dict().items())


def test_rows_that_belong_to_no_token_are_left_out() -> None:
    """The embedding is longer than the tokenizer, as Qwen's is."""
    model = tiny_model("qwen2")
    tokenizer = tiny_tokenizer(80)
    extension = VocabularyExtension(tokenizer, WORDS)
    assert extension.first == 80
    extension.apply(model, seed=0)
    assert model(input_ids=_ids(extension)).logits.shape[-1] == 83 == model.config.vocab_size
    merge(model, [extension])
    assert model.get_input_embeddings().weight.shape[0] == 83


def test_bad_tokens_are_told() -> None:
    with pytest.raises(BadInput, match="has all of these tokens already"):
        VocabularyExtension(tiny_tokenizer(), ["a"])
    with pytest.raises(BadInput, match='cannot write "Größe" back'):
        VocabularyExtension(tiny_tokenizer(), ["Größe"])
    assert VocabularyExtension(tiny_tokenizer(), [" Größe", "a"]).tokens == (" Größe",)
    small = tiny_model()
    extension = VocabularyExtension(VocabularyExtension(tiny_tokenizer(), ["xy"]).tokenizer, ["zz"])
    with pytest.raises(BadInput, match="the embedding has 96 rows"):
        extension.apply(small, seed=0)
