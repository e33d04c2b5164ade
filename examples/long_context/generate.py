"""Make everything that this example needs: a tokenizer and a model with random weights, texts, and passkeys.

    python generate.py          # writes start/ (the model) and *.jsonl beside this file

The texts are a few sentences about two people, two places and two things, drawn anew for each text, so that a model
that looks back predicts them better. The passkeys are worded as in Mohtashami & Jaggi 2023. The same seed gives the
same files. The tokenizer writes a number of five digits as one token of three and one of two, as those of Llama 3 do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from luthier.evaluation.long_context import text_needle, text_passkey

WINDOW, LONGER = 128, 512
NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Greta", "Hugo", "Ida", "Jonas", "Lena", "Max")
PLACES = ("harbour", "market", "station", "library", "garden", "bridge", "museum", "school", "bakery", "mill")
THINGS = ("lamp", "book", "clock", "bicycle", "letter", "basket", "map", "ladder", "kettle", "violin")
COLOURS = ("red", "green", "blue", "black", "white", "yellow", "brown", "grey")
SENTENCES = (
    "{a} went to the {p}.", "{a} bought a {c} {t}.", "At the {p} {a} met {b}.", "{b} gave the {t} to {a}.",
    "The {t} of {a} was {c}.", "Then {a} and {b} walked to the {p}.", "It rained near the {p}.",
    "{a} lost the {c} {t}.",
)  # fmt: skip
SPECIAL = ("<pad>", "<s>", "</s>")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['content'] }}"
    "{{ '\\n' if m['role'] == 'user' else eos_token }}{% endfor %}"
)
Row = dict[str, Any]
_AROUND = 6  # tokens of an answer, and of the template


def main(folder: Path, scale: float = 1.0) -> None:
    """Write all files into `folder`; a smaller `scale` makes fewer training rows."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    make_model(len(tokenizer)).save_pretrained(folder / "start")
    tokenizer.save_pretrained(folder / "start")

    def length(text: str) -> int:
        return len(tokenizer.encode(text))

    def write(name: str, rows: Iterator[Row]) -> None:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    many = [round(count * scale) for count in (14_000, 4_000)]
    write("short.jsonl", mixed(Random(1), many[0], lambda _: WINDOW, length))
    write("long.jsonl", mixed(Random(2), many[1], lambda chance: chance.choice((128, 128, 256, 384, 512, 512)), length))
    write("short_dev.jsonl", mixed(Random(3), 60, lambda _: WINDOW, length))
    write("dev.jsonl", mixed(Random(4), 60, lambda chance: chance.choice((128, 256, 384, 512)), length))
    write("test.jsonl", passkeys(Random(5), 60, lambda chance: chance.choice((128, 256, 384, 512)), length))
    write("general.jsonl", ({"text": told(Random(1000 + n), LONGER - 2, length)} for n in range(100)))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each word, for each number of two and three digits, and for each byte."""
    marker = "Ġ"
    words = sorted({word for text in _all_texts() for word in _letters(text)})
    vocabulary = dict.fromkeys([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])
    vocabulary |= dict.fromkeys(f"{lead}{word}" for word in words for lead in ("", marker))
    vocabulary |= dict.fromkeys([f"{n:02d}" for n in range(100)] + [f"{n:03d}" for n in range(1000)])
    numbered = {token: number for number, token in enumerate(vocabulary)}
    backend = Tokenizer(models.BPE(vocab=numbered, merges=[], ignore_merges=True))
    pieces = Regex(r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pieces, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", numbered["<s>"])])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def make_model(vocabulary: int) -> LlamaForCausalLM:
    """Two layers. The slowest pair of its positions turns once in about seven windows, as in Llama 2."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, attention_bias=True, max_position_embeddings=WINDOW, tie_word_embeddings=True,
        initializer_range=0.06,
        rope_parameters={"rope_type": "default", "rope_theta": 200.0}, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def mixed(chance: Random, count: int, window: Callable[[Random], int], length: Callable[[str], int]) -> Iterator[Row]:
    """Yield texts, passkeys and needles; an answer weighs as much as twenty tokens of text."""
    for number in range(count):
        most, share = window(chance), chance.random()
        if share < 0.4:
            yield {"id": f"text-{number}", "text": told(chance, most - 2, length)}
        else:
            found = asked(chance, chance.randint(64, most), length, needle=share > 0.75)
            yield {"id": f"asked-{number}", "weight": 20.0, **found}


def passkeys(
    chance: Random, count: int, window: Callable[[Random], int], length: Callable[[str], int]
) -> Iterator[Row]:
    """Yield passkeys alone."""
    for number in range(count):
        yield {"id": f"passkey-{number}", **asked(chance, window(chance), length)}


def asked(chance: Random, most: int, length: Callable[[str], int], needle: bool = False) -> Row:
    """Return a passkey or a needle of at most so many tokens, at any depth."""
    seed, depth = chance.getrandbits(32), chance.random()
    make = text_needle if needle else text_passkey

    def tokens(sentences: int) -> int:
        return length(make(Random(seed), sentences, depth)[0]) + _AROUND

    empty = tokens(0)
    sentences = max(0, 8 * (most - empty) // (tokens(8) - empty))
    while sentences and tokens(sentences) > most:
        sentences -= 1
    text, answer, _ = make(Random(seed), sentences, depth)
    return {"prompt": text, "completion": answer}


def told(chance: Random, most: int, length: Callable[[str], int]) -> str:
    """Return sentences about two people, two places and two things, of at most so many tokens."""
    people, places = chance.sample(NAMES, 2), chance.sample(PLACES, 2)
    things, colours = chance.sample(THINGS, 2), chance.sample(COLOURS, 2)
    sentences: list[str] = []
    while True:
        a, b = chance.sample(people, 2)
        place, thing, colour = chance.choice(places), chance.choice(things), chance.choice(colours)
        sentences.append(chance.choice(SENTENCES).format(a=a, b=b, p=place, t=thing, c=colour))
        if len(sentences) > most // 12 and length(" ".join(sentences)) > most:
            return " ".join(sentences[:-1])


def _all_texts() -> Iterator[str]:
    yield " ".join((*NAMES, *PLACES, *THINGS, *COLOURS, *SENTENCES))
    for seed in range(300):
        yield text_passkey(Random(seed), 5, 0.5)[0]
        text, answer, others = text_needle(Random(seed), 40, 0.5)
        yield " ".join((text, answer, *others))


def _letters(text: str) -> list[str]:
    return "".join(letter if letter.isalpha() else " " for letter in text).split()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
