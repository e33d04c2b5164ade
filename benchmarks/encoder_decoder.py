"""Encoder-decoders: packed against padded forward and backward, and the plan's peak against the measured one.

The models are a T5 and a BART of 60M weights, made from their configs; rows are words drawn at random. Nothing is said
about quality.

    python benchmarks/encoder_decoder.py speed
    python benchmarks/encoder_decoder.py memory      # eight trainings, each in a process of its own
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FLOAT32 = ["train.precision=fp32", "train.base=fp32"]
CELLS: list[tuple[str, list[str]]] = [
    ("t5", []), ("t5", FLOAT32), ("t5", ["train.adapter={kind: full}"]), ("t5", ["train.checkpointing=full"]),
    ("t5", ["train.pack_tokens=768"]), ("bart", []), ("bart", FLOAT32), ("bart", ["train.adapter={kind: full}"]),
]  # fmt: skip
TASK = """name: words
model: {model}
data: {{train: train.jsonl}}
metric: gleu
train: {{max_steps: 8, tokens_per_step: 4096, learning_rate: 0.001}}
"""


def main() -> None:
    """Run what was asked for."""
    what, *rest = sys.argv[1:] or ["speed"]
    if what == "speed":
        speed()
    elif what == "cell":
        print(cell(Path(rest[0]), rest[1], rest[2:]))
    else:
        memory()


# -- speed ---------------------------------------------------------------------------------------------------------


def speed() -> None:
    """Print tokens a second of one pack of 2,048 tokens, forward and backward."""
    from luthier.models.seq2seq import decoder_states, install_row_attention, padded_states

    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.bfloat16):
        model = make_model("t5", gated=True).to(dtype).train().requires_grad_(False)
        for name, weight in model.named_parameters():
            weight.requires_grad_("q.weight" in name or "wo.weight" in name)
        install_row_attention(model)
        for mean in (24, 120):
            sources, targets = some_lines(mean)
            wanted_N = torch.arange(len(targets.ids_T))
            ways: dict[str, Callable[[], Tensor]] = {
                "packed": lambda m=model, s=sources, t=targets, w=wanted_N: decoder_states(m, s, t, w),
                "padded": lambda m=model, s=sources, t=targets: padded_states(m, s, t),
            }
            tokens = len(sources.ids_T) + len(targets.ids_T)
            found = {way: tokens / best_s(run) for way, run in ways.items()}
            print(f"{dtype} sources of about {mean} tokens:", {way: f"{rate:,.0f}" for way, rate in found.items()})


def some_lines(mean: int) -> tuple[object, object]:
    """Return sources and targets of log-normal lengths, about 2,048 tokens together."""
    from luthier.models.seq2seq import Lines

    chance, lengths = np.random.default_rng(0), []
    while sum(map(sum, lengths)) < 2048:
        source = int(np.clip(chance.lognormal(np.log(mean), 0.5), 4, 600))
        lengths.append((source, max(2, int(source * chance.uniform(0.7, 1.2)))))
    sides = [tuple(side) for side in zip(*lengths, strict=True)]
    lines = [Lines(torch.randint(3, 30_000, (sum(side),)), side) for side in sides]
    return lines[0], lines[1]


def best_s(run: Callable[[], Tensor]) -> float:
    times = []
    for _ in range(4):
        began = time.perf_counter()
        run().float().sum().backward()
        times.append(time.perf_counter() - began)
    return min(times[1:])


# -- memory --------------------------------------------------------------------------------------------------------


def memory() -> None:
    """Print measured and predicted peaks of the cells."""
    with tempfile.TemporaryDirectory() as folder:
        make_task(Path(folder))
        for model, settings in CELLS:
            command = [sys.executable, __file__, "cell", folder, model, *settings]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(done.stdout.splitlines()[-1], flush=True)


def cell(folder: Path, model: str, settings: list[str]) -> str:
    """Train one cell and return its line."""
    import luthier as lu

    task = lu.load_task(folder / "task.yaml", [f"model={model}", *settings])
    result = lu.train(task)
    measured, predicted = result.peak_bytes, result.predicted_peak_bytes or 0
    off = predicted / measured - 1
    named = " ".join([model, *settings])
    return f"{named}: measured {measured / 1e6:,.0f} MB, predicted {predicted / 1e6:,.0f} MB ({off:+.1%})"


def make_task(folder: Path) -> None:
    """Write a task, its rows, and both models."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from models.seq2seq_models import seq2seq_tokenizer

    chance = random.Random(0)
    words = lambda least, most: " ".join(  # noqa: E731
        chance.choice(["red", "blue", "catalogue", "dogs", "house", "tree"]) for _ in range(chance.randint(least, most))
    )
    rows = [{"id": str(n), "prompt": words(8, 60), "completion": words(5, 45)} for n in range(64)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "task.yaml").write_text(TASK.format(model="t5"))
    for kind in ("t5", "bart"):
        make_model(kind).save_pretrained(folder / kind)
        seq2seq_tokenizer().save_pretrained(folder / kind)


def make_model(kind: str, *, gated: bool = False) -> torch.nn.Module:
    """Return a model of about 60M weights with random values."""
    from transformers import AutoModelForSeq2SeqLM, BartConfig, T5Config

    torch.manual_seed(0)
    more = {"d_ff": 1024, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0} if gated else {"d_ff": 2048}
    config = (
        T5Config(vocab_size=32128, d_model=512, d_kv=64, num_layers=6, num_heads=8, decoder_start_token_id=0,
                 eos_token_id=2, **more)
        if kind == "t5"
        else BartConfig(vocab_size=32128, d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
                        decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, pad_token_id=0,
                        bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None)
    )  # fmt: skip
    model: torch.nn.Module = AutoModelForSeq2SeqLM.from_config(config)
    return model


if __name__ == "__main__":
    main()
