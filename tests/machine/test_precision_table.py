"""The precision table: formats as the standards have them, and the rule of "practical" on made-up machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
import torch

from luthier.ground.doctor_result import PrecisionRow
from luthier.machine.catalogue import PRECISIONS, find_device
from luthier.machine.instructions import precisions_of, precisions_of_nvidia
from luthier.machine.precisions import FORMATS, precision_table, preferred
from luthier.machine.speed import Speeds

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.float8_e4m3fn}


def table(native: tuple[str, ...], measured: Mapping[str, float | None]) -> dict[str, PrecisionRow]:
    found = Speeds({name: measured.get(name) for name in PRECISIONS}, 1e10, 2, "2026-01-01T00:00:00+00:00", "key")
    device = dataclasses.replace(find_device("Ryzen 9 7950X"), native=native)
    return {row.name: row for row in precision_table(found, device)}


def practical(native: tuple[str, ...], measured: Mapping[str, float | None]) -> dict[str, str]:
    return {name: row.practical for name, row in table(native, measured).items()}


@pytest.mark.parametrize("name", DTYPES)
def test_formats_are_those_of_pytorch(name: str) -> None:
    form, info = next(form for form in FORMATS if form.name == name), torch.finfo(DTYPES[name])
    assert (form.bits, form.largest, form.smallest_normal, form.epsilon) == (
        info.bits, info.max, info.smallest_normal, info.eps,
    )  # fmt: skip
    assert 1 + form.exponent_bits + form.mantissa_bits == form.bits


def test_the_table_has_every_precision_fp32_first() -> None:
    assert tuple(table(("fp32",), {"fp32": 1.0})) == PRECISIONS
    assert tuple(form.name for form in FORMATS) == PRECISIONS


def test_a_processor_with_avx512_bf16_and_vnni() -> None:
    """Zen 5 as measured: fp16 is emulated and slow, bf16 and int8 are native."""
    native = precisions_of({"avx2", "avx512f", "avx512_bf16", "avx512_vnni"})
    speeds = {"fp32": 220.0, "bf16": 1000.0, "fp16": 50.0, "fp8": 165.0, "int8": 1900.0, "int4": 350.0}
    rows = table(native, speeds)
    assert {name: row.status for name, row in rows.items()} == {
        "fp32": "native", "tf32": "absent", "bf16": "native", "fp16": "emulated", "fp8": "emulated", "int8": "native",
        "int4": "emulated",
    }  # fmt: skip
    assert {name: row.practical for name, row in rows.items()} == {
        "fp32": "yes", "tf32": "no", "bf16": "yes", "fp16": "no", "fp8": "only to save memory", "int8": "yes",
        "int4": "only to save memory",
    }  # fmt: skip
    assert rows["bf16"].relative_speed == pytest.approx(1000 / 220) and rows["bf16"].relative_bytes == 0.5
    assert "bf16 takes no more memory and is 20 times as fast" in rows["fp16"].note
    assert rows["tf32"].relative_bytes == 1.0 and rows["tf32"].products_flops_s is None


def test_an_old_processor_has_fp32_and_saves_memory_at_most() -> None:
    native = precisions_of({"avx2"})
    found = practical(native, {"fp32": 100.0, "bf16": 60.0, "fp16": 20.0, "int8": 40.0, "int4": 90.0})
    assert native == ("fp32",)
    assert found == {
        "fp32": "yes", "tf32": "no", "bf16": "only to save memory", "fp16": "no", "fp8": "no",
        "int8": "only to save memory", "int4": "only to save memory",
    }  # fmt: skip


def test_a_t4_computes_in_fp16_and_a_native_tf32_is_practical() -> None:
    t4 = practical(precisions_of_nvidia(7, 5), {"fp32": 8.0, "bf16": 3.0, "fp16": 60.0, "int8": 120.0})
    assert (t4["fp16"], t4["bf16"], t4["tf32"]) == ("yes", "only to save memory", "no")
    a100 = practical(precisions_of_nvidia(8, 0), {"fp32": 19.0, "tf32": 150.0, "bf16": 300.0, "fp16": 300.0})
    assert (a100["tf32"], a100["bf16"], a100["fp16"], a100["fp8"]) == ("yes", "yes", "yes", "no")


@pytest.mark.parametrize(("speed", "answer"), [(90.0, "yes"), (89.0, "only to save memory")])
def test_the_limit_of_the_rule_is_nine_tenths_of_fp32(speed: float, answer: str) -> None:
    assert practical(("fp32", "bf16"), {"fp32": 100.0, "bf16": speed})["bf16"] == answer


@pytest.mark.parametrize(("bf16", "answer"), [(21.9, "only to save memory"), (22.1, "no")])
def test_an_emulated_format_gives_way_to_one_that_is_a_tenth_faster(bf16: float, answer: str) -> None:
    assert practical(("fp32",), {"fp32": 100.0, "bf16": bf16, "fp16": 20.0})["fp16"] == answer


def test_units_without_a_product_in_pytorch_are_told_apart_from_no_units() -> None:
    rows = table(("fp32", "int8"), {"fp32": 100.0})
    assert rows["int8"].status == "native" and rows["int8"].practical == "no" and "PyTorch" in rows["int8"].note
    assert rows["fp8"].status == "absent" and "machine has none" in rows["fp8"].note


@pytest.mark.parametrize(
    ("native", "measured", "name"),
    [
        (("fp32", "bf16"), {"fp32": 200.0, "bf16": 900.0, "fp16": 50.0}, "bf16"),
        (("fp32",), {"fp32": 100.0, "bf16": 60.0}, "fp32"),
        (("fp32", "fp16"), {"fp32": 8.0, "bf16": 3.0, "fp16": 60.0}, "fp16"),
        (("fp32", "bf16", "fp16"), {"fp32": 19.0, "bf16": 300.0, "fp16": 310.0}, "bf16"),
        (("fp32", "bf16"), {"fp32": 100.0, "bf16": 105.0}, "fp32"),
    ],
)
def test_the_machine_alone_prefers_room_unless_another_is_clearly_faster(
    native: tuple[str, ...], measured: dict[str, float | None], name: str
) -> None:
    chosen, reasons = preferred(list(table(native, measured).values()))
    assert chosen == name and reasons[0].startswith(f"{name}: ")
    assert all(reason.endswith(".") for reason in reasons)
    assert len(reasons) == (3 if name == "fp32" else 2)  # each of 16 bits that was passed over


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((7, 5), {"fp32", "fp16", "int8", "int4"}),
        ((8, 0), {"fp32", "tf32", "bf16", "fp16", "int8", "int4"}),
        ((8, 9), {"fp32", "tf32", "bf16", "fp16", "fp8", "int8", "int4"}),
        ((9, 0), {"fp32", "tf32", "bf16", "fp16", "fp8", "int8"}),
        ((12, 0), {"fp32", "tf32", "bf16", "fp16", "fp8", "int8"}),
        ((6, 0), {"fp32"}),
    ],
)
def test_compute_capabilities_agree_with_the_catalogue(capability: tuple[int, int], expected: set[str]) -> None:
    assert set(precisions_of_nvidia(*capability)) == expected
    of = {(7, 5): "T4", (8, 0): "A100 80GB", (8, 9): "L4", (9, 0): "H100", (12, 0): "RTX 5090"}
    if capability in of:
        assert set(find_device(of[capability]).native) == expected


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"amx_bf16", "amx_int8", "avx512_fp16"}, ("fp32", "bf16", "fp16", "int8")),
        ({"avx_vnni"}, ("fp32", "int8")),
        ({"neon", "asimdhp", "asimddp", "bf16", "i8mm"}, ("fp32", "bf16", "fp16", "int8")),
        (set(), ("fp32",)),
    ],
)
def test_instructions_and_precisions(has: set[str], expected: tuple[str, ...]) -> None:
    assert precisions_of(has) == expected
