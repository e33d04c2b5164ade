"""The sentence embedder: mean pooling as in the paper, whatever the batch; folders that are no model refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from luthier.ground.errors import BadInput, Refused
from luthier.retrieval.embed import SentenceEmbedder
from luthier.retrieval.vectors import CountsCuts

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghij", "[", "]"]
TEXTS = ["a", "b c d e f g h i j a b c", "", "a b", "zebra", "j i h g", "c c c"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with a vocabulary of letters."""
    path = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **shape)).save_pretrained(path)
    tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy"
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@torch.no_grad()
def plain_embedding(folder: Path, text: str) -> np.ndarray:
    """One text alone, without padding: mean of all token states, then unit length."""
    letters = [WORDS.index(word) if word in WORDS else 1 for word in text.split()]
    states = BertModel.from_pretrained(folder)(torch.tensor([[2, *letters, 3]])).last_hidden_state[0].numpy()
    mean = states.mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_vectors_are_those_of_each_text_alone(folder: Path, batch_size: int) -> None:
    vectors = SentenceEmbedder(folder, batch_size=batch_size)(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((len(TEXTS), 16), np.float32)
    for vector, text in zip(vectors, TEXTS, strict=True):
        np.testing.assert_allclose(vector, plain_embedding(folder, text), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_longer_texts_are_cut_and_counted(folder: Path) -> None:
    embed = SentenceEmbedder(folder, max_tokens=5)
    assert isinstance(embed, CountsCuts)
    vectors = embed(["a b c", "a b c d", "a b c d e f"])  # with [CLS] and [SEP]: 5, 6 and 8 tokens
    assert embed.n_cut == 2
    np.testing.assert_allclose(vectors[2], plain_embedding(folder, "a b c"), atol=1e-5)


def test_a_special_token_spelt_in_a_text_is_text(folder: Path) -> None:
    ids = SentenceEmbedder(folder)._ids(["a [SEP] b"])[0]
    assert ids.count(3) == 1


def test_nothing_and_lone_surrogates_are_borne(folder: Path) -> None:
    embed = SentenceEmbedder(folder)
    assert embed([]).shape == (0, 16)
    assert np.isfinite(embed(["\ud800 a", "\0"])).all()


def test_the_name_tells_the_weights(folder: Path, copy: Path) -> None:
    before = SentenceEmbedder(folder, name="minilm").name
    assert before == SentenceEmbedder(copy, name="minilm").name
    weights = load_file(copy / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, copy / "model.safetensors", {"format": "pt"})
    after = SentenceEmbedder(copy, name="minilm").name
    assert before.startswith("minilm@")
    assert before != after


def test_missing_weights_are_refused_by_name(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=r"1 weights are missing, such as encoder\.layer\.1\.output\.dense\.weight"):
        SentenceEmbedder(copy)


def test_a_missing_pooler_is_no_loss(folder: Path, copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in weights.items() if not name.startswith("pooler")},
        copy / "model.safetensors",
        {"format": "pt"},
    )
    np.testing.assert_array_equal(SentenceEmbedder(copy)(TEXTS), SentenceEmbedder(folder)(TEXTS))


def test_a_pickle_is_never_opened(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(Refused, match="pickle"):
        SentenceEmbedder(copy)


def test_code_of_its_own_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(Refused, match="auto_map"):
        SentenceEmbedder(copy)


def test_a_folder_that_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        SentenceEmbedder(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"no config\.json"):
        SentenceEmbedder(tmp_path)


@pytest.fixture(scope="module")
def minilm() -> Iterator[SentenceEmbedder]:
    from luthier.models.find import find_model

    yield SentenceEmbedder(find_model("minilm-l6").folder, name="minilm-l6")


@pytest.mark.model
def test_the_real_model_knows_near_from_far(minilm: SentenceEmbedder) -> None:
    pairs = [
        ("How do I stop my bicycle?", "The brakes bring the bike to a halt.", "Water boils at 100 degrees."),
        ("The warranty lasts two years.", "You are covered for 24 months.", "She plays the violin."),
        ("My order has not arrived.", "The parcel is late.", "The mountain is covered in snow."),
    ]
    anchors, near, far = (minilm(list(texts)) for texts in zip(*pairs, strict=True))
    assert ((anchors * near).sum(1) > (anchors * far).sum(1) + 0.2).all()
    assert minilm.dim == 384
