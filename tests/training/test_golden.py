"""Loss curves to the last digit: a change of the arithmetic that nobody meant is seen at once.

`golden_curves.json` beside this file holds twelve steps of LoRA and of full finetuning in float32 on one thread, and
the environment (PyTorch, kernels, compiler, processor) in which they were computed. There all 16 digits must be the
same; elsewhere 6 digits of losses and 5 of gradient norms, since other kernels add in another order. After a change
that is meant, write them anew and look at the difference before it is committed:

    LUTHIER_REWRITE_GOLDEN=1 pytest tests/training/test_golden.py
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny_training import VOCABULARY, tiny_objective, tiny_spec

from luthier.adapters.base import get_kind, remove_adapter
from luthier.ground.spec import TrainSpec
from luthier.models.kernels import build, rowwise
from luthier.rows.types import Encoded
from luthier.training.engine import body
from luthier.training.loop import train_rows
from models.tiny_models import tiny_model

FILE = Path(__file__).with_name("golden_curves.json")
REWRITE = "LUTHIER_REWRITE_GOLDEN"
ELSEWHERE = {"loss": 1e-6, "dev_loss": 1e-6, "grad_norm": 1e-5}
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"adapter": {"kind": "lora", "rank": 4}},
    "full": {"adapter": {"kind": "full"}, "weight_decay": 0.01},
    "lora of the last layer, blocks again": {
        "adapter": {"kind": "lora", "rank": 4, "layers": 1}, "checkpointing": "full"
    },
}  # fmt: skip
Curve = dict[str, list[float]]


def curve(name: str, run: Path) -> Curve:
    """Train for twelve steps; return the losses, the gradient norms, and the dev losses."""
    spec = tiny_spec(max_steps=12, epochs=9, tokens_per_step=60, learning_rate=1e-3, eval_every=4, **KINDS[name])
    common = 24 if "last" in name else 0
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _trained(spec) as (model, weights):
            outcome = train_rows(
                model, tiny_objective(), _rows(20, 0, common), _rows(4, 1, common), spec, run, trainable=weights,
                save_adapter=lambda folder: get_kind(spec.adapter.kind).save(model, folder, spec.adapter, None),
                pack_tokens=120,
            )  # fmt: skip
    finally:
        torch.set_num_threads(before)
    return {
        "loss": [record.loss for record in outcome.history],
        "grad_norm": [record.grad_norm for record in outcome.history],
        "dev_loss": [float(record.dev_loss or 0.0) for record in outcome.evals],
    }


@contextlib.contextmanager
def _trained(spec: TrainSpec) -> Iterator[tuple[Any, dict[str, torch.nn.Parameter]]]:
    model = tiny_model("qwen3").requires_grad_(False)
    kind = get_kind(spec.adapter.kind)
    kind.inject(model, spec.adapter, seed=0)
    try:
        yield model, kind.trainable(model)
    finally:
        remove_adapter(model)


def _rows(count: int, seed: int, common: int) -> list[Encoded]:
    """Rows that count upwards, after a beginning that is the same for all."""
    generator = np.random.default_rng(seed)
    beginning = np.random.default_rng(9).integers(3, VOCABULARY, common)
    rows = []
    for number in range(count):
        own = int(generator.integers(4, 20))
        ids = np.concatenate([beginning, int(generator.integers(3, 9)) + np.arange(own)])
        rows.append(Encoded(ids, np.arange(len(ids)) >= len(ids) - own // 2, f"train.jsonl:{number + 1}"))
    return rows


def environment() -> dict[str, str]:
    """Return what the last digits depend on besides the code."""
    compiler = shutil.which(os.environ.get("CXX", "c++")) if build.library() is not None else None
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout if compiler else ""
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "kernels": "plain" if build.library() is None else "native",
        "compiler": next(iter(version.splitlines()), ""),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "processor": hashlib.sha256(build._processor().encode()).hexdigest()[:16],
        "threads": "1",
    }


def assert_golden(found: Curve, golden: Curve, is_same_place: bool) -> None:
    assert found.keys() == golden.keys()
    for name, wanted in golden.items():
        exact = wanted if is_same_place else pytest.approx(wanted, rel=ELSEWHERE[name])
        assert found[name] == exact, f"{name} is another; if that is meant: {REWRITE}=1 pytest {Path(__file__).name}"


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if os.environ.get(REWRITE):
        runs = tmp_path_factory.mktemp("golden")
        curves = {name: curve(name, runs / str(number)) for number, name in enumerate(KINDS)}
        FILE.write_text(json.dumps({"environment": environment(), "curves": curves}, indent=1) + "\n")
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


@pytest.mark.parametrize("name", KINDS)
def test_the_curve_is_the_golden_one(golden: dict[str, Any], name: str, tmp_path: Path) -> None:
    found = curve(name, tmp_path / "run")
    assert len(found["loss"]) == 12 and found["loss"][-1] < found["loss"][0] and len(found["dev_loss"]) >= 3
    assert_golden(found, golden["curves"][name], golden["environment"] == environment())


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("elsewhere", ["plain kernels", "general engine"])
def test_elsewhere_it_has_the_same_first_digits(
    golden: dict[str, Any], name: str, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if elsewhere == "plain kernels":
        monkeypatch.setattr(rowwise, "_functions", lambda: None)
    else:
        monkeypatch.setattr(body, "why_not", lambda model: "it is not wanted")
    assert_golden(curve(name, tmp_path / "run"), golden["curves"][name], is_same_place=False)


def test_one_digit_of_difference_is_seen() -> None:
    wanted = {"loss": [3.2456789012345678]}
    for number, in_place, elsewhere in (
        (wanted["loss"][0], True, True),
        (3.2456790, False, True),
        (3.2457, False, False),
    ):
        for is_same_place, passes in ((True, in_place), (False, elsewhere)):
            with contextlib.nullcontext() if passes else pytest.raises(AssertionError, match="is another"):
                assert_golden({"loss": [number]}, wanted, is_same_place)
