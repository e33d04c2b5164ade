"""A whole task on a tiny model: a two-layer Llama with its own tokenizer and chat template, built on the fly."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
COLOURS = ["red", "green", "blue", "black"]
THINGS = ["lamp", "chair", "table", "clock", "shelf", "stool", "vase", "bowl"]


def rows(split: str, count: int, seed: int) -> list[dict[str, str]]:
    """Orders such as `please send 3 red lamp today` with their JSON; `shop` stands only in the documents."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        amount, colour, thing = chance.randint(1, 9), chance.choice(COLOURS), chance.choice(THINGS)
        say = chance.choice(["please send", "i want", "can i get", "ship me", "we need"])
        when = chance.choice(["today", "soon", "on monday", "by mail", "if you can", "for my aunt"])
        answer = {"item": thing, "colour": colour, "amount": amount}
        prompt = f"{say} {amount} {colour} {thing} {when} ({split} {number})"
        found.append({"id": f"{split}-{number}", "prompt": prompt, "completion": json.dumps(answer)})
    return found


def write_jsonl(path: Path, values: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that Luthier can load."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [row["prompt"] + row["completion"] for row in rows("train", 200, 5)]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.train_from_iterator(
        [*texts, "system user assistant Context: Input:"],
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", bos_token="<|endoftext|>")
    fast.chat_template = CHATML
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=2,
    )
    import torch

    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def task_folder(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder with a complete task on the tiny model."""
    for split, count, seed in (("train", 32, 1), ("dev", 12, 2), ("test", 14, 3)):
        write_jsonl(tmp_path / f"{split}.jsonl", rows(split, count, seed))
    handbook = tmp_path / "handbook"
    handbook.mkdir()
    for thing in THINGS:
        (handbook / f"{thing}.md").write_text(f"# {thing}\n\nThe {thing} stands in aisle {len(thing)}.\n")
    (tmp_path / "task.yaml").write_text(
        f"""name: orders
model: {tiny_model}
data: {{train: train.jsonl, dev: dev.jsonl, test: test.jsonl}}
documents: handbook
instruction: Order to JSON.
metric: json_match
retrieval: {{method: keyword, embedding: null, passages: 1}}
generation: {{max_new_tokens: 12, precision: fp32, batch_size: 16}}
prompt: {{examples: [0, 1], dev_items: 4}}
train: {{epochs: 2, tokens_per_step: 256, precision: fp32, learning_rate: 0.01, adapter: {{rank: 4, alpha: 8}}}}
"""
    )
    return tmp_path
