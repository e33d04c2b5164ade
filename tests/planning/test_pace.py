"""Seconds from work: the profiled step, published GPU steps, the floor of the roofline and what is said about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from luthier.ground.errors import BadInput
from luthier.machine.catalogue import Device, find_device
from luthier.planning.pace import efficiency_of, pace_of
from luthier.planning.work import ModelFacts, Work, closed_form

HERE = Device(
    name="two cores",
    kind="cpu",
    memory_bytes=16 << 30,
    bandwidth_bytes_s=67e9,
    peak_flops_s={"fp32": 4e11, "bf16": 1.061e12},
    native=("fp32", "bf16"),
    source="measured on this machine",
    measured=True,
)


def test_the_profiled_step_takes_what_it_took() -> None:
    """1,262 tokens of LoRA on SmolLM2-135M in 0.909 s; the shares come from it, so this holds them to their story."""
    work = Work(603e9, product_bytes=3.5e9, other_bytes=2.2e9, other_flops=23e9, calls=3050)
    pace = pace_of(work, HERE, "bf16", tokens=1262, steps=10)
    assert pace.step_s == pytest.approx(0.909, rel=0.01)
    assert pace.tokens_per_s == pytest.approx(1388, rel=0.01)
    assert pace.total_s == pytest.approx(10 * pace.step_s)
    assert pace.bound == "arithmetic"
    assert pace.source.startswith("measured on this machine; 1,061 GFLOP/s in bf16 and 67 GB/s")


def test_on_a_processor_the_parts_add_up() -> None:
    whole = Work(1e12, 1e9, 2e9, 1e11, 1000)
    parts = (Work(1e12), Work(product_bytes=1e9), Work(other_bytes=2e9), Work(other_flops=1e11), Work(calls=1000))
    times = [pace_of(part, HERE, "fp32", tokens=1).step_s for part in parts]
    assert pace_of(whole, HERE, "fp32", tokens=1).step_s == pytest.approx(sum(times))
    assert times[0] == pytest.approx(1e12 / 4e11 / 0.94)


@pytest.mark.parametrize(
    ("weights", "layers", "width", "tokens_s", "within"),
    [
        (12.85e9, 40, 5120, 4_792, 0.2),
        (6.66e9, 32, 4096, 10_643, 0.2),
        (2.65e9, 32, 2560, 24_142, 0.2),
        (1.32e9, 24, 2048, 45_455, 0.2),
        (0.76e9, 24, 1536, 63_147, 0.4),  # models below a billion weights are slower than the stated share
    ],
)
def test_published_full_finetunes_are_met(
    weights: float, layers: int, width: int, tokens_s: float, within: float
) -> None:
    """Tokens a second and GPU in llm-foundry's table for H100: rows of 2,048 tokens, bf16, no checkpointing."""
    work = closed_form(ModelFacts(round(weights), 0, layers, width), 1, 1.0, 2048, "full")
    pace = pace_of(work, find_device("H100"), "bf16", tokens=1)
    assert pace.tokens_per_s == pytest.approx(tokens_s, rel=within)


def test_decoding_is_bound_by_reading_the_weights() -> None:
    """Llama-2-7B on an A100: 20 tokens in 234 ms (NeMo's table), a little of which is the prompt."""
    work = 20 * Work(flops=2 * 6.74e9, product_bytes=13.5e9)
    pace = pace_of(work, find_device("A100 80GB"), "bf16", tokens=20, mode="decode")
    assert pace.bound == "bandwidth"
    assert pace.step_s == pytest.approx(0.234, rel=0.1)


def test_on_a_gpu_small_steps_wait_for_the_host_and_say_so() -> None:
    pace = pace_of(Work(flops=1e9, calls=3000), find_device("H100"), "bf16", tokens=10)
    assert pace.step_s == pytest.approx(0.03)
    assert "set the pace" in pace.source


def test_without_units_another_precision_stands_in() -> None:
    pace = pace_of(Work(flops=1e12), find_device("T4"), "bf16", tokens=1)
    assert pace.products_flops_s == pytest.approx(8.1e12)
    assert "has no bf16 units: as fp32" in pace.source


def test_an_efficiency_can_be_given_and_must_be_possible() -> None:
    work = Work(flops=1e15, other_flops=1e14)
    half, default = (pace_of(work, find_device("H100"), "bf16", share, tokens=1) for share in (0.225, None))
    assert half.step_s == pytest.approx(2 * default.step_s)
    assert (half.efficiency, default.efficiency) == (0.225, 0.45)
    with pytest.raises(BadInput, match="not possible"):
        pace_of(work, HERE, "bf16", 1.2, tokens=1)
    with pytest.raises(BadInput, match="name one of: fp32"):
        pace_of(work, HERE, "bf17", tokens=1)


def test_a_catalogued_processor_is_trusted_less_than_a_measured_one() -> None:
    assert efficiency_of(replace(HERE, measured=False)).products < efficiency_of(HERE).products
    gpu = find_device("H100")
    assert efficiency_of(replace(gpu, measured=True)).products > efficiency_of(gpu).products


def test_checkpointing_costs_what_the_closed_form_says() -> None:
    """Full checkpointing of a full finetune is a third more, but for the head: 8B on an H100."""
    facts = ModelFacts(6_979_000_000, 525_000_000, 32, 4096)
    plain, again = (closed_form(facts, 4096, 1.0, 1024, "full", kind) for kind in ("none", "full"))  # type: ignore[arg-type]
    times = [pace_of(work, find_device("H100"), "bf16", tokens=4096).step_s for work in (plain, again)]
    assert times[1] / times[0] == pytest.approx(1.31, abs=0.01)
