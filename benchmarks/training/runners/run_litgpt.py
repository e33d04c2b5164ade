"""Train with LitGPT: its LoRA model and its own loop (`litgpt.finetune.lora.fit`), with its default precision.

LitGPT does not clip and its schedule is another; the optimizer that the loop gets clips, and the scheduler is linear.
A step is one micro-batch unless the name says otherwise: LitGPT averages the means of micro-batches, which is another
loss when they have unequal numbers of targets.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.training.runners.meter import Meter

meter = Meter()

import json  # noqa: E402

import lightning  # noqa: E402
import torch  # noqa: E402
from litgpt.args import EvalArgs, TrainArgs  # noqa: E402
from litgpt.data.base import get_sft_collate_fn  # noqa: E402
from litgpt.finetune.lora import fit  # noqa: E402
from litgpt.lora import GPT, Config, mark_only_lora_as_trainable  # noqa: E402
from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama  # noqa: E402
from litgpt.utils import get_default_supported_precision  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402


def main() -> None:
    job, options = meter.job, meter.options
    if job["adapter"] == "full":
        raise SystemExit("Error: LitGPT trains the head apart from the embedding, which is another model")
    batches, accumulate = meter.micro_batches()
    micro, steps = len(batches[0]), len(job["steps"])
    precision = "32-true" if options.get("fp32") else get_default_supported_precision(training=True)
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision=precision)
    fabric.seed_everything(job["seed"])
    model = fabric.setup_module(_model(fabric))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    inner = torch.optim.AdamW(trained, lr=job["learning_rate"], weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(inner, lambda step: 1 - step / steps)
    optimizer = _Clipping(fabric.setup_optimizers(inner), trained)
    backward = fabric.backward

    def heard(loss: torch.Tensor) -> None:
        optimizer.loss += loss.item()
        backward(loss)

    fabric.backward = heard
    collate = get_sft_collate_fn()
    rows = [_sample(row) for batch in batches for row in batch]
    loaders = (DataLoader(rows, batch_size=micro, collate_fn=collate), DataLoader([], collate_fn=collate))
    train, none = fabric.setup_dataloaders(*loaders)
    meter.start()
    fit(
        fabric=fabric,
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        train_dataloader=train,
        val_dataloader=none,
        devices=1,
        checkpoint_dir=Path(job["model"]),
        out_dir=Path(job["work"]) / "out",
        train=TrainArgs(
            save_interval=None,
            log_interval=1,
            global_batch_size=micro * accumulate,
            micro_batch_size=micro,
            epochs=2,
            max_steps=steps,
        ),
        eval=EvalArgs(interval=10**9, initial_validation=False, final_validation=False, max_iters=1),
        data=None,
    )
    meter.finish(dtype=precision, packages=("litgpt", "lightning"))


class _Clipping:
    """The optimizer that LitGPT's loop sees: clips, steps, and tells the meter."""

    def __init__(self, inner: Any, trained: list[torch.nn.Parameter]) -> None:
        self.inner, self.trained, self.loss = inner, trained, 0.0

    def step(self) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.trained, meter.job["max_grad_norm"])
        self.inner.step()
        meter.step(self.loss, norm.item())
        self.loss = 0.0

    def zero_grad(self) -> None:
        self.inner.zero_grad()


def _model(fabric: lightning.Fabric) -> GPT:
    job = meter.job
    shape = json.loads((Path(job["model"]) / "config.json").read_text())
    config = Config(
        name=Path(job["model"]).name,
        block_size=shape["max_position_embeddings"],
        vocab_size=shape["vocab_size"],
        padded_vocab_size=shape["vocab_size"],
        n_layer=shape["num_hidden_layers"],
        n_head=shape["num_attention_heads"],
        n_embd=shape["hidden_size"],
        n_query_groups=shape["num_key_value_heads"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=shape["rms_norm_eps"],
        mlp_class_name="LLaMAMLP",
        intermediate_size=shape["intermediate_size"],
        rope_base=int(shape["rope_parameters"]["rope_theta"]),
        lora_r=job["rank"],
        lora_alpha=job["alpha"],
        lora_dropout=0.0,
        lora_query=True,
        lora_key=True,
        lora_value=True,
        lora_projection=True,
        lora_mlp=True,
    )
    with fabric.init_module():
        model = GPT(config)
    state: dict[str, torch.Tensor] = {}
    copy_weights_hf_llama(config, {}, state, load_file(Path(job["model"]) / "model.safetensors"))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all("lora_" in name for name in missing), (missing, unexpected)
    mark_only_lora_as_trainable(model)
    _same_first_a(model)
    return model


def _same_first_a(model: GPT) -> None:
    first = load_file(meter.job["first"])

    def of(layer: int, *names: str) -> torch.Tensor:
        prefix = f"base_model.model.model.layers.{layer}"
        return torch.cat([first[f"{prefix}.{name}.lora_A.weight"] for name in names])

    with torch.no_grad():
        for number, block in enumerate(model.transformer.h):
            block.attn.qkv.lora_A.copy_(of(number, *(f"self_attn.{part}_proj" for part in "qkv")))
            block.attn.proj.lora_A.copy_(of(number, "self_attn.o_proj"))
            block.mlp.fc_1.lora_A.copy_(of(number, "mlp.gate_proj"))
            block.mlp.fc_2.lora_A.copy_(of(number, "mlp.up_proj"))
            block.mlp.proj.lora_A.copy_(of(number, "mlp.down_proj"))


def _sample(row: dict[str, list[int]]) -> dict[str, Any]:
    count = len(row["input_ids"])
    return {
        "input_ids": torch.tensor(row["input_ids"]),
        "labels": torch.tensor(row["labels"]),
        "token_counts": {"raw": count, "raw_plus_prompt_template": count},
    }


if __name__ == "__main__":
    main()
