"""Plans for 70 and 405 billion weights take seconds, and little memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.planning.small import some_packs

from luthier.ground.spec import TrainSpec
from luthier.planning.config import read_config
from luthier.planning.predict import predict_training
from luthier.planning.scaled import predict_quickly

CONFIGS = Path(__file__).parent / "configs"
SECONDS = 10.0
LORA: dict[str, Any] = {}
FULL: dict[str, Any] = {"adapter": {"kind": "full"}}


@pytest.mark.parametrize(
    ("name", "spec", "least", "most"),
    [
        ("llama-3.1-405b", LORA, 812e9, 1100e9),
        ("llama-3.1-405b", FULL, 405.85e9 * 16, 405.85e9 * 19),
        ("llama-3.1-70b", {"base": "nf4"}, 39e9, 90e9),
        ("deepseek-v3", {"adapter": {"kind": "lora", "targets": ["o_proj"]}}, 1342e9, 1700e9),
    ],
)
def test_seconds_are_enough(name: str, spec: dict[str, Any], least: float, most: float) -> None:
    config, _ = read_config(f"{name}.json", CONFIGS)
    packs = [some_packs(2, 1024)] * 2
    began = time.perf_counter()
    predicted = predict_quickly(
        lambda shallow: predict_training(shallow, TrainSpec(**spec), packs, baseline_bytes=0), config
    )
    assert time.perf_counter() - began < SECONDS
    assert least < predicted.peak_bytes < most


@pytest.mark.slow
def test_a_process_that_plans_70b_stays_small_and_quick() -> None:
    code = """
import json, resource, sys
from pathlib import Path
import luthier
from luthier.ground.spec import TrainSpec
from luthier.planning.config import read_config
from luthier.planning.predict import predict_training
from luthier.planning.scaled import predict_quickly
from luthier.planning.workload import made_up
config, _ = read_config(sys.argv[1])
spec = TrainSpec(base="nf4", checkpointing="full")
steps = [made_up(2048, 8, spec).heaviest] * 3
quick = predict_quickly(lambda few: predict_training(few, spec, steps, baseline_bytes=0), config)
print(json.dumps([quick.peak_bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""
    began = time.perf_counter()
    words = [sys.executable, "-c", code, str(CONFIGS / "llama-3.1-70b.json")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert time.perf_counter() - began < 2 * SECONDS  # this includes the imports, on a machine that others use too
    predicted, peak = json.loads(done.stdout.splitlines()[-1])
    assert peak < 4e9
    assert 39e9 < predicted < 60e9
