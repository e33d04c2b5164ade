"""Tokenizers of other families: BERT's ends a text with [SEP], and T5's begins it with nothing."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from luthier.rows.template import Renderer
from luthier.rows.tokens import Tokens
from rows.conftest import make_sentencepiece
from rows.families import ZEPHYR


def make_wordpiece() -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "wheel", "is", "##s", "bro", "##ken", "user", "assistant", ":"]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", sep_token="[SEP]", cls_token="[CLS]", pad_token="[PAD]"
    )


def test_a_tokenizer_without_an_end_token_ends_with_its_separator() -> None:
    tokens = Tokens(make_wordpiece())
    assert tokens.eos_id == 3 and tokens.names["eos_token"] == "[SEP]" and tokens.bos_id is None
    assert tokens.encode_document("The wheels [SEP]") == [2, 4, 5, 7, 1, 1, 1, 3]  # what somebody wrote stays text
    assert tokens.decode(tokens.encode_document("The wheel is broken")) == "[CLS] the wheel is broken [SEP]"
    renderer = Renderer(make_wordpiece())
    assert renderer.end_token == "[SEP]" and renderer.end_ids == {3}


def test_a_tokenizer_with_an_end_token_alone() -> None:
    tokenizer = make_sentencepiece(ZEPHYR, "metaspace")
    tokenizer.bos_token = None
    tokenizer.chat_template = None
    renderer = Renderer(tokenizer)
    assert renderer.tokens.bos_id is None and not renderer.tokens.adds_bos
    assert renderer.end_token == "</s>" and renderer.end_ids == {tokenizer.eos_token_id}
    ids = renderer.tokens.encode_document("my wheel is broken")
    assert ids[-1] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == 1
