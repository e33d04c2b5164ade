"""The precision table: what each number format holds, whether this machine has arithmetic for it, and how fast it is.

Whether a precision is practical here follows one rule, `practical`:

- *yes*: the machine has arithmetic of its own for it, and it is at least 0.9 times as fast as fp32;
- *only to save memory*: it is slower than that or emulated, but a number takes fewer bytes than in fp32;
- *no*: anything else, and an emulated format where another one of no more bytes and no less range is at least 1.1 times
  as fast.

fp32 is always practical: everything is measured against it. What a precision does to a model's answers is not here.

    precision_table(speeds(), this_device())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from luthier.ground.doctor_result import PrecisionRow
from luthier.machine.catalogue import Device
from luthier.machine.speed import Speeds

Status = Literal["native", "emulated", "absent"]
Practical = Literal["yes", "only to save memory", "no"]

FAST_ENOUGH = 0.9  # of fp32's speed; a little less than 1, because speeds are measured to about a tenth
CLEARLY_FASTER = 1.1


@dataclass(frozen=True)
class Format:
    """How a number is written: sign, exponent and mantissa bits, and what follows from them."""

    name: str
    bits: int  # of arithmetic; TF32 is stored in 32
    exponent_bits: int
    mantissa_bits: int
    largest: float
    smallest_normal: float
    epsilon: float  # gap after 1
    stored_bits: int
    note: str

    @property
    def floating(self) -> bool:
        return self.exponent_bits > 0


# IEEE 754-2019 (fp32, fp16); Kalamkar et al. 2019 (bf16); NVIDIA A100 whitepaper (TF32); Micikevicius et al. 2022
# (fp8).
FORMATS = (
    Format("fp32", 32, 8, 23, (2 - 2**-23) * 2.0**127, 2.0**-126, 2.0**-23, 32, "the reference"),
    Format("tf32", 19, 8, 10, (2 - 2**-10) * 2.0**127, 2.0**-126, 2.0**-10, 32, "fp32 numbers, multiplied coarsely"),
    Format("bf16", 16, 8, 7, (2 - 2**-7) * 2.0**127, 2.0**-126, 2.0**-7, 16, "range of fp32, two to three digits"),
    Format("fp16", 16, 5, 10, 65504.0, 2.0**-14, 2.0**-10, 16, "three digits; overflows at 65,504"),
    Format("fp8", 8, 4, 3, 448.0, 2.0**-6, 2.0**-3, 8, "e4m3, up to 448; e5m2: 5 exponent bits, up to 57,344"),
    Format("int8", 8, 0, 7, 127.0, 1.0, 1.0, 8, "whole numbers times a scale"),
    Format("int4", 4, 0, 3, 7.0, 1.0, 1.0, 4, "whole numbers times a scale for each group"),
)


def precision_table(speeds: Speeds, device: Device) -> list[PrecisionRow]:
    """Return one row for each precision, fp32 first, with what was measured on `device`."""
    return [_row(form, speeds.products_flops_s, device) for form in FORMATS]


def preferred(table: Sequence[PrecisionRow]) -> tuple[str, list[str]]:
    """Return the precision to work in as far as the machine alone can tell, and why, with numbers.

    It is the one with the most room among fp32, bf16 and fp16, unless a practical one is clearly faster.
    """
    rows = {row.name: row for row in table}
    best = rows["fp32"]
    for row in (rows["bf16"], rows["fp16"]):
        if row.practical == "yes" and _speed(row) >= CLEARLY_FASTER * _speed(best):
            best = row
    return best.name, [_in_favour(best), *(_against(row, best) for row in rows.values() if _is_rival(row, best))]


def _in_favour(best: PrecisionRow) -> str:
    if best.name == "fp32":
        return "fp32: no precision of 16 bits is practical and clearly faster here."
    return (
        f"{best.name}: {best.status}, {_speed(best):.2g} times the speed of fp32 in matrix products, and"
        f" {best.relative_bytes:.2g} of its bytes."
    )


def _is_rival(row: PrecisionRow, best: PrecisionRow) -> bool:
    return row.name in ("bf16", "fp16") and row.name != best.name


def _against(row: PrecisionRow, best: PrecisionRow) -> str:
    if row.practical == "yes":
        return f"{row.name} is not taken: {best.name} has more room and is about as fast."
    why = row.note.rpartition(". ")[2]
    return f"{row.name} is not taken: {why[0].lower()}{why[1:]}."


def _speed(row: PrecisionRow) -> float:
    return row.relative_speed or 0.0


def _row(form: Format, measured: Mapping[str, float | None], device: Device) -> PrecisionRow:
    speed, reference = measured.get(form.name), measured.get("fp32")
    status = status_of(form.name, measured, device.native)
    answer, why = practical(form, status, measured)
    return PrecisionRow(
        name=form.name,
        status=status,
        bits=form.bits,
        exponent_bits=form.exponent_bits,
        mantissa_bits=form.mantissa_bits,
        largest=form.largest,
        smallest_normal=form.smallest_normal,
        epsilon=form.epsilon,
        products_flops_s=speed,
        relative_speed=speed / reference if speed and reference else None,
        relative_bytes=form.stored_bits / 32,
        practical=answer,
        note=f"{form.note}. {why[0].upper()}{why[1:]}" if why else form.note,
    )


def status_of(name: str, measured: Mapping[str, float | None], native: tuple[str, ...]) -> Status:
    """Return whether the machine has arithmetic of its own, does it by way of another precision, or not at all."""
    if name in native:
        return "native"
    return "emulated" if measured.get(name) else "absent"


def practical(form: Format, status: Status, measured: Mapping[str, float | None]) -> tuple[Practical, str]:
    """Apply the rule of this module's head; return the answer and the reason, in a few words."""
    speed, reference = measured.get(form.name), measured.get("fp32")
    if form.name == "fp32":
        return "yes", ""
    if not speed or not reference:
        return "no", "this PyTorch has no product for it here" if status == "native" else "this machine has none"
    share = speed / reference
    if status == "native" and share >= FAST_ENOUGH:
        return "yes", ""
    if form.stored_bits >= 32:
        return "no", f"{share:.2g} times the speed of fp32, and no smaller"
    if status == "native":
        return "only to save memory", f"only {share:.2g} times the speed of fp32"
    if (better := _better(form, measured)) is not None:
        return "no", f"emulated; {better[0]} takes no more memory and is {better[1]:.2g} times as fast"
    return "only to save memory", "unpacked to multiply, since the machine has no arithmetic for it"


def _better(form: Format, measured: Mapping[str, float | None]) -> tuple[str, float] | None:
    """Return the fastest floating format of no more bytes and no less range, and how many times as fast it is."""
    speed = measured.get(form.name) or 0.0
    rivals = {
        other.name: (measured.get(other.name) or 0.0) / speed
        for other in FORMATS
        if other.name != form.name and form.floating and other.floating
        if other.stored_bits <= form.stored_bits and other.exponent_bits >= form.exponent_bits
    }
    name = max(rivals, key=lambda each: rivals[each], default=None)
    return (name, rivals[name]) if name is not None and rivals[name] >= CLEARLY_FASTER else None
