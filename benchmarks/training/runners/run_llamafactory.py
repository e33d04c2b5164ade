"""Train with LLaMA-Factory: its own workflow, fed with tokenised rows (`tokenized_path`), shuffling off.

It imports torchaudio for sound, whatever is trained; the package index has only a build of it that needs CUDA. An empty
module stands in its place.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.training.runners.meter import Meter

meter = Meter()

_no_sound = ModuleType("torchaudio")
_no_sound.__spec__ = ModuleSpec("torchaudio", None)
sys.modules["torchaudio"] = _no_sound

from datasets import Dataset, DatasetDict  # noqa: E402
from llamafactory.train import tuner  # noqa: E402
from llamafactory.train.sft import workflow  # noqa: E402

from benchmarks.training.runners.hugging import Watch, arguments, same_first_a, watched  # noqa: E402


class _WatchFirst(Watch):
    def on_train_begin(self, *_: Any, model: Any = None, **__: Any) -> None:
        same_first_a(model, meter)
        super().on_train_begin()


def main() -> None:
    job, options = meter.job, meter.options
    batches, accumulate = meter.micro_batches()
    rows = [{**row, "attention_mask": [1] * len(row["input_ids"])} for batch in batches for row in batch]
    folder = Path(job["work"]) / "tokenized"
    DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(folder)
    watch = _WatchFirst(meter)
    workflow.CustomSeq2SeqTrainer = watched(workflow.CustomSeq2SeqTrainer, watch)
    common = arguments(meter, len(batches[0]), accumulate)
    common.pop("gradient_checkpointing", None)
    trains = {"finetuning_type": "full"} if job["adapter"] == "full" else _lora()
    tuner.run_exp(
        {
            **common,
            **trains,
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": job["model"],
            "dataset": "rows",  # a name is demanded; what is read is tokenized_path
            "tokenized_path": str(folder),
            "template": "default",
            "disable_shuffling": True,
            "disable_gradient_checkpointing": bool(options.get("nockpt")),
            "overwrite_output_dir": True,
        },
        callbacks=[watch],
    )
    dtype = "fp32" if options.get("fp32") else "bf16 weights, bf16 autocast"
    meter.finish(dtype=dtype, packages=("llamafactory", "transformers", "peft"))


def _lora() -> dict[str, Any]:
    job = meter.job
    return {
        "finetuning_type": "lora",
        "lora_rank": job["rank"],
        "lora_alpha": job["alpha"],
        "lora_dropout": 0.0,
        "lora_target": "all",
    }


if __name__ == "__main__":
    main()
