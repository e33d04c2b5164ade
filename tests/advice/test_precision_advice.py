"""Each rule speaks on numbers that call for it and is silent beside its limit; so does the recommendation."""

from __future__ import annotations

import re
from typing import Any

import pytest

from luthier.advice import precision
from luthier.advice.precision import precision_warnings, recommend
from luthier.evaluation.precision_risks import GradientRange, StoredAdapter, TrainingRisks, WeightRange
from luthier.ground.doctor_result import PrecisionRow, PrecisionTrial

SECONDS = {"fp32": 4.0, "bf16": 1.0, "fp16": 1.0, "int8": 2.0, "nf4": 2.0}
BYTES = {"fp32": 400, "bf16": 200, "fp16": 200, "int8": 100, "nf4": 55}


def trial(name: str, **changes: Any) -> PrecisionTrial:
    """A trial about which no rule has anything to say."""
    facts: dict[str, Any] = {
        "precision": name,
        "loss": 2.0,
        "loss_change": 0.0 if name == "fp32" else 0.001,
        "kl": 0.0 if name == "fp32" else 0.002,
        "agreement": 1.0 if name == "fp32" else 0.97,
        "largest_activation": 1000.0,
        "largest_at": "model.layers.3.mlp.down_proj",
        "share_of_range": 1000 / 65504 if name == "fp16" else 1e-35,
        "not_finite": 0,
        "seconds": SECONDS[name],
        "weights_bytes": BYTES[name],
    }
    return PrecisionTrial(**{**facts, **changes})


def row(name: str, speed: float | None, practical: str = "yes", status: str = "native") -> PrecisionRow:
    return PrecisionRow(
        name=name,
        status=status,
        bits=16,
        exponent_bits=8,
        mantissa_bits=7,
        largest=1.0,
        smallest_normal=1.0,
        epsilon=1.0,
        products_flops_s=None if speed is None else 1e9 * speed,
        relative_speed=speed,
        relative_bytes=0.5,
        practical=practical,
        note="",
    )


def weights(born: str = "", **changes: Any) -> WeightRange:
    facts: dict[str, Any] = {
        "weights": 1_000_000,
        "largest": 9.0,
        "largest_at": "lm_head.weight",
        "too_large": 0.0,
        "subnormal": 0.004,
        "zero": 0.001,
    }
    return WeightRange(born=born, **{**facts, **changes})


def risks(**changes: Any) -> TrainingRisks:
    facts: dict[str, Any] = {
        "precision": "bf16",
        "adapter_kind": "lora",
        "optimizer": "adamw",
        "learning_rate": 1e-5,
        "trained": 5_000_000,
        "trained_as": "fp32",
        "update": 1e-5,
        "lost_in_bf16": 0.9,
        "state_as": "fp32",
        "gradients": GradientRange(64.0, 1000, too_large=0.5, subnormal=0.5, zero=0.5, largest=70_000.0),
    }
    return TrainingRisks(**{**facts, **changes})


def adapter(**changes: Any) -> StoredAdapter:
    facts = {"place": "runs/a/adapter", "stored_as": "bf16", "numbers": 4_884_480, "learning_rate": 1e-5, "lost": 0.6}
    return StoredAdapter(**{**facts, **changes})


QUIET = [trial(name) for name in ("fp32", "bf16", "fp16")]
FP16_RISKS = {"precision": "fp16", "gradients": GradientRange(64.0, 1000, zero=0.06, largest=3.0)}

SPEAKS: list[tuple[str, dict[str, Any], str]] = [
    ("P1", {"trials": QUIET, "weights": weights("bf16")}, r"0\.4% of its 1,000,000 weights .* 1,000, is 1\.5%"),
    ("P1", {"trials": [], "weights": weights("bf16"), "risks": risks(precision="fp16", gradients=None)}, "65,504"),
    ("P2", {"trials": [trial("fp16", share_of_range=0.51, largest_activation=33407.0)]}, "33,407 at model.* is 51.0%"),
    (
        "P2",
        {"trials": [trial("fp16", not_finite=12, largest_activation=98256.0, share_of_range=1.5)]},
        r"12 values were NaN or infinite, .* fp32 has 98,256, is 150\.0%",
    ),
    ("P2", {"trials": [trial("fp32", not_finite=3, loss=None)]}, "In fp32 3 values"),
    ("P3", {"trials": [trial("bf16", loss_change=0.0101)]}, r"changes by \+0\.01 .* limits are \+0\.01 and 0\.01"),
    ("P3", {"trials": [trial("bf16", kl=0.0123)]}, r"KL\(fp32 ‖ bf16\) is 0\.012; the likeliest .* 97\.0%"),
    (
        "P4",
        {"trials": [], "risks": risks(trained_as="bf16")},
        r"1\.0e-05 .* 90\.0% of 5,000,000 .* stochastic",
    ),
    ("P5", {"trials": [], "risks": risks(state_as="bf16")}, r"0\.001 of itself, which is below 0\.0020"),
    ("P5", {"trials": [], "risks": risks(state_as="fp16")}, r"below 0\.00017 becomes zero"),
    ("P6", {"trials": [], "adapter": adapter()}, r"stored in bf16: an update of 1\.0e-05 .* 60\.0% of its 4,884,480"),
    ("P7", {"trials": [], "risks": risks(**FP16_RISKS)}, r"loss scale of 64, 6\.0% become zero"),
    (
        "P7",
        {"trials": [], "risks": risks(precision="fp16")},
        r"50\.0% are beyond 65,504 \(the largest is 70,000\); steps that overflow",
    ),
    ("P8", {"trials": QUIET, "table": [row("fp32", 1.0), row("fp16", 0.05)]}, r"0\.05 of the speed .*matrix products"),
    ("P8", {"trials": [trial("fp32"), trial("fp16", seconds=20.0)]}, r"0\.20 of the speed .* 20 s in fp16 and 4\.0 s"),
]

IS_SILENT: list[dict[str, Any]] = [
    {"trials": QUIET},
    {"trials": QUIET, "weights": weights("fp32"), "risks": risks(), "adapter": adapter(stored_as="fp32")},
    {"trials": [trial("fp32"), trial("bf16")], "weights": weights("bf16")},  # bf16-born, and not run in fp16
    {"trials": [trial("fp16", share_of_range=0.5)]},
    {"trials": [trial("bf16", loss_change=0.01, kl=0.01)]},
    {"trials": [trial("bf16", loss_change=-0.5)]},  # not worse
    {"trials": [trial("bf16", loss_change=None, kl=None, agreement=None)]},  # the reference failed, not bf16
    {"trials": [], "risks": risks(trained_as="bf16", lost_in_bf16=0.099)},
    {"trials": [], "risks": risks(trained_as="fp32", lost_in_bf16=1.0)},  # masters
    {"trials": [], "adapter": adapter(lost=0.05)},
    {"trials": [], "risks": risks(precision="fp16", gradients=GradientRange(64.0, 1000, zero=0.04, largest=3.0))},
    {"trials": [], "risks": risks(precision="fp16", gradients=None)},
    {"trials": QUIET, "table": [row("fp32", 1.0), row("fp16", 1.0)]},
]


@pytest.mark.parametrize(("rule", "evidence", "words"), SPEAKS)
def test_a_rule_speaks_with_its_numbers(rule: str, evidence: dict[str, Any], words: str) -> None:
    said = _warnings(evidence)
    assert [warned.rule for warned in said] == [rule]
    assert re.search(words, said[0].text), said[0].text
    assert said[0].text.endswith(".") and said[0].text.count(". ") == 0, "one sentence"
    assert said[0].fix


@pytest.mark.parametrize("evidence", IS_SILENT)
def test_no_rule_speaks_beside_its_limit(evidence: dict[str, Any]) -> None:
    assert _warnings(evidence) == []


def test_every_rule_is_in_the_table_and_tested() -> None:
    listed = re.findall(r"^\| (P\d) \|", precision.__doc__ or "", re.M)
    assert listed == sorted({rule for rule, _, _ in SPEAKS}) == [f"P{n}" for n in range(1, 9)]


# -- recommendation ----------------------------------------------------------------------------------------------------

HERE = [row("fp32", 1.0), row("bf16", 2.9), row("fp16", 0.05, "no", "emulated"), row("int8", 1.5)]


def test_the_cheapest_within_the_limits_is_recommended_with_its_numbers() -> None:
    name, reasons = recommend(QUIET, HERE)
    assert name == "bf16"
    assert reasons[0] == "bf16: 2.90 times the speed of fp32 (matrix products), and 200 B of weights beside 400 B."
    assert "+0.001 nats a token and KL(fp32 ‖ bf16) is 0.002" in reasons[1] and "far within the range" in reasons[1]
    assert reasons[2].startswith("fp16 is not taken: it is not practical on this machine (emulated, 0.05 times")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"loss_change": 0.02}, "beyond 0.01"),
        ({"kl": 0.011}, "KL"),
        ({"not_finite": 4}, "4 values were NaN"),
        ({"loss": None}, "NaN"),
        ({"share_of_range": 0.6}, "60.0% of the range"),
    ],
)
def test_what_harms_is_not_recommended(changes: dict[str, Any], why: str) -> None:
    name, reasons = recommend([trial("fp32"), trial("bf16", **changes)], HERE)
    assert name == "fp32" and len(reasons) == 2
    assert reasons[1].startswith("bf16 is not taken: ") and why in reasons[1]


def test_what_is_slow_here_is_not_recommended() -> None:
    old = [row("fp32", 1.0), row("bf16", 0.4, "only to save memory", "emulated")]
    name, reasons = recommend(QUIET[:2], old)
    assert name == "fp32" and "only to save memory" in reasons[1] and "0.40" in reasons[1]
    assert recommend(QUIET[:2], [row("fp32", 1.0), row("bf16", 0.9)])[0] == "fp32"
    assert recommend(QUIET[:2], [row("fp32", 1.0), row("bf16", 1.0)])[0] == "bf16", "as fast, and half the bytes"


def test_range_is_preferred_where_fp16_is_no_faster() -> None:
    gpu = [row("fp32", 1.0), row("bf16", 8.0), row("fp16", 8.2)]
    assert recommend(QUIET, gpu)[0] == "bf16"
    turing = [row("fp32", 1.0), row("bf16", 0.5, "no", "emulated"), row("fp16", 8.0)]
    assert recommend(QUIET, turing)[0] == "fp16"
    name, reasons = recommend(QUIET, turing, weights("bf16"))
    assert name == "fp32" and "the checkpoint was made in bf16" in reasons[-1]


def test_quantised_weights_only_save_memory() -> None:
    trials = [*QUIET[:2], trial("int8", kl=0.003, seconds=0.1), trial("nf4", kl=0.05)]
    table = [row("fp32", 1.0), row("bf16", 2.9), row("int8", 30.0), row("int4", 60.0)]  # of whole-number products
    name, reasons = recommend(trials, table)
    assert name == "bf16"
    costs = "it has 10.00 times the speed of bf16 (these rows), and 100 B of weights beside 200 B."
    assert reasons[2] == f"int8 only saves memory: {costs}"
    assert reasons[3].startswith("nf4 is not taken: in nf4 the loss changes") and "0.05" in reasons[3]


def test_without_a_table_the_trials_say_what_is_fast() -> None:
    name, reasons = recommend(QUIET[:2])
    assert name == "bf16" and "4.00 times the speed of fp32 (these rows)" in reasons[0]


def test_a_broken_reference_is_said() -> None:
    name, reasons = recommend([trial("fp32", loss=None, not_finite=7)], HERE)
    assert name == "fp32" and "not a finite number" in reasons[0]


def _warnings(evidence: dict[str, Any]) -> list[Any]:
    return precision_warnings(evidence["trials"], **{key: value for key, value in evidence.items() if key != "trials"})
