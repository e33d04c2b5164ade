"""Makes a small T5 that knows nothing but this example's language: a tokenizer, random weights, then span corruption.

The tokenizer is a unigram one with T5's end, padding and sentinel tokens. The model has T5 1.1's gated feed-forward
layers, 4.2 million weights. It is pretrained by `luthier train pretrain.yaml` (objective `infill`), which for an
encoder-decoder is T5's own span corruption, on sentences that stand in none of the splits.

    python examples/grammar/make_model.py       # writes untrained/ and pretrained/, about four minutes on one core
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import generate
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

import luthier as lu

SENTINELS = [f"<extra_id_{n}>" for n in range(20)]
SPECIAL = ["<pad>", "</s>", "<unk>", *SENTINELS]


def main(folder: Path = Path(__file__).parent, out: Path | None = None, *overrides: str, width: int = 192) -> Path:
    """Make the model in `out` (default: beside the task) and return the pretrained folder."""
    out = out or folder
    if not (folder / "corpus.jsonl").is_file():
        generate.main(folder)
    texts = [json.loads(line)["text"] for line in (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    tokenizer = make_tokenizer(texts)
    tokenizer.save_pretrained(out / "untrained")
    make_model(len(tokenizer), width).save_pretrained(out / "untrained")
    task = lu.load_task(folder / "pretrain.yaml", [f"model={out / 'untrained'}", *overrides])
    trained = lu.train(task, out=out / "pretraining", tell=lambda event: print(event, file=sys.stderr))
    shutil.rmtree(out / "pretrained", ignore_errors=True)
    shutil.copytree(trained.adapter, out / "pretrained")
    return out / "pretrained"


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return a unigram tokenizer as T5 has one; pieces stay small, so that misspelled words can be read."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    letters = sorted({letter for text in texts for letter in text if letter != " "} | set("abcdefghijklmnopqrstuvwxyz"))
    tokenizer.train_from_iterator(
        texts,
        trainers.UnigramTrainer(
            vocab_size=400, special_tokens=SPECIAL, initial_alphabet=letters, unk_token="<unk>", show_progress=False
        ),
    )
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=SENTINELS,
    )  # fmt: skip


def make_model(vocabulary: int, width: int) -> T5ForConditionalGeneration:
    """Return a T5 with random weights."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=vocabulary, d_model=width, d_kv=width // 6, d_ff=width * 8 // 3, num_layers=4, num_heads=6,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
        relative_attention_num_buckets=16, relative_attention_max_distance=32,
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


if __name__ == "__main__":
    main()
