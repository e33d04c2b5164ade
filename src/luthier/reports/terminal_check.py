"""The data truth sheet in a terminal: rows, tokens, faults, repeats, and rows as the model sees them.

Prints nothing. What is learned of a row is coloured; the rest is dim.

    rich.console.Console().print(check_view(result))
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from luthier.ground.results import CheckResult, Duplicates, RowView, TurnCounts
from luthier.ground.words import count, many
from luthier.reports.terminal_parts import facts, plain_table, spaced, text
from luthier.reports.text import visible

_BLOCKS = " ▁▂▃▄▅▆▇█"


def check_view(result: CheckResult) -> RenderableType:
    """Return the whole truth sheet."""
    head = Text("The data is fit to train on.", "bold green") if result.ok else Text("The data says no.", "bold red")
    blocks: list[RenderableType] = [head]
    if result.reasons or result.warnings:
        reasons = [text(f"✗ {reason}", "red") for reason in result.reasons]
        blocks.append(Group(*reasons, *(text(f"! {warning}", "yellow") for warning in result.warnings)))
    blocks += [_rows(result), *([_sources(result)] if result.sources else []), _findings(result)]
    if result.faults:
        blocks.append(_faults(result))
    if result.views:
        blocks.append(text("Rows as the model sees them; what is learned is green:", "bold"))
        blocks += [row_view(view) for view in result.views]
    return spaced(blocks)


def row_view(view: RowView) -> RenderableType:
    """Return one row, decoded from its ids, with what is learned in colour."""
    head = text(f"{view.place}: {count(view.tokens)} tokens, {count(view.target_tokens)} learned", "dim")
    shown = Text.assemble(*((visible(part.text), "green" if part.trained else "dim") for part in view.segments))
    return Group(head, Padding(shown, (0, 0, 0, 2)))


def histogram_line(bins: list[tuple[int, int, int]]) -> str:
    """Return the rows in each bin as blocks: `64 ▁▃█▅▁ 320`."""
    if not bins:
        return ""
    most = max(rows for _, _, rows in bins) or 1
    blocks = "".join(_BLOCKS[0 if rows == 0 else max(1, round(8 * rows / most))] for _, _, rows in bins)
    return f"{bins[0][0]} {blocks} {bins[-1][1]}"


def _rows(result: CheckResult) -> Table:
    table = plain_table("split", "read", "refused", "cut", "dropped", "kept", "tokens", "target", "median")
    for split, rows in result.rows.items():
        tokens = result.tokens.get(split)
        table.add_row(
            text(split),
            text(count(rows.read)),
            text(count(rows.refused), "red" if rows.refused else ""),
            text(count(rows.cut), "yellow" if rows.cut else ""),
            text(count(rows.dropped), "yellow" if rows.dropped else ""),
            text(count(rows.kept)),
            text(count(tokens.total) if tokens else "–"),
            text(count(tokens.target) if tokens else "–"),
            text(count(tokens.quantiles["p50"]) if tokens and "p50" in tokens.quantiles else "–"),
        )
    return table


def _sources(result: CheckResult) -> Table:
    table = plain_table("source", "documents", "pieces", "tokens", "bytes", "in an epoch")
    whole = sum(source.epoch_tokens for source in result.sources) or 1
    for source in result.sources:
        share = f"{count(source.epoch_tokens)} ({source.epoch_tokens / whole:.0%})" if source.epoch_tokens else "–"
        more = "" if source.is_whole else "+"
        numbers = [count(source.documents) + more, count(source.pieces), count(source.tokens), count(source.bytes)]
        table.add_row(text(f"{source.source} ({source.split})"), *map(text, numbers), text(share))
    return table


def _findings(result: CheckResult) -> Table:
    lost = sum(rows.without_target for rows in result.rows.values())
    lengths = [(f"tokens, {split}", histogram_line(tokens.histogram)) for split, tokens in result.tokens.items()]
    return facts(
        [
            *lengths,
            *((f"labels, {split}", labels_line(counts)) for split, counts in result.labels.items() if counts),
            *((f"answers, {split}", line) for split, turns in result.turns.items() if (line := turns_line(turns))),
            *((f"repeats, {split}", _found(found)) for split, found in result.duplicates.items()),
            *((f"overlap, {pair}", _found(found)) for pair, found in result.overlap.items()),
            ("contradictions", many(len(result.conflicts), "pair") + " with the same input and another output"),
            ("without target", many(lost, "row")),
            *([] if result.labels else [("end token", _end_token(result))]),
            ("limit", f"{count(result.max_length)} tokens; longer rows: {result.on_long}"),
            ("rendered with", result.template),
        ]
    )


def labels_line(counts: dict[str, int]) -> str:
    """Return how many rows have each label: `card 40, loan 12`."""
    shown = [f"{label} {count(rows)}" for label, rows in counts.items()]
    more = f" and {len(shown) - 12} more labels" if len(shown) > 12 else ""
    return ", ".join(shown[:12]) + more


def turns_line(turns: TurnCounts) -> str:
    """Return what is not as usual about the answers of a split: `480, 20 of them not trained, 200 call tools`."""
    said = [
        (turns.untrained, f"{count(turns.untrained)} of them not trained"),
        (turns.calls, f"{count(turns.calls)} call tools"),
        (turns.with_tools, f"{many(turns.with_tools, 'row')} with tools"),
        (
            turns.weighted,
            f"{many(turns.weighted, 'row')} weighted ({turns.smallest_weight:g} to {turns.largest_weight:g})",
        ),
    ]
    told = [words for number, words in said if number]
    return ", ".join([count(turns.answers), *told]) if told else ""


def _end_token(result: CheckResult) -> str:
    return f"{result.end_token or 'none'}, {'trained' if result.end_token_trained else 'NOT trained'}"


def _found(found: Duplicates) -> str:
    return f"{count(found.exact)} exact, {count(found.near)} near"


def _faults(result: CheckResult) -> RenderableType:
    total = sum(result.fault_counts.values())
    kinds = ", ".join(f"{kind} {count(times)}" for kind, times in result.fault_counts.items())
    head = text(f"{many(total, 'fault')} ({kinds}); the first {len(result.faults)}:", "bold red")
    return Group(head, *(text(f"{fault.file}:{fault.line}: {fault.message}") for fault in result.faults))
