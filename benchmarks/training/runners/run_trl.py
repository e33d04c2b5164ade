"""Train with TRL's SFTTrainer and PEFT.

Without options: what SFTTrainer does by itself when it is given a model's folder (float32 weights, bfloat16 autocast,
gradient checkpointing, a padding collator). `packing` puts the rows of each micro-batch end to end, with TRL's own
collator; packing over the whole data set, which TRL does, would give steps other examples. `patched` takes away that
TRL 1.16 scores every position on devices without Triton (`compact` in `add_fused_lm_head`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.training.runners.meter import Meter

meter = Meter()

import trl.trainer.utils  # noqa: E402
from datasets import Dataset  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

from benchmarks.training.runners.hugging import (  # noqa: E402
    Watch,
    arguments,
    dtype_of,
    lora_config,
    same_first_a,
    watched,
)


def main() -> None:
    options = meter.options
    batches, accumulate = meter.micro_batches()
    if options.get("patched"):
        assert callable(trl.trainer.utils._use_triton)
        trl.trainer.utils._use_triton = lambda _: True  # its only use there: score label positions alone?
    packing = bool(options.get("packing"))
    more: dict[str, Any] = {"max_length": None}
    if packing:
        more["padding_free"] = True
    if options.get("chunked"):
        more["loss_type"] = "chunked_nll"
    if options.get("bf16"):
        more["model_init_kwargs"] = {"dtype": "bfloat16"}
    examples = [_packed(batch) for batch in batches] if packing else [row for batch in batches for row in batch]
    watch = Watch(meter)
    trainer = watched(SFTTrainer, watch)(
        model=meter.job["model"],
        args=SFTConfig(**arguments(meter, 1 if packing else len(batches[0]), accumulate), **more),
        train_dataset=Dataset.from_list(examples),
        peft_config=lora_config(meter),
        callbacks=[watch],
    )
    same_first_a(trainer.model, meter)
    _refuse_changed(trainer.train_dataset, examples)
    trainer.train()
    meter.finish(
        dtype=dtype_of(meter),
        packages=("trl", "transformers", "peft", "accelerate"),
        checkpointing=trainer.args.gradient_checkpointing,
    )


def _packed(batch: list[dict[str, list[int]]]) -> dict[str, list[int]]:
    """Return the rows of a micro-batch as one example, in the form that TRL's packing has."""
    return {
        "input_ids": [token for row in batch for token in row["input_ids"]],
        "labels": [label for row in batch for label in row["labels"]],
        "seq_lengths": [len(row["input_ids"]) for row in batch],
    }


def _refuse_changed(dataset: Dataset, examples: list[dict[str, list[int]]]) -> None:
    """The trainer prepares its data set anew; it must still be the one that it got."""
    for got, gave in zip(dataset, examples, strict=True):
        assert {key: got[key] for key in gave} == gave


if __name__ == "__main__":
    main()
