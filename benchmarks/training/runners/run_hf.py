"""Train with transformers' Trainer and PEFT: a padding collator, and the defaults of both."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.training.runners.meter import Meter

meter = Meter()

from datasets import Dataset  # noqa: E402
from peft import get_peft_model  # noqa: E402
from transformers import (  # noqa: E402
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

from benchmarks.training.runners.hugging import (  # noqa: E402
    Watch,
    arguments,
    dtype_of,
    load_weights,
    lora_config,
    same_first_a,
    watched,
)


def main() -> None:
    batches, accumulate = meter.micro_batches()
    model = load_weights(meter)
    config = lora_config(meter)
    if config is not None:
        model = get_peft_model(model, config)
        if meter.options.get("ckpt"):
            model.enable_input_require_grads()
    same_first_a(model, meter)
    watch = Watch(meter)
    trainer = watched(Trainer, watch)(
        model=model,
        args=TrainingArguments(**arguments(meter, len(batches[0]), accumulate)),
        train_dataset=Dataset.from_list([row for batch in batches for row in batch]),
        data_collator=DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(meter.job["model"]), padding=True),
        callbacks=[watch],
    )
    trainer.train()
    meter.finish(dtype=dtype_of(meter), packages=("transformers", "peft", "accelerate"))


if __name__ == "__main__":
    main()
