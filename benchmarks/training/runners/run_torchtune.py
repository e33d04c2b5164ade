"""Train with torchtune: its recipes for one device (LoRA or full), everything in bfloat16 as they have it.

The model is built from torchtune's Llama 3.2 parts, whose RoPE scaling is set to 1, which is plain RoPE. Saving at the
end is left out.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.training.runners.meter import Meter

meter = Meter()

import torch  # noqa: E402
import torchtune  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from benchmarks.training.runners import torchtune_parts  # noqa: E402

PARTS = "benchmarks.training.runners.torchtune_parts"
NAMES = {
    "self_attn.q_proj": "attn.q_proj",
    "self_attn.k_proj": "attn.k_proj",
    "self_attn.v_proj": "attn.v_proj",
    "self_attn.o_proj": "attn.output_proj",
    "mlp.gate_proj": "mlp.w1",
    "mlp.down_proj": "mlp.w2",
    "mlp.up_proj": "mlp.w3",
}


def main() -> None:
    torchtune_parts.METERS.append(meter)
    full = meter.job["adapter"] == "full"
    config = OmegaConf.create(_config(full))
    module = _recipe("full_finetune_single_device" if full else "lora_finetune_single_device")
    recipe = (module.FullFinetuneRecipeSingleDevice if full else module.LoRAFinetuneRecipeSingleDevice)(cfg=config)
    recipe.setup(cfg=config)
    if not full:
        _same_first_a(recipe._model)
    recipe.save_checkpoint = lambda epoch: None  # noqa: ARG005  # the recipe names it
    meter.start()
    recipe.train()
    meter.finish(dtype="fp32" if meter.options.get("fp32") else "bf16 throughout", packages=("torchtune", "torchao"))


def _config(full: bool) -> dict[str, Any]:
    job, options = meter.job, meter.options
    batches, accumulate = meter.micro_batches()
    out = str(Path(job["work"]) / "out")
    return {
        "output_dir": out,
        "model": _model(full),
        "tokenizer": {"_component_": f"{PARTS}.PadOnly"},
        "checkpointer": {
            "_component_": "torchtune.training.FullModelHFCheckpointer",
            "checkpoint_dir": job["model"],
            "checkpoint_files": ["model.safetensors"],
            "recipe_checkpoint": None,
            "output_dir": out,
            "model_type": "LLAMA3_2",
        },
        "resume_from_checkpoint": False,
        "dataset": {"_component_": f"{PARTS}.Rows"},
        "seed": job["seed"],
        "shuffle": False,
        "batch_size": len(batches[0]),
        "optimizer": {
            "_component_": "torch.optim.AdamW",
            "fused": True,
            "weight_decay": 0.0,
            "lr": job["learning_rate"],
        },
        "optimizer_in_bwd": False,
        "lr_scheduler": {"_component_": f"{PARTS}.linear_schedule"},
        "loss": {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"},
        "epochs": 1,
        "max_steps_per_epoch": len(job["steps"]),
        "gradient_accumulation_steps": accumulate,
        "clip_grad_norm": job["max_grad_norm"],
        "compile": False,
        "metric_logger": {"_component_": f"{PARTS}.Listener"},
        "log_every_n_steps": 1,
        "log_peak_memory_stats": False,
        "device": "cpu",
        "dtype": "fp32" if options.get("fp32") else "bf16",
        "enable_activation_checkpointing": bool(options.get("ckpt")),
        "enable_activation_offloading": False,
    }


def _model(full: bool) -> dict[str, Any]:
    shape = json.loads((Path(meter.job["model"]) / "config.json").read_text())
    common = {
        "vocab_size": shape["vocab_size"],
        "num_layers": shape["num_hidden_layers"],
        "num_heads": shape["num_attention_heads"],
        "num_kv_heads": shape["num_key_value_heads"],
        "embed_dim": shape["hidden_size"],
        "max_seq_len": shape["max_position_embeddings"],
        "intermediate_dim": shape["intermediate_size"],
        "norm_eps": shape["rms_norm_eps"],
        "rope_base": int(shape["rope_parameters"]["rope_theta"]),
        "scale_factor": 1,
    }
    if full:
        return {"_component_": "torchtune.models.llama3_2.llama3_2", **common}
    return {
        "_component_": "torchtune.models.llama3_2.lora_llama3_2",
        **common,
        "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
        "apply_lora_to_mlp": True,
        "lora_rank": meter.job["rank"],
        "lora_alpha": meter.job["alpha"],
        "lora_dropout": 0.0,
    }


def _recipe(name: str) -> Any:
    """Return a recipe's module; torchtune ships them as files beside the package, not as a package."""
    file = Path(torchtune.__file__).resolve().parents[1] / "recipes" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _same_first_a(model: torch.nn.Module) -> None:
    done = 0
    for name, first in load_file(meter.job["first"]).items():
        if "lora_A" not in name:
            continue
        number, part = name.removeprefix("base_model.model.model.layers.").removesuffix(".lora_A.weight").split(".", 1)
        layer = model.get_submodule(f"layers.{number}.{NAMES[part]}")
        with torch.no_grad():
            layer.lora_a.weight.copy_(first)
        done += 1
    assert done == 7 * len(model.layers)


if __name__ == "__main__":
    main()
