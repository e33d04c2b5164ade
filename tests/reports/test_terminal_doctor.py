"""The machine in a terminal: every figure of the result is shown, inside 80 columns, and texts cannot act."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from luthier.ground.doctor_result import (
    DoctorResult,
    Feature,
    PrecisionRow,
    PrecisionTrial,
    Processor,
    Storage,
    Warned,
)
from luthier.ground.results import Environment
from luthier.reports.terminal_doctor import doctor_view


def row(name: str, **changes: Any) -> PrecisionRow:
    values: dict[str, Any] = {
        "name": name, "status": "native", "bits": 16, "exponent_bits": 8, "mantissa_bits": 7,
        "largest": 3.3895313892515355e38, "smallest_normal": 1.1754943508222875e-38, "epsilon": 0.0078125,
        "products_flops_s": 1.0132e12, "relative_speed": 4.446, "relative_bytes": 0.5, "practical": "yes",
        "note": "range of fp32, two to three digits",
    }  # fmt: skip
    return PrecisionRow(**{**values, **changes})


def trial(precision: str, **changes: Any) -> PrecisionTrial:
    values: dict[str, Any] = {
        "precision": precision, "loss": 3.5353, "loss_change": 6.9e-4, "kl": 0.00166, "agreement": 0.946,
        "largest_activation": 24960.0, "largest_at": "model.layers.2.mlp", "share_of_range": 0.38, "not_finite": 0,
        "seconds": 2.5, "weights_bytes": 269_030_016,
    }  # fmt: skip
    return PrecisionTrial(**{**values, **changes})


def result(**changes: Any) -> DoctorResult:
    none = {"products_flops_s": None, "relative_speed": None, "practical": "no"}
    values: dict[str, Any] = {
        "processor": Processor(
            name="AMD EPYC", kind="cpu", cores=2, threads=1, instructions=["avx2", "avx512_bf16"],
            memory_bytes=25_276_510_208, memory_free_bytes=22_300_000_000, bandwidth_bytes_s=4.66e10, kernels="native",
        ),
        "storage": [Storage(what="cache", path="~/.cache/luthier", free_bytes=71_900_000_000)],
        "precisions": [
            row("fp32", epsilon=2.0**-23, products_flops_s=2.279e11, relative_speed=1.0, relative_bytes=1.0),
            row("bf16"),
            row("fp16", status="emulated", largest=65504.0, practical="no", note="overflows. Emulated"),
            row("fp8", status="emulated", largest=448.0, practical="only to save memory", relative_bytes=0.25),
            row("tf32", status="absent", note="", **none),
        ],
        "features": [
            Feature(name="native kernels", ready=False, needs="apt install g++", note="compiled once"),
            Feature(name="retrieval", ready=True, needs="", note="keyword and vector search"),
        ],
        "task": "tickets", "run": "runs/doctor-001", "rows": 16,
        "trials": [
            trial("fp32", loss_change=0.0, kl=0.0, agreement=1.0, share_of_range=7e-35),
            trial("bf16", loss_change=-6.9e-4),
            trial("fp16", loss=None, loss_change=None, kl=None, agreement=None, not_finite=1234, share_of_range=2.0),
        ],
        "warnings": [Warned(rule="P2", text="In fp16 1,234 values were infinite.", fix="use bf16 or fp32")],
        "recommendation": "bf16",
        "reasons": ["bf16: 4.4 times the speed of fp32.", "fp16 is not taken: values were infinite."],
        "sentence": "tickets: work in bf16: 4.4 times the speed of fp32; 1 warning below.",
        "environment": Environment(date="2026-11-24T12:00:00+00:00", machine="AMD EPYC, 2 cores", versions={
            "luthier": "0.1.0", "torch": "2.13.0"}),
        "seconds": 21.0,
    }  # fmt: skip
    return DoctorResult(**{**values, **changes})


def shown(view: DoctorResult, width: int = 80, colour: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colour, color_system="standard" if colour else None
    )
    console.print(doctor_view(view))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def line_of(output: str, first: str) -> list[str]:
    return next(line.split() for line in output.splitlines() if line.startswith(f"{first} "))


BARE = result(storage=[], precisions=[], features=[], task=None, run=None, rows=0, trials=[], warnings=[], reasons=[])


@pytest.mark.parametrize("view", [result(), BARE], ids=["all", "bare"])
@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_view_keeps_its_width(view: DoctorResult, width: int) -> None:
    assert all(cell_len(line) <= width for line in shown(view, width).splitlines())


def test_each_precision_has_its_line_of_figures() -> None:
    output = shown(result())
    assert line_of(output, "FP32") == ["FP32", "native", "3.4e38", "1.2e-7", "228", "1.00", "1", "yes"]
    assert line_of(output, "BF16") == ["BF16", "native", "3.4e38", "0.00781", "1,013", "4.45", "0.5", "yes"]
    assert line_of(output, "FP16")[:3] == ["FP16", "emulated", "65,504"] and line_of(output, "FP16")[-1] == "no"
    assert line_of(output, "FP8")[-3:] == ["to", "save", "memory"]
    assert line_of(output, "TF32") == ["TF32", "absent", "3.4e38", "0.00781", "–", "–", "0.5", "no"]


def test_each_trial_has_its_line_of_figures() -> None:
    output = shown(result())
    fp32 = line_of(output, "fp32")
    assert fp32 == ["fp32", "3.5353", "0", "0", "100.0%", "24,960", "–", "0", "2.5", "s", "269.0", "MB"]
    bf16 = line_of(output, "bf16")
    assert bf16[2:7] == ["−6.9e-4", "0.0017", "94.6%", "24,960", "38.0%"]
    fp16 = [line for line in output.splitlines() if line.startswith("fp16 ")][-1].split()
    assert fp16[1:5] == ["–", "–", "–", "–"] and "1,234" in fp16 and "200.0%" in fp16


def test_machine_features_warnings_and_reasons_are_all_there() -> None:
    output = shown(result())
    for words in (
        "AMD EPYC, 2 cores, 1 thread", "avx2, avx512_bf16", "25.3 GB, 22.3 GB free", "46.6 GB/s",
        "~/.cache/luthier, 71.9 GB free", "apt install g++", "keyword and vector search", "P2: In fp16 1,234 values",
        "use bf16 or fp32", "fp16 is not taken: values were infinite.", "tickets on 16 rows", "luthier 0.1.0",
        "2026-11-24, 21 s",
    ):  # fmt: skip
        assert words in output, words
    assert output.count("4.4 times the speed of fp32") == 1  # the sentence says the first reason already


def test_the_machine_alone_shows_no_parts_of_a_task() -> None:
    output = shown(BARE)
    assert "rows" not in output and "practical" not in output and "missing" not in output
    assert "The machine" in output


def test_markup_and_escapes_do_nothing() -> None:
    evil = "[bold red]x[/] \x1b[31mred"
    output = shown(result(task=evil, reasons=[f"why: {evil}"], sentence=evil), colour=False)
    assert "[bold red]x[/]" in output and "\x1b" not in output


def test_the_answer_is_yellow_with_warnings_and_green_without() -> None:
    assert shown(result(), colour=True).startswith("\x1b[1;33m")
    assert shown(result(warnings=[]), colour=True).startswith("\x1b[1;32m")
