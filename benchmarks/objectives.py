"""Speed of every objective beside supervised finetuning: tokens per second at the same tokens and the same targets.

For each objective the same rows are encoded by it, and `sft` trains the very same tokens with the very same targets, on
the same base model with LoRA r=16, in the same process, step after step in turn: so that what the machine does besides
hits both alike. The median of the steps' ratios is what an objective costs. Decoders: SmolLM2-135M in bfloat16;
encoder-decoders: a model of T5-small's shape with random weights.

    OMP_NUM_THREADS=2 python benchmarks/objectives.py --rounds 9
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import luthier  # noqa: F401  # first: it sets how idle threads wait, which is read when torch is imported
from luthier.adapters.base import get_kind
from luthier.ground.spec import ContextSpec, TrainSpec
from luthier.machine.describe import environment
from luthier.models.architecture import architecture_of
from luthier.models.context import ContextExtension
from luthier.models.extension import applied
from luthier.models.find import find_model
from luthier.models.load import LoadedModel, load_model, stop_ids
from luthier.objectives.base import Objective, ObjectiveContext, make_objective
from luthier.rows.labels import LabelSet
from luthier.rows.packing import pack_rows
from luthier.rows.template import Renderer
from luthier.rows.types import Encoded, Message, Pack, Row
from luthier.training.engine.body import engine_for
from luthier.training.step import TorchStep

PACK_TOKENS, ROWS, WORDS = 1536, 12, 150  # about 2,000 tokens a step
LABELS = LabelSet("single", tuple("abcdef"))
_SYLLABLES = ("ba", "co", "der", "fin", "gal", "hem", "in", "jor", "kal", "lo", "men", "nor", "pa", "ri", "sol", "tur")


@dataclass(frozen=True)
class Case:
    """An objective and what is set for it."""

    name: str
    objective: str
    train: dict[str, Any]
    is_seq2seq: bool = False
    longer: bool = False


CASES = (
    Case("sft with row weights", "sft", {"prompt_loss_weight": 0.1}),
    Case("sft with noise (NEFTune)", "sft", {"neftune_alpha": 5.0}),
    Case("pretrain", "pretrain", {}),
    Case("pretrain, longer window (YaRN)", "pretrain", {}, longer=True),
    Case("infill", "infill", {}),
    Case("classify", "classify", {}),
    Case("infill, encoder-decoder", "infill", {}, is_seq2seq=True),
    Case("classify, encoder-decoder", "classify", {}, is_seq2seq=True),
)


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="steps of each, after two that do not count")
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        seq2seq = _small_t5(Path(scratch))
        results = [_measure(case, seq2seq, options.rounds) for case in CASES if options.only in case.name]
    for line in results:
        size = f"{line['tokens']:6,} tokens, {line['targets']:6,} targets"
        speed = f"{line['tokens_per_s']:7,.0f} tokens/s, sft {line['sft_tokens_per_s']:7,.0f}"
        print(f"{line['case']:32} {size}: {speed}: {line['ratio']:.2f} ({line['low']:.2f} to {line['high']:.2f})")
    if options.out:
        options.out.write_text(json.dumps({"environment": environment(0).model_dump(), "cases": results}, indent=1))


def _measure(case: Case, seq2seq: Path, rounds: int) -> dict[str, Any]:
    name = str(seq2seq) if case.is_seq2seq else "smollm2-135m-instruct"
    found = find_model(name)
    spec = TrainSpec(objective=case.objective, max_grad_norm=1.0, **case.train)
    ours, theirs = load_model(found, "bf16"), load_model(found, "bf16")
    renderer = Renderer(ours.tokenizer, stop_ids=stop_ids(found))
    extensions = (ContextExtension(ContextSpec(factor=4.0)),) if case.longer else ()
    objective = make_objective(case.objective, _context(ours, renderer, spec, extensions))
    plain = TrainSpec(objective="sft", max_grad_norm=1.0)
    sft = make_objective("sft", _context(theirs, renderer, plain, ()))
    rows = [piece for row in _rows(case) for piece in objective.encode_all(row)]
    vocabulary = theirs.model.get_input_embeddings().weight.shape[0]
    packs, same = _packs(rows), _packs([_as_sft(row, vocabulary) for row in rows])
    with _stepper(ours, objective, spec) as run, _stepper(theirs, sft, plain) as run_sft:
        for _ in range(2):
            run(packs), run_sft(same)
        pairs = [(run(packs), run_sft(same)) for _ in range(rounds)]
    tokens = sum(len(row) for row in rows)
    ratios = sorted(b / a for a, b in pairs)
    own_s, sft_s = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    return {
        "case": case.name,
        "tokens": tokens,
        "targets": sum(pack.target_tokens for pack in packs),
        "tokens_per_s": tokens / own_s,
        "sft_tokens_per_s": tokens / sft_s,
        "ratio": statistics.median(ratios),
        "low": ratios[0],
        "high": ratios[-1],
    }


def _context(loaded: LoadedModel, renderer: Renderer, spec: TrainSpec, extensions: tuple[Any, ...]) -> ObjectiveContext:
    config = loaded.model.config
    return ObjectiveContext(
        renderer=renderer,
        train=spec,
        labels=LABELS if spec.objective == "classify" else None,
        architecture=architecture_of(config),
        config=config,
        extensions=extensions,
    )


@contextlib.contextmanager
def _stepper(loaded: LoadedModel, objective: Objective, spec: TrainSpec) -> Iterator[Callable[[Sequence[Pack]], float]]:
    """Yield what takes one step and returns its seconds."""
    kind = get_kind("lora")
    with applied(loaded.model, objective.extensions, seed=0) as extra:
        kind.inject(loaded.model, spec.adapter, seed=0)
        step = TorchStep(loaded.model, objective, {**kind.trainable(loaded.model), **extra}, spec)
        with engine_for(loaded.model, spec):

            def run(packs: Sequence[Pack]) -> float:
                began = time.perf_counter()
                step.run(packs, 1e-5)
                return time.perf_counter() - began

            yield run


def _packs(rows: Sequence[Encoded]) -> list[Pack]:
    return pack_rows(sorted(rows, key=len, reverse=True), PACK_TOKENS)


def _as_sft(row: Encoded, vocabulary: int) -> Encoded:
    """Return the same tokens and targets for `sft`: tokens that only the objective's model has become others."""
    return replace(row, ids_T=row.ids_T % vocabulary, label_L=None, weight_T=None)


def _rows(case: Case) -> list[Row]:
    random = np.random.default_rng(0)
    rows = []
    for number in range(ROWS):
        text = " ".join(_word(random) for _ in range(WORDS))
        place, half = f"row:{number + 1}", len(text) // 2
        if case.objective in ("pretrain", "infill"):
            rows.append(Row(place, place, text=text))
            continue
        answer = LABELS.labels[number % 6] if case.objective == "classify" else text[half:]
        asked = text if case.objective == "classify" else text[:half]
        rows.append(Row(place, place, messages=(Message("user", asked), Message("assistant", answer))))
    return rows


def _word(random: np.random.Generator) -> str:
    return "".join(random.choice(_SYLLABLES, size=random.integers(1, 4)))


def _small_t5(folder: Path) -> Path:
    """Make a model of T5-small's shape with random weights, and a tokenizer of its size."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    words = [
        "<pad>",
        "</s>",
        "<unk>",
        *(f"<extra_id_{n}>" for n in range(100)),
        *"abcdefghijklmnopqrstuvwxyz",
        *_SYLLABLES,
    ]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    merges = [(syllable[:n], syllable[n]) for syllable in _SYLLABLES for n in range(1, len(syllable))]
    for a, b in merges:
        vocabulary.setdefault(a + b, len(vocabulary))
    bare = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [f"<extra_id_{n}>" for n in range(100)]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bare, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", additional_special_tokens=marks
    )
    torch.manual_seed(0)
    config = T5Config(vocab_size=32128, decoder_start_token_id=0, dropout_rate=0.0)
    T5ForConditionalGeneration(config).save_pretrained(folder / "t5")
    tokenizer.save_pretrained(folder / "t5")
    return folder / "t5"


if __name__ == "__main__":
    main()
