"""Made-up plans that look like real ones: the tickets task, 405B on one card, answering, several devices."""

from __future__ import annotations

from typing import Any

from samples import environment

from luthier.ground.doctor_result import (
    DoctorResult,
    PrecisionRow,
    PrecisionTrial,
    Processor,
    Warned,
)
from luthier.ground.plan_result import (
    BreakEven,
    Concession,
    Cost,
    FrontierPoint,
    MeasuredPlan,
    Moment,
    Pace,
    Parallel,
    PlanResult,
    TermNote,
    Terms,
)

GB, MB = 1_000_000_000, 1_000_000
TRACED = "traced: the real step on tensors without memory"

TICKETS = Terms(
    weights_bytes=269_030_016,
    adapters_bytes=19_537_920,
    gradients_bytes=19_537_920,
    optimizer_bytes=39_075_840,
    activations_bytes=498_204_672,
    attention_bytes=41_287_680,
    loss_bytes=151_257_088,
    temporary_bytes=60_129_280,
    overhead_bytes=421_888_000,
)
GIANT = Terms(
    weights_bytes=811_706_777_600,
    gradients_bytes=811_706_777_600,
    optimizer_bytes=4_870_240_665_600,
    activations_bytes=96_485_769_216,
    attention_bytes=1_073_741_824,
    loss_bytes=4_202_692_608,
    temporary_bytes=2_147_483_648,
    overhead_bytes=1_288_490_188,
)
SETTINGS = {
    "train.adapter.kind": "lora",
    "train.adapter.rank": 16,
    "train.base": "bf16",
    "train.checkpointing": "none",
    "train.optimizer": "adamw",
    "train.tokens_per_step": 2048,
}


def concession(option: str, saved: int, slower: float, **changes: Any) -> Concession:
    peak = TICKETS.total - saved
    values: dict[str, Any] = {
        "option": option,
        "settings": dict([option.split(": ", 1)]) if ": " in option else {},
        "peak_bytes": peak,
        "bytes_change": -saved,
        "step_s": 4.31 * (1 + slower),
        "step_change": slower,
        "fits": True,
        "same_mathematics": True,
        "sentence": f"{option}: −{saved / GB:.1f} GB, {100 * slower:+.0f} % time",
    }
    return Concession(**{**values, **changes})


def point(label: str, peak: float, step_s: float, **changes: Any) -> FrontierPoint:
    values: dict[str, Any] = {
        "label": label,
        "settings": {},
        "peak_bytes": round(peak * GB),
        "step_s": step_s,
        "fits": peak <= 3.0,
        "chosen": False,
        "on_frontier": True,
    }
    return FrontierPoint(**{**values, **changes})


def frontier() -> list[FrontierPoint]:
    return [
        point("lora r16, full checkpointing, 512 tokens a step", 0.83, 8.9),
        point("lora r16, full checkpointing, 1024 tokens a step", 0.94, 6.9),
        point("lora r16, full checkpointing", 1.12, 5.62),
        point("lora r16, selective checkpointing", 1.29, 4.74),
        point("lora r16", TICKETS.total / GB, 4.31, chosen=True),
        point("lora r4", 1.49, 4.33, on_frontier=False),
        point("lora r16, fp32", 2.71, 4.18),
        point("full, bf16", 3.44, 4.02),
        point("full, fp32, adamw", 4.61, 3.97),
    ]


def pace(**changes: Any) -> Pace:
    values: dict[str, Any] = {
        "step_s": 4.31,
        "steps": 400,
        "total_s": 1724.0,
        "tokens_per_s": 475.2,
        "flops": 1.12e12,
        "bytes_moved": 8.9e9,
        "products_flops_s": 3.4e11,
        "bandwidth_bytes_s": 2.1e10,
        "efficiency": 0.76,
        "bound": "arithmetic",
        "source": "measured on this machine, at 76% of its matrix products",
    }
    return Pace(**{**values, **changes})


def plan(**changes: Any) -> PlanResult:
    """LoRA of the tickets task with a budget of 3 GB: it fits, and was measured."""
    values: dict[str, Any] = {
        "task": "tickets",
        "run": "runs/plan-001",
        "model": "smollm2-135m-instruct",
        "architecture": "LlamaForCausalLM, 134.5M parameters, 30 layers",
        "parameters": 134_515_008,
        "trainable_parameters": 4_884_480,
        "method": "lora",
        "settings": SETTINGS,
        "device": "AMD EPYC 9B14, 2 cores, 24 GiB",
        "device_source": "this machine",
        "verified": True,
        "seq": 398,
        "batch": 5,
        "terms": TICKETS,
        "notes": notes(),
        "peak_bytes": TICKETS.total,
        "peak_at": "backward, block 29",
        "moments": [
            Moment(stage="loading", peak_bytes=812 * MB),
            Moment(stage="forward", peak_bytes=1_318 * MB),
            Moment(stage="loss", peak_bytes=1_482 * MB),
            Moment(stage="backward", peak_bytes=TICKETS.total),
            Moment(stage="update", peak_bytes=786 * MB),
        ],
        "baseline_bytes": 352 * MB,
        "textbook_bytes": None,
        "rules": {"accelerate estimate-memory": 1_076 * MB, "16 bytes per parameter": 2_152 * MB},
        "step_s": 4.31,
        "total_s": 1724.0,
        "pace": pace(),
        "fits": True,
        "limit_bytes": 3 * GB,
        "limit_source": "budget.memory",
        "choice": {},
        "concessions": [
            concession("train.checkpointing: full", 398 * MB, 0.304),
            concession("train.checkpointing: selective", 228 * MB, 0.1),
            concession("train.tokens_per_step: 1024", 371 * MB, 0.042),
            concession("train.adapter.rank: 4", 31 * MB, 0.005, same_mathematics=False),
            concession("train.precision: fp32", -1_190 * MB, -0.03, fits=True),
        ],
        "frontier": frontier(),
        "smallest_bytes": 830 * MB,
        "parallel": None,
        "cost": Cost(
            hours=0.479, energy_kwh=0.041, price=0.06, currency="USD", per_hour=0.12, source="price list, 2 vCPU"
        ),
        "break_even": BreakEven(
            prompt_tokens_before=1041,
            prompt_tokens_after=602,
            price_per_million_tokens=0.15,
            training_price=0.06,
            requests=911.0,
            sentence="After 911 requests the shorter prompts (602 instead of 1,041 tokens) have repaid the training.",
        ),
        "measured": MeasuredPlan(
            peak_bytes=1_571 * MB,
            predicted_peak_bytes=TICKETS.total,
            error=-0.042,
            baseline_bytes=352 * MB,
            step_s=4.52,
            predicted_step_s=4.31,
            sentence="Predicted 1.52 GB, measured 1.57 GB: 4.2% under the bytes above the baseline.",
        ),
        "warnings": ["12 of 400 rows are longer than train.max_length and are dropped."],
        "sentence": "It fits: 1.52 GB of the 3.00 GB that budget.memory allows, in about 29 minutes.",
        "environment": environment(),
        "seconds": 3.4,
    }
    return PlanResult(**{**values, **changes})


def notes() -> list[TermNote]:
    counted = "counted: shapes of the configuration"
    return [
        TermNote(term="weights", formula="134,515,008 parameters × 2 bytes", source=counted),
        TermNote(term="adapters", formula="4,884,480 parameters × 4 bytes (float32)", source=counted),
        TermNote(term="gradients", formula="4,884,480 × 4 bytes", source=counted),
        TermNote(term="optimizer", formula="4,884,480 × 8 bytes: two moments of AdamW", source=counted),
        TermNote(term="activations", formula="30 layers × 1,990 tokens × 8,345 bytes a token and layer", source=TRACED),
        TermNote(term="attention", formula="1,990 tokens × 9 heads × 64 × 4 bytes × 9", source=TRACED),
        TermNote(term="loss", formula="769 targets × 49,152 words × 4 bytes", source=TRACED),
        TermNote(term="temporary", formula="the largest products of a block at the peak", source=TRACED),
        TermNote(
            term="overhead", formula="352 MB interpreter and imports + 4.5% of the rest", source="fitted: 8 cells"
        ),
    ]


def giant(**changes: Any) -> PlanResult:
    """405 billion parameters, all trained, on one consumer card: nothing fits."""
    values: dict[str, Any] = {
        "task": None,
        "run": None,
        "model": "meta-llama/Llama-3.1-405B-Instruct-with-a-name-that-goes-on-and-on-beyond-the-width-of-a-terminal",
        "architecture": "LlamaForCausalLM, 405.9B parameters, 126 layers",
        "parameters": 405_853_388_800,
        "trainable_parameters": 405_853_388_800,
        "method": "full",
        "settings": {"train.optimizer": "adamw", "train.checkpointing": "full", "train.precision": "bf16"},
        "device": "NVIDIA GeForce RTX 4090",
        "device_source": "NVIDIA Ada GPU architecture whitepaper, version 2.02, table 2",
        "verified": False,
        "seq": 131_072,
        "batch": 128,
        "terms": GIANT,
        "peak_bytes": GIANT.total,
        "peak_at": "update",
        "moments": [Moment(stage="loading", peak_bytes=812 * GB), Moment(stage="update", peak_bytes=GIANT.total)],
        "rules": {"16 bytes per parameter": 6_493_654_220_800, "weights × 1.2": 974_048_133_120},
        "step_s": 41_873.2,
        "total_s": None,
        "pace": pace(
            step_s=41_873.2, steps=None, total_s=None, flops=4.1e19, products_flops_s=1.65e14, tokens_per_s=400.7,
            efficiency=0.45, bandwidth_bytes_s=1.008e12, source="catalogue, at a stated efficiency of 45%",
        ),
        "fits": False,
        "limit_bytes": 24 * GB,
        "limit_source": "memory of the device",
        "concessions": [
            concession(
                "train.base: nf4, train.adapter.kind: lora, train.checkpointing: full, train.optimizer: adamw8bit",
                6_300 * GB, -0.38, peak_bytes=231_400 * MB, fits=False, same_mathematics=False,
            )
        ],
        "frontier": [],
        "smallest_bytes": 231_400 * MB,
        "cost": None,
        "break_even": None,
        "measured": None,
        "warnings": ["Predictions for this kind of device have not been held against measurements."],
        "sentence": "It does not fit: 6.6 TB of 24.0 GB; the smallest that was tried needs 231.4 GB.",
    }  # fmt: skip
    return plan(**{**values, **changes})


def inference(**changes: Any) -> PlanResult:
    """13 billion parameters that answer, in FP16."""
    terms = Terms(
        weights_bytes=26_031_738_880,
        activations_bytes=42 * MB,
        attention_bytes=84 * MB,
        loss_bytes=131_072_000,
        kv_cache_bytes=6_710_886_400,
        temporary_bytes=283_115_520,
        overhead_bytes=612 * MB,
    )
    values: dict[str, Any] = {
        "task": None,
        "run": None,
        "model": "llama-2-13b",
        "architecture": "LlamaForCausalLM, 13.0B parameters, 40 layers",
        "parameters": 13_015_869_440,
        "trainable_parameters": 0,
        "method": "inference",
        "settings": {},
        "device": "NVIDIA A100 80GB",
        "seq": 2048,
        "batch": 4,
        "terms": terms,
        "peak_bytes": terms.total,
        "peak_at": "prompt, block 39",
        "moments": [Moment(stage="prompt", peak_bytes=terms.total), Moment(stage="decode", peak_bytes=33_610 * MB)],
        "textbook_bytes": 31_238_086_656,
        "rules": {},
        "pace": pace(step_s=0.018, steps=None, total_s=None, tokens_per_s=222.0, bound="bandwidth"),
        "step_s": 0.018,
        "total_s": None,
        "limit_bytes": 80 * GB,
        "limit_source": "memory of the device",
        "concessions": [],
        "frontier": [],
        "cost": None,
        "break_even": None,
        "measured": None,
        "warnings": [],
        "sentence": "It fits: 33.9 GB of 80.0 GB.",
    }
    return plan(**{**values, **changes})


def sharded(**changes: Any) -> PlanResult:
    """Eight devices that share the weights."""
    parallel = Parallel(
        devices=8,
        strategy="fsdp",
        moved_bytes=42 * GB,
        network_bytes_s=450e9,
        network_s=0.093,
        arithmetic_s=0.61,
        bound="arithmetic",
        sentence="Each of 8 devices moves 42.0 GB in a step; the arithmetic sets the pace.",
    )
    return inference(**{"method": "full", "parallel": parallel, **changes})


def bare(**changes: Any) -> PlanResult:
    """The least that a plan can be: nothing known but a peak."""
    values: dict[str, Any] = {
        "task": None,
        "run": None,
        "settings": {},
        "notes": [],
        "moments": [],
        "rules": {},
        "total_s": None,
        "pace": pace(steps=None, total_s=None),
        "fits": None,
        "limit_bytes": None,
        "limit_source": "",
        "concessions": [],
        "frontier": [],
        "smallest_bytes": None,
        "cost": None,
        "break_even": None,
        "measured": None,
        "warnings": [],
        "sentence": "It needs 1.52 GB.",
    }
    return plan(**{**values, **changes})


def doctor(**changes: Any) -> DoctorResult:
    row = PrecisionRow(
        name="fp32", status="native", bits=32, exponent_bits=8, mantissa_bits=23, largest=3.4e38,
        smallest_normal=1.18e-38, epsilon=1.19e-7, products_flops_s=1.7e11, relative_speed=1.0, relative_bytes=1.0,
        practical="yes", note="",
    )  # fmt: skip
    absent = {"name": "fp8", "status": "absent", "bits": 8, "products_flops_s": None, "relative_speed": None}
    trial = PrecisionTrial(
        precision="bf16", loss=1.842, loss_change=0.003, kl=0.0011, agreement=0.993, largest_activation=3120.0,
        largest_at="model.layers.2.mlp", share_of_range=9e-36, not_finite=0, seconds=2.2, weights_bytes=269_030_016,
    )  # fmt: skip
    values: dict[str, Any] = {
        "processor": Processor(
            name="AMD EPYC 9B14", kind="cpu", cores=2, threads=2, instructions=["avx2", "avx512f"],
            memory_bytes=25_769_803_776, memory_free_bytes=20 * GB, bandwidth_bytes_s=2.1e10, kernels="native",
        ),
        "storage": [],
        "precisions": [row, row.model_copy(update={**absent, "practical": "no"})],
        "features": [],
        "task": "tickets",
        "run": None,
        "rows": 8,
        "trials": [trial, trial.model_copy(update={"precision": "fp16", "loss": None, "kl": None, "not_finite": 3})],
        "warnings": [Warned(rule="P1", text="fp16 overflows in model.layers.2.mlp.", fix="precision: bf16")],
        "recommendation": "bf16",
        "reasons": ["It is native here."],
        "sentence": "Work in bf16 here.",
        "environment": environment(),
        "seconds": 21.0,
    }  # fmt: skip
    return DoctorResult(**{**values, **changes})
