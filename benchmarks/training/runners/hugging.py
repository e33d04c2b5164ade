"""What the runners that stand on transformers' Trainer share: the model, the arguments, the adapter, the meter.

The tools keep their own defaults except where the comparison fixes a value: same rows and order, same schedule, AdamW,
clipping, same first A.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel, TrainerCallback

from benchmarks.training.runners.meter import Meter


def load_weights(meter: Meter) -> PreTrainedModel:
    """Return the base model in the precision that the peer's name asks for (default float32)."""
    dtype = torch.bfloat16 if meter.options.get("bf16") else torch.float32
    return AutoModelForCausalLM.from_pretrained(meter.job["model"], dtype=dtype, local_files_only=True)


def arguments(meter: Meter, micro: int, accumulate: int) -> dict[str, Any]:
    """Return training arguments that every Trainer gets."""
    job, options = meter.job, meter.options
    own = "ckpt" not in options and "nockpt" not in options
    chosen = {} if own else {"gradient_checkpointing": "ckpt" in options}
    return {
        "output_dir": str(Path(job["work"]) / "out"),
        "use_cpu": True,
        "bf16": not options.get("fp32"),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulate,
        "max_steps": len(job["steps"]),
        "train_sampling_strategy": "sequential",
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": job["max_grad_norm"],
        "seed": job["seed"],
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **chosen,
    }


def lora_config(meter: Meter) -> LoraConfig | None:
    """Return PEFT's configuration, or None when every weight is trained."""
    if meter.job["adapter"] == "full":
        return None
    return LoraConfig(
        r=meter.job["rank"],
        lora_alpha=meter.job["alpha"],
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def same_first_a(model: torch.nn.Module, meter: Meter) -> None:
    """Put in the A with which every tool begins; B is zero."""
    if meter.job["first"] is None:
        return
    first = load_file(meter.job["first"])
    done = 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                parameter.copy_(first[name.replace(".default", "")])
                done += 1
            elif "lora_B" in name:
                assert not parameter.any()
    assert done * 2 == len(first), f"{done} of {len(first) // 2} adapters found"


class Watch(TrainerCallback):
    """Feeds the meter. The loss comes from `training_step`, because the logged one may be rounded."""

    def __init__(self, meter: Meter) -> None:
        self.meter, self.loss = meter, 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.meter.start()

    def on_log(self, *_: Any, logs: dict[str, Any] | None = None, **__: Any) -> None:
        if logs and "grad_norm" in logs:
            self.meter.step(self.loss, logs["grad_norm"])
            self.loss = 0.0


def watched(base: type, watch: Watch) -> type:
    """Return a Trainer class that tells `watch` each micro-batch's loss (already divided by the step's targets)."""

    class Watched(base):  # type: ignore[misc, valid-type]
        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            loss = super().training_step(*args, **kwargs)
            watch.loss += loss.item()
            return loss

    return Watched


def dtype_of(meter: Meter) -> str:
    """Say in which precision the peer computed."""
    if meter.options.get("fp32"):
        return "fp32"
    return f"{'bf16' if meter.options.get('bf16') else 'fp32'} weights, bf16 autocast"
