"""Write what all peers get: the rows as token ids and target masks, the planned steps, the model's folder, the first A.

Runs in Luthier's environment, in a process of its own (so that the benchmark's driver stays small). Texts come from
the folder of shared data; nothing of it is copied into the project. Everything is deterministic.

    python -m benchmarks.training.prepare lora ../shared/data WORK_FOLDER --steps 12
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.training.workloads import (
    LONG_TARGETS,
    LONG_TOKENS,
    LONGEST,
    MIX_ROWS,
    MIX_TARGETS,
    MIX_TOKENS,
    PRESET,
    SHORT_TOKENS,
    SHORTEST,
    WORKLOADS,
    Workload,
    choose_mix,
    within,
)
from luthier.adapters.base import get_kind
from luthier.ground.cache import cache_root
from luthier.ground.files import whole_folder
from luthier.ground.spec import AdapterSpec, TrainSpec
from luthier.models.find import Found, find_model
from luthier.models.load import load_model, load_tokenizer, stop_ids
from luthier.rows.template import Renderer
from luthier.rows.types import Encoded, Message, Row
from luthier.training.batches import plan_steps

T = TypeVar("T")
SEED = 0
RANK, ALPHA = 16, 32
_PER_SOURCE = 240
_CHATML = (  # the model's own template without the system text that it puts before every conversation
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train_spec(workload: Workload, steps: int | None, learning_rate: float | None = None) -> TrainSpec:
    """Return how Luthier trains a workload; every other tool is set to the same."""
    return TrainSpec(
        adapter=AdapterSpec(kind=workload.adapter, rank=RANK, alpha=ALPHA, dropout=0.0),
        epochs=1,
        max_steps=steps,
        learning_rate=learning_rate or workload.learning_rate,
        schedule="linear",
        warmup=0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        rows_per_step=workload.rows_per_step,
        max_length=8192,
        base="bf16",
        precision="bf16",
        save_every=10**9,
        seed=SEED,
    )


def prepare(workload: Workload, data: Path, work: Path, steps: int | None, learning_rate: float | None) -> None:
    """Write `rows.jsonl`, `job.json` and (for LoRA) `first/adapter_model.safetensors` into `work`."""
    preset = find_model(PRESET)
    found = preset if workload.model == PRESET else random_model(preset)
    rows = encode(workload, data, preset)
    with open(work / "rows.jsonl", "w") as file:
        for row in rows:
            plain = {"ids": row.ids_T.tolist(), "target": row.target_T.astype(int).tolist(), "place": row.place}
            file.write(json.dumps(plain) + "\n")
    spec = train_spec(workload, steps, learning_rate)
    plan = [list(map(int, planned.rows)) for planned in plan_steps([len(row) for row in rows], spec)]
    job = {
        "workload": workload.name,
        "adapter": workload.adapter,
        "model": str(found.folder),
        "model_is": f"{Path(found.name).name} ({found.stored_as})",  # never a path of the machine
        "rows": str(work / "rows.jsonl"),
        "steps": plan,
        "learning_rate": spec.learning_rate,
        "max_grad_norm": 1.0,
        "rank": RANK,
        "alpha": ALPHA,
        "seed": SEED,
        "first": str(_first_adapter(found, spec, work)) if workload.adapter == "lora" else None,
        "totals": _totals(rows),
    }
    (work / "job.json").write_text(json.dumps(job))


def encode(workload: Workload, data: Path, found: Found) -> list[Encoded]:
    """Return the workload's rows as tokens."""
    plain = Renderer(load_tokenizer(found), stop_ids=stop_ids(found))
    if workload.rows == "mix":
        rows = _mix(plain, data)
        return [rows[index * len(rows) // workload.count] for index in range(workload.count)]
    if workload.rows == "long":
        return _long(plain, data, workload.count)
    return _short(Renderer(load_tokenizer(found), chat_template=_CHATML), data, workload.count)


def random_model(tokenizer_of: Found) -> Found:
    """Return a model of Qwen2.5-0.5B's shape with random weights of a fixed seed; made once, into the cache."""
    folder = cache_root() / "benchmarks" / "random-500m"
    if not folder.is_dir():
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(SEED)
        config = LlamaConfig(
            hidden_size=896,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            intermediate_size=4864,
            vocab_size=49152,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
            dtype="bfloat16",
        )
        with whole_folder(folder) as draft:
            LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(draft)
            for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
                shutil.copyfile(tokenizer_of.folder / name, draft / name)
    return find_model(str(folder))


# -- rows --------------------------------------------------------------------------------------------------------------


def _mix(renderer: Renderer, data: Path) -> list[Encoded]:
    sources = (_xquad(data), _e2e(data), _gsm8k(data))
    encoded = [renderer.encode_row(row) for rows in sources for row in _spread(list(rows), _PER_SOURCE)]
    fitting = [row for row in encoded if SHORTEST <= len(row) <= LONGEST]
    sizes = [(len(row), row.target_tokens) for row in fitting]
    chosen = choose_mix(sizes, count=MIX_ROWS, tokens=MIX_TOKENS, targets=MIX_TARGETS, seed=SEED)
    rows = [fitting[index] for index in chosen]
    totals = _totals(rows)
    if not within(totals["tokens"], MIX_TOKENS) or not within(totals["targets"], MIX_TARGETS):
        raise SystemExit(f"the mix of rows came out at {totals}")
    return [rows[index] for index in np.random.default_rng(SEED).permutation(len(rows))]


def _long(renderer: Renderer, data: Path, count: int) -> list[Encoded]:
    """Running text as a user's turn, its continuation as the answer; cut to length in the middle of the user's turn."""
    words = (data / "wikitext2" / "valid.txt").read_text(encoding="utf-8").split()
    tokenizer = renderer.tokenizer
    rows, start = [], 0
    for number in range(count):
        answer = _words_for(tokenizer, words[start:], LONG_TARGETS - 1)
        asked = words[start + len(answer) : start + len(answer) + LONG_TOKENS]
        messages = (Message("user", " ".join(asked)), Message("assistant", " ".join(answer)))
        row = renderer.encode_row(Row(id=str(number), place=f"wikitext2:{number + 1}", messages=messages))
        rows.append(_cut_middle(row, LONG_TOKENS))
        start += len(answer) + len(asked)
    return rows


def _short(renderer: Renderer, data: Path, count: int) -> list[Encoded]:
    rows = []
    for file in sorted((data / "blimp").glob("*.jsonl")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
            pair = json.loads(line)
            rows.append(_row(f"{file.stem}:{number + 1}", pair["sentence_bad"], pair["sentence_good"]))
    encoded = (renderer.encode_row(row) for row in _spread(rows, len(rows)))
    fitting = [row for row in encoded if SHORT_TOKENS[0] <= len(row) <= SHORT_TOKENS[1]]
    return _spread(fitting, count)


def _xquad(data: Path) -> Iterator[Row]:
    """Questions over a paragraph; every third one has the next paragraph of the article before it as well."""
    for article in json.loads((data / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]:
        contexts = [paragraph["context"] for paragraph in article["paragraphs"]]
        for number, paragraph in enumerate(article["paragraphs"]):
            for asked_as, asked in enumerate(paragraph["qas"]):
                before = [contexts[(number + 1) % len(contexts)]] if asked_as % 3 == 0 else []
                question = "\n\n".join([*before, contexts[number], asked["question"]])
                yield _row(f"xquad:{asked['id']}", question, asked["answers"][0]["text"])


def _e2e(data: Path) -> Iterator[Row]:
    with open(data / "e2e" / "devset.csv", encoding="utf-8", newline="") as file:
        for number, line in enumerate(csv.DictReader(file)):
            yield _row(f"e2e:{number + 2}", line["ref"], line["mr"])


def _gsm8k(data: Path) -> Iterator[Row]:
    for number, line in enumerate((data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()):
        item = json.loads(line)
        yield _row(f"gsm8k:{number + 1}", item["question"], re.sub(r"<<.*?>>", "", item["answer"]))


def _row(place: str, asked: str, answer: str) -> Row:
    return Row(id=place, place=place, messages=(Message("user", asked), Message("assistant", answer)))


def _spread(items: Sequence[T], count: int) -> list[T]:
    """Return `count` items at even distances."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _words_for(tokenizer: object, words: Sequence[str], tokens: int) -> list[str]:
    """Return the first words that give about `tokens` tokens."""
    taken = list(words[:tokens])
    while len(tokenizer(" ".join(taken))["input_ids"]) > tokens:  # type: ignore[operator]
        taken.pop()
    return taken


def _cut_middle(row: Encoded, length: int) -> Encoded:
    surplus = len(row) - length
    first = int(row.target_T.argmax())
    if surplus < 0 or surplus > first - 40:
        raise SystemExit(f"{row.place} has {len(row)} tokens and cannot be cut to {length}")
    keep_T = np.ones(len(row), dtype=bool)
    keep_T[first - 20 - surplus : first - 20] = False
    return Encoded(row.ids_T[keep_T], row.target_T[keep_T], row.place)


def _totals(rows: Sequence[Encoded]) -> dict[str, int]:
    lengths = [len(row) for row in rows]
    return {
        "rows": len(rows),
        "tokens": sum(lengths),
        "targets": sum(row.target_tokens for row in rows),
        "shortest": min(lengths),
        "longest": max(lengths),
    }


def _first_adapter(found: Found, spec: TrainSpec, work: Path) -> Path:
    """Write the adapter that Luthier begins with, so that every tool begins with the same A."""
    loaded = load_model(found, "bf16")
    kind = get_kind("lora")
    kind.inject(loaded.model, spec.adapter, seed=spec.seed)
    folder = work / "first"
    kind.save(loaded.model, folder, spec.adapter, loaded.provenance)
    return folder / "adapter_model.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--learning-rate", type=float)
    args = parser.parse_args()
    prepare(WORKLOADS[args.workload], args.data, args.work, args.steps, args.learning_rate)


if __name__ == "__main__":
    main()
