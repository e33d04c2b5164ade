"""How well `luthier plan` predicts the peak memory and the step time of training: predicted beside measured.

Every cell is a training of a few steps in a fresh process, through the same functions as `luthier train`; its peak
resident memory is read from the system. Models have random weights, since memory does not depend on them. The error is
that of the bytes above the process after its imports. Fitted constants come from the calibration cells alone, which
are not judged. Beside it stand what three rules of thumb say.

    python benchmarks/plan_accuracy.py --results plan.json            # judged cells; --set calibration for the others
    python benchmarks/plan_accuracy.py --table plan.json              # only print what was measured
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODELS: dict[str, dict[str, Any]] = {
    "llama-57m": {"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 10, "intermediate_size": 1376,
                  "num_attention_heads": 8, "num_key_value_heads": 4},
    "llama-135m": {"model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536,
                   "num_attention_heads": 9, "num_key_value_heads": 3},
    "llama-362m": {"model_type": "llama", "hidden_size": 960, "num_hidden_layers": 32, "intermediate_size": 2560,
                   "num_attention_heads": 15, "num_key_value_heads": 5},
    "qwen2-110m": {"model_type": "qwen2", "hidden_size": 640, "num_hidden_layers": 16, "intermediate_size": 1792,
                   "num_attention_heads": 10, "num_key_value_heads": 2},
    "qwen3-180m": {"model_type": "qwen3", "hidden_size": 768, "num_hidden_layers": 16, "intermediate_size": 2304,
                   "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64},
    "qwen3-490m": {"model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 28, "intermediate_size": 3072,
                   "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
    "gemma2-120m": {"model_type": "gemma2", "hidden_size": 640, "num_hidden_layers": 14, "intermediate_size": 2560,
                    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128, "query_pre_attn_scalar": 128},
    "neox-110m": {"model_type": "gpt_neox", "hidden_size": 640, "num_hidden_layers": 12, "intermediate_size": 2560,
                  "num_attention_heads": 10},
}  # fmt: skip
LORA: dict[str, Any] = {}
FULL: dict[str, Any] = {"adapter": {"kind": "full"}}


def _cell(model: str, spec: dict[str, Any], rows: int, length: int, **more: Any) -> dict[str, Any]:
    return {"model": model, "spec": {**spec, **more}, "rows": rows, "length": length}


CALIBRATION = [
    _cell("llama-135m", LORA, 20, 128),
    _cell("llama-135m", FULL, 8, 128),
    _cell("qwen2-110m", LORA, 8, 96),
    _cell("qwen2-110m", FULL, 16, 120),
    _cell("qwen2-110m", LORA, 2, 700, checkpointing="full"),
    _cell("llama-57m", LORA, 8, 150, precision="fp32"),
    _cell("llama-57m", FULL, 16, 100, optimizer="adamw8bit"),
    _cell("neox-110m", LORA, 8, 100, checkpointing="full"),
    _cell("neox-110m", FULL, 6, 128),
    _cell("qwen2-110m", LORA, 8, 128, base="nf4"),
]
BARE_8BIT = {"adapter": {"kind": "full", "masters": "none"}, "optimizer": "adamw8bit"}
JUDGED = [
    _cell("llama-135m", LORA, 8, 180),
    _cell("llama-135m", LORA, 1, 1500),
    _cell("llama-135m", LORA, 4, 2048, pack_tokens=2048),
    _cell("llama-135m", LORA, 16, 60, checkpointing="selective"),
    _cell("llama-135m", LORA, 8, 180, checkpointing="full"),
    _cell("llama-135m", LORA, 8, 180, base="int8"),
    _cell("llama-135m", LORA, 8, 180, base="nf4"),
    _cell("llama-135m", LORA, 8, 180, adapter={"kind": "lora", "rank": 64}),
    _cell("llama-135m", LORA, 8, 180, adapter={"kind": "lora", "layers": 8}),
    _cell("llama-135m", LORA, 4, 180, precision="fp32"),
    _cell("llama-135m", FULL, 8, 180),
    _cell("llama-135m", FULL, 16, 150),
    _cell("llama-135m", FULL, 8, 180, checkpointing="full"),
    _cell("llama-135m", FULL, 8, 180, optimizer="adafactor"),
    _cell("llama-135m", FULL, 8, 180, optimizer="adamw8bit"),
    _cell("llama-135m", BARE_8BIT, 8, 180),
    _cell("llama-135m", FULL, 4, 100, precision="fp32"),
    _cell("llama-362m", LORA, 8, 128),
    _cell("llama-362m", LORA, 8, 128, base="nf4", checkpointing="full"),
    _cell("llama-362m", FULL, 8, 64),
    _cell("qwen3-180m", LORA, 8, 160),
    _cell("qwen3-180m", FULL, 8, 100),
    _cell("qwen3-180m", LORA, 2, 1024, mlp_tile=512, checkpointing="selective"),
    _cell("qwen3-490m", LORA, 8, 128),
    _cell("qwen3-490m", LORA, 4, 256, base="int8"),
    _cell("qwen3-490m", LORA, 2, 512, checkpointing="full"),
    _cell("qwen3-490m", BARE_8BIT, 4, 128, checkpointing="full"),
    _cell("gemma2-120m", LORA, 8, 128),
    _cell("gemma2-120m", FULL, 8, 128),
    _cell("gemma2-120m", LORA, 1, 1024, base="nf4"),
    _cell("neox-110m", LORA, 8, 150),
    _cell("neox-110m", LORA, 8, 150, checkpointing="full"),
    _cell("neox-110m", FULL, 8, 100),
]
SETS = {"judged": JUDGED, "calibration": CALIBRATION}
STEPS = 4


def name_of(cell: dict[str, Any]) -> str:
    spec = dict(cell["spec"])
    adapter = spec.pop("adapter", {"kind": "lora"})
    words = [adapter["kind"], *(f"{key} {value}" for key, value in adapter.items() if key != "kind")]
    words += [f"{key} {value}" for key, value in spec.items()]
    return f"{cell['model']}, {', '.join(words)}, {cell['rows']} x {cell['length']}"


def main() -> None:
    arguments = _arguments()
    if arguments.cell:
        print(json.dumps(measure(json.loads(arguments.cell), Path(arguments.folder))))
        return
    results = Path(arguments.results or arguments.table)
    found: dict[str, Any] = json.loads(results.read_text()) if results.is_file() else {}
    if not arguments.table:
        models = Path(arguments.models)
        for cell in SETS[arguments.set]:
            if arguments.only and arguments.only not in name_of(cell):
                continue
            for _ in range(arguments.rounds - len(found.get(name_of(cell), {}).get("measured", []))):
                _run(cell, models, found)
                results.write_text(json.dumps(found, indent=1))
        cells = [cell for cell in SETS[arguments.set] if name_of(cell) in found]
        predict_all(cells, found, arguments.speed)
        results.write_text(json.dumps(found, indent=1))
    print(table([found[name_of(cell)] for cell in SETS[arguments.set] if name_of(cell) in found]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", default="")
    parser.add_argument("--table", default="")
    parser.add_argument("--set", choices=list(SETS), default="judged")
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--models", default=str(Path(tempfile.gettempdir()) / "luthier-plan-models"))
    parser.add_argument("--speed", action="store_true", help="measure this machine's speed anew")
    parser.add_argument("--cell", default="")
    parser.add_argument("--folder", default="")
    return parser.parse_args()


def _run(cell: dict[str, Any], models: Path, found: dict[str, Any]) -> None:
    folder = make_model(cell["model"], models)
    words = [sys.executable, __file__, "--cell", json.dumps(cell), "--folder", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name_of(cell)}: {done.stderr[-2000:]}")
    measured = json.loads(done.stdout.splitlines()[-1])
    entry = found.setdefault(name_of(cell), {"cell": cell, "measured": []})
    entry["measured"].append(measured)
    print(f"{name_of(cell)}: {measured['peak_bytes'] / 1e6:,.0f} MB, {measured['step_s']:.2f} s", file=sys.stderr)


def make_model(name: str, models: Path) -> Path:
    """Return a folder with the model's config, random weights in bfloat16 and the preset's tokenizer."""
    folder = models / name
    if not (folder / "model.safetensors").is_file():
        code = "import benchmarks.plan_accuracy as b, sys; b.write_model(sys.argv[1], b.Path(sys.argv[2]))"
        here = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"}
        subprocess.run([sys.executable, "-c", code, name, str(folder)], check=True, env=here)
    return folder


def config_of(name: str) -> Any:
    from transformers import AutoConfig

    facts = {"vocab_size": 49152, "max_position_embeddings": 4096, "tie_word_embeddings": True, **MODELS[name]}
    return AutoConfig.for_model(**{**facts, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2})


def write_model(name: str, folder: Path) -> None:
    import shutil

    import torch
    from transformers import AutoModelForCausalLM

    import luthier  # noqa: F401  # before torch
    from luthier.models.find import find_model

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config_of(name), dtype=torch.bfloat16).save_pretrained(folder)
    for file in find_model("smollm2-135m-instruct").folder.glob("*token*"):
        shutil.copy(file, folder)


def rows_of(cell: dict[str, Any]) -> list[Any]:
    import numpy as np

    from luthier.rows.types import Encoded

    length, random = cell["length"], np.random.default_rng(0)
    return [
        Encoded(random.integers(2, 40_000, length), np.arange(length) >= 0.8 * length, f"row {n}")
        for n in range(cell["rows"])
    ]


def spec_of(cell: dict[str, Any]) -> Any:
    from luthier.ground.spec import TrainSpec

    return TrainSpec(epochs=STEPS, max_steps=STEPS, rows_per_step=cell["rows"], eval_every=STEPS, **cell["spec"])


def measure(cell: dict[str, Any], folder: Path) -> dict[str, float]:
    """Train a few steps in this process; return its peak above what it was after the imports."""
    import psutil

    import luthier.verbs.workbench  # noqa: F401  # with the loop: all that a training imports
    from luthier.adapters.base import get_kind
    from luthier.machine.memory import give_back_memory
    from luthier.models.find import find_model
    from luthier.models.load import load_model
    from luthier.objectives.base import ObjectiveContext
    from luthier.objectives.sft import SupervisedFinetuning
    from luthier.training.loop import PACK_TOKENS, train_rows
    from luthier.training.precision import autocast_of, base_precision, base_quantized

    spec = spec_of(cell)
    kind = get_kind(spec.adapter.kind)
    give_back_memory()
    baseline = psutil.Process().memory_info().rss
    loaded = load_model(find_model(str(folder)), base_precision(spec), base_quantized(spec))
    kind.inject(loaded.model, spec.adapter, seed=0)
    with tempfile.TemporaryDirectory() as run:
        outcome = train_rows(
            loaded.model, SupervisedFinetuning(ObjectiveContext(None)), rows_of(cell), [], spec, Path(run) / "run",
            trainable=kind.trainable(loaded.model),
            save_adapter=lambda to: kind.save(loaded.model, to, spec.adapter, loaded.provenance),
            autocast=autocast_of(spec), pack_tokens=spec.pack_tokens or PACK_TOKENS,
        )  # fmt: skip
    seconds = [record.seconds for record in outcome.history]
    steps = [after - before for before, after in itertools.pairwise(seconds)]
    return {"peak_bytes": outcome.peak_bytes - baseline, "baseline_bytes": baseline, "step_s": statistics.median(steps)}


def predict_all(cells: list[dict[str, Any]], found: dict[str, Any], fresh: bool) -> None:
    """Add to each entry what the plan says, and the rules of thumb."""
    import luthier  # noqa: F401  # before torch
    from luthier.machine.here import this_device
    from luthier.machine.speed import speeds
    from luthier.planning.pace import pace_of
    from luthier.planning.predict import predict_training
    from luthier.planning.textbook import accelerate_bytes, full_finetune_bytes, inference_bytes
    from luthier.rows.packing import pack_rows
    from luthier.training.loop import PACK_TOKENS

    speeds(fresh=fresh)
    device = this_device()
    for cell in cells:
        spec, rows = spec_of(cell), rows_of(cell)
        packs = pack_rows(sorted(rows, key=len, reverse=True), spec.pack_tokens or PACK_TOKENS)
        began = time.perf_counter()
        predicted = predict_training(config_of(cell["model"]), spec, [packs] * 3, baseline_bytes=0)
        tokens = sum(len(row) for row in rows)
        precision = "fp32" if spec.precision == "fp32" else "bf16"
        found[name_of(cell)]["predicted"] = {
            "peak_bytes": predicted.peak_bytes,
            "terms": predicted.terms.model_dump(),
            "live_bytes": predicted.live_bytes,
            "peak_at": predicted.peak_at,
            "step_s": pace_of(predicted.work, device, precision, tokens=tokens).step_s,
            "seconds": time.perf_counter() - began,
        }
        n = predicted.parameters
        found[name_of(cell)]["rules"] = {
            "weights x 1.2": inference_bytes(n, precision),
            "16 bytes per parameter": full_finetune_bytes(n),
            "accelerate: weights x 4": accelerate_bytes(n, precision),
        }


def table(entries: list[dict[str, Any]]) -> str:
    rules = list(entries[0]["rules"]) if entries else []
    lines = [
        "| cell | measured | predicted | error | " + " | ".join(rules) + " | step: measured | predicted |",
        "|---|" + "---:|" * (5 + len(rules)),
    ]
    errors, times = [], []
    for entry in entries:
        truth = statistics.median(one["peak_bytes"] for one in entry["measured"])
        step_s = statistics.median(one["step_s"] for one in entry["measured"])
        predicted = entry["predicted"]
        errors.append(predicted["peak_bytes"] / truth - 1)
        times.append(predicted["step_s"] / step_s - 1)
        others = " | ".join(f"{100 * (entry['rules'][rule] / truth - 1):+.0f} %" for rule in rules)
        lines.append(
            f"| {name_of(entry['cell'])} | {truth / 1e6:,.0f} MB | {predicted['peak_bytes'] / 1e6:,.0f} MB | "
            f"{100 * errors[-1]:+.1f} % | {others} | {step_s:.2f} s | {predicted['step_s']:.2f} s |"
        )
    absolute = sorted(abs(error) for error in errors)
    lines += [
        "",
        f"{len(errors)} cells: median error {100 * statistics.median(absolute):.1f} %, largest "
        f"{100 * absolute[-1]:.1f} %, most under the truth {100 * min(0.0, *errors):.1f} %; step time: median error "
        f"{100 * statistics.median(abs(error) for error in times):.0f} %.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
