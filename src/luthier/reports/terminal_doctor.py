"""The machine in a terminal: what it is, what it does in each precision, what is missing, and what a model did.

Prints nothing and computes nothing. Fits 80 columns.

    rich.console.Console().print(doctor_view(result))
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from luthier.ground.doctor_result import DoctorResult, Feature, PrecisionRow, PrecisionTrial, Warned
from luthier.ground.words import count, many, percent, seconds, size
from luthier.reports.terminal_parts import facts, plain_table, spaced, text

_PRACTICAL = {"yes": "green", "only to save memory": "yellow", "no": "dim"}
_STATUS = {"native": "", "emulated": "yellow", "absent": "dim"}
_SHORT = {"only to save memory": "to save memory"}
_VERSIONS = ("luthier", "python", "torch", "transformers")


def doctor_view(result: DoctorResult) -> RenderableType:
    """Return the answer with its reasons, the machine, the precision table, the trials, and what is missing."""
    warned = bool(result.warnings)
    blocks: list[RenderableType] = [text(result.sentence, "bold yellow" if warned else "bold green")]
    reasons = [reason for reason in result.reasons if reason.partition(": ")[2].rstrip(".") not in result.sentence]
    blocks += [Group(*(_point("·", reason) for reason in reasons))] if reasons else []
    blocks += [_warnings(result.warnings)] if warned else []
    blocks += [_titled(_tried(result), _trials(result.trials))] if result.trials else []
    blocks += [_titled("The machine", _machine(result))]
    blocks += [_titled("Precisions, measured here", _table(result.precisions))] if result.precisions else []
    blocks += [_notes(result.precisions)] if any(row.note for row in result.precisions) else []
    blocks += [_titled("What is ready, and what is missing", _features(result.features))] if result.features else []
    return spaced([*blocks, text(_made(result), "dim")])


def _titled(title: str, body: RenderableType) -> Group:
    return Group(text(title, "bold"), body)


def _point(sign: str, words: str, style: str = "") -> Table:
    """Return a sentence with a sign before it; what is folded stands under the words."""
    grid = Table.grid(padding=(0, 1))
    grid.add_row(text(sign, style or "dim"), text(words, style))
    return grid


def _warnings(warnings: Sequence[Warned]) -> Group:
    lines: list[RenderableType] = []
    for warned in warnings:
        lines.append(_point("!", f"{warned.rule}: {warned.text}", "yellow"))
        lines += [Padding(text(warned.fix, "cyan"), (0, 0, 0, 2))] if warned.fix else []
    return Group(*lines)


def _machine(result: DoctorResult) -> Table:
    processor = result.processor
    bandwidth = processor.bandwidth_bytes_s
    return facts(
        [
            ("processor", f"{processor.name}, {many(processor.cores, 'core')}, {many(processor.threads, 'thread')}"),
            ("instructions", ", ".join(processor.instructions)),
            ("kernels", processor.kernels),
            ("memory", f"{size(processor.memory_bytes)}, {size(processor.memory_free_bytes)} free"),
            ("bandwidth", f"{size(bandwidth)}/s, reading and writing" if bandwidth else ""),
            *((place.what, f"{place.path}, {size(place.free_bytes)} free") for place in result.storage),
        ]
    )


def _table(rows: Sequence[PrecisionRow]) -> Table:
    table = plain_table("format", "here", "largest", "step at 1", "GFLOP/s", "× fp32", "bytes", "practical")
    for column in (1, 7):
        table.columns[column].justify = "left"
    for row in rows:
        dim = "dim" if row.status == "absent" else ""
        table.add_row(
            text(row.name.upper(), dim or "bold"),
            text(row.status, _STATUS[row.status]),
            text(_short_number(row.largest), dim),
            text(_short_number(row.epsilon), dim),
            text("–" if row.products_flops_s is None else count(row.products_flops_s / 1e9), dim),
            text("–" if row.relative_speed is None else f"{row.relative_speed:.2f}", dim),
            text(f"{row.relative_bytes:g}", dim),
            text(_SHORT.get(row.practical, row.practical), _PRACTICAL[row.practical]),
        )
    return table


def _short_number(number: float) -> str:
    """Return `3.4e38`, `65,504`, `0.125`: whatever is short."""
    if number == 0 or 1e-3 <= number < 1e6:
        return f"{number:,.3g}" if number < 1000 else count(number)
    mantissa, exponent = f"{number:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _notes(rows: Sequence[PrecisionRow]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for row in rows:
        if row.note:
            grid.add_row(text(row.name.upper(), "dim"), text(row.note, "dim"))
    return grid


def _tried(result: DoctorResult) -> str:
    return f"{result.task} on {many(result.rows, 'row')}, in each precision"


def _trials(trials: Sequence[PrecisionTrial]) -> Table:
    heads = ("loss", "change", "KL", "agrees", "largest", "of range", "not finite", "time", "weights")
    table = plain_table("in", *heads)
    for trial in trials:
        bad = "red" if trial.not_finite or trial.loss is None else ""
        share = percent(trial.share_of_range)
        table.add_row(
            text(trial.precision, bad or "bold"),
            text("–" if trial.loss is None else f"{trial.loss:.4f}", bad),
            text("–" if trial.loss_change is None else _change(trial.loss_change)),
            text("–" if trial.kl is None else _brief(abs(trial.kl))),
            text("–" if trial.agreement is None else percent(trial.agreement)),
            text(_short_number(trial.largest_activation)),
            text("–" if share == percent(0.0) else share),
            text(count(trial.not_finite), bad or "dim"),
            text(seconds(trial.seconds)),
            text(size(trial.weights_bytes)),
        )
    return table


def _change(number: float) -> str:
    return ("−" if number < 0 else "+" if number > 0 else "") + _brief(abs(number))


def _brief(number: float) -> str:
    """Return two digits: `0.0017`, `3.0e-5`."""
    return f"{number:.2g}" if number == 0 or number >= 1e-3 else _short_number(number)


def _features(features: Sequence[Feature]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for feature in features:
        sign = Text("✓", "green") if feature.ready else Text("–", "yellow" if feature.needs else "dim")
        note = text(feature.note, "dim")
        if feature.needs:
            note = Text.assemble(note, ("  " if feature.note else ""), text(feature.needs, "cyan"))
        grid.add_row(sign, text(feature.name), note)
    return grid


def _made(result: DoctorResult) -> str:
    versions = result.environment.versions
    named = ", ".join(f"{name} {versions[name]}" for name in _VERSIONS if name in versions)
    return f"{named}; {result.environment.date[:10]}, {seconds(result.seconds)}"
