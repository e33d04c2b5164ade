"""The page about planning: its constants and limits are the code's, and its links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from luthier.ground.plan_result import TERMS
from luthier.ground.spec import BudgetSpec
from luthier.machine import prices
from luthier.machine.catalogue import find_device
from luthier.planning import predict, predict_inference, scaled

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def row(name: str) -> str:
    return next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))


def test_the_fitted_constants_are_those_of_the_code() -> None:
    assert f"| {predict.PROCESS_BYTES / 1e6:.0f} MB |" in row("PROCESS_BYTES")
    for name in ("SCATTERED", "SCATTERED_PACKS", "SCATTERED_LAYERS"):
        assert f"| {100 * getattr(predict, name):.0f} % of" in row(name)
    assert f"one of its own, {predict_inference.PROCESS_BYTES / 1e6:.0f} MB" in PAGE
    assert f"(more than {scaled.TRACED_IN_FULL} layers)" in PAGE


def test_every_term_is_in_the_table() -> None:
    words = {"kv_cache": "KV cache"}
    assert all(f"\n| {words.get(term, term)} |" in PAGE for term in TERMS)


def test_the_examples_are_what_they_say(tmp_path: Path) -> None:
    budget = yaml.safe_load(blocks("yaml")[0])["budget"]
    assert BudgetSpec.model_validate(budget).choose is True
    own, device = blocks("json")
    (tmp_path / "prices.json").write_text(own)
    found = prices.price_of(find_device("H100"), tmp_path / "prices.json")
    assert found is not None and (found.per_hour, found.currency) == (2.1, "EUR")
    listed = json.loads((ROOT / "src" / "luthier" / "machine" / "devices.json").read_text())["devices"]
    assert json.loads(device) in listed


def test_every_linked_file_and_module_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    for module in re.findall(r"`(\w+\.py)`", PAGE):
        assert (ROOT / "src" / "luthier" / "planning" / module).exists(), module
