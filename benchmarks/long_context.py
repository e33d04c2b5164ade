"""What each way to a longer window gives, and whether long rows of a real model fit into 12 GB.

`methods` makes the model of examples/long_context once, lengthens its window by every method, and prints a row of
passkeys found beyond the old window and of the loss within it, before any training and after. `rows` trains
smollm2-135m-instruct (window 8,192) for a few steps on rows of 16,384 tokens with LoRA, and prints what was predicted
and what was measured.

    OMP_NUM_THREADS=2 python benchmarks/long_context.py methods methods/
    OMP_NUM_THREADS=2 python benchmarks/long_context.py rows rows/
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

from luthier import compare, load_task, plan, train
from luthier.evaluation.long_context import text_passkey
from luthier.ground.objective_results import ContextResult
from luthier.models.find import find_model
from luthier.models.load import load_tokenizer

EXAMPLE = Path(__file__).parent.parent / "examples" / "long_context"
METHODS = ("linear", "ntk", "base", "yarn", "longrope", "llama3")
MODEL, ROW_TOKENS, STEPS = "smollm2-135m-instruct", 16_384, 2
TASK = f"""name: {MODEL} to {ROW_TOKENS}
model: {MODEL}
data: {{train: train.jsonl}}
context: {{factor: 2, method: yarn}}
train:
  objective: sft
  adapter: {{kind: lora, rank: 16}}
  learning_rate: 0.0002
  max_steps: {STEPS}
  rows_per_step: 1
  max_length: {ROW_TOKENS}
  pack_tokens: {ROW_TOKENS}
  checkpointing: full
  mlp_tile: 2048
budget: {{memory: 12GB, choose: false}}
"""


def main() -> None:
    """Run what the command line names, in the folder that it names."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    {"methods": methods, "rows": rows}[what](folder)


def methods(folder: Path) -> None:
    """Print a line of a table for each method."""
    for name in ("generate.py", "base.yaml", "task.yaml"):
        shutil.copyfile(EXAMPLE / name, folder / name)
    if not (folder / "base").is_dir():
        subprocess.run([sys.executable, "generate.py", "."], cwd=folder, check=True)
        shutil.copytree(train(folder / "base.yaml").adapter, folder / "base")
    print(
        "| method | passkeys, untrained | loss, untrained | passkeys, trained | loss, trained |\n|---|---|---|---|---|"
    )
    for method in METHODS:
        found = compare(load_task(folder / "task.yaml", [f"context.method={method}", "data.sample.test=8"])).context
        assert found is not None
        scaled, finetuned = found.positions[1].system, found.positions[2].system
        cells = [cell for name in (scaled, finetuned) for cell in (_share(found, name), _change(found, name))]
        print(f"| {method} | {' | '.join(cells)} |", flush=True)


def rows(folder: Path) -> None:
    """Print the predicted and the measured peak, and the time of a step."""
    tokenizer = load_tokenizer(find_model(MODEL))
    made = [_row(seed, lambda text: len(tokenizer.encode(text))) for seed in range(4)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    (folder / "task.yaml").write_text(TASK, encoding="utf-8")
    planned = plan(folder / "task.yaml")
    result = train(folder / "task.yaml")
    facts = {
        "rows_tokens": result.tokens // result.steps,
        "planned_peak_bytes": planned.peak_bytes,
        "planned_step_s": planned.step_s,
        "predicted_peak_bytes": result.predicted_peak_bytes,
        "peak_bytes": result.peak_bytes,
        "step_s": result.seconds / result.steps,
        "tokens_per_s": result.tokens_per_s,
    }
    print(json.dumps(facts))


def _row(seed: int, length: Callable[[str], int]) -> dict[str, str]:
    """Return a passkey of nearly so many tokens."""
    depth = Random(seed).random()
    empty, some = (length(text_passkey(Random(seed), n, depth)[0]) for n in (0, 100))
    text, key, _ = text_passkey(Random(seed), int(100 * (ROW_TOKENS - 200 - empty) / (some - empty)), depth)
    return {"prompt": text, "completion": key}


def _share(found: ContextResult, system: str) -> str:
    cells = [c for c in found.cells if (c.system, c.test) == (system, "passkey") and c.length > found.old_window]
    return f"{100 * sum(cell.right for cell in cells) / sum(cell.n for cell in cells):.1f} %"


def _change(found: ContextResult, system: str) -> str:
    return f"{100 * (found.short_loss[system] / found.short_loss[found.positions[0].system] - 1):+.1f} %"


if __name__ == "__main__":
    main()
