"""Result files as tables: on the terminal, in Markdown, and between the marks of a README.

print(terminal_table(summarise(result)))
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.training.compare import TOLERANCE, summarise

HEAD = (
    "tool",
    "tokens/s (range)",
    "Luthier is faster by",
    "peak RSS",
    "Luthier needs",
    "loss, first → last",
    "off Luthier's curve",
    "off the fp32 curve",
    "gradient norm",
)


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row of the table as text."""
    if "failed" in row:
        return [row["peer"], row["failed"], *[""] * (len(HEAD) - 2)]
    own = row["peer"] == "luthier"
    off, exact = _off(row, "deviation", "beyond"), _off(row, "exact_deviation", "exact_beyond")
    return [
        row["peer"],
        f"{row['tokens_per_s']:.0f} ({row['slowest']:.0f}–{row['fastest']:.0f})",
        f"{row['faster']:.2f} ×" if "faster" in row and not own else "",
        f"{row['peak_rss_bytes'] / 1e9:.2f} GB",
        f"{row['memory']:.0%}" if "memory" in row and not own else "",
        f"{row['losses'][0]:.3f} → {row['losses'][-1]:.3f}",
        "" if own else off,
        exact,
        "" if row["grad_norm"] is None else f"{row['grad_norm']:.2f}",
    ]


def _off(row: Mapping[str, Any], distance: str, beyond: str) -> str:
    return f"{row[distance]:.2%}{' ⚠' if row[beyond] else ''}" if distance in row else ""


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [HEAD, ["---", *["---:"] * (len(HEAD) - 1)], *map(cells, rows)]
    return "\n".join("| " + " | ".join(text.replace("|", "/") for text in line) + " |" for line in lines)


def terminal_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows in columns."""
    lines = [list(HEAD), *map(cells, rows)]
    short = [line for line, row in zip(lines, [{}, *rows], strict=True) if "failed" not in row]
    widths = [max(len(line[column]) for line in short) for column in range(len(HEAD))]
    widths[0] = max(len(line[0]) for line in lines)
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def notes(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the sentences that stand under a table."""
    totals = result["totals"]
    said = [
        f"{totals['rows']} rows, {totals['tokens']:,} tokens ({totals['targets']:,} targets), {totals['shortest']} to "
        f"{totals['longest']} tokens a row; {len(result['steps'])} steps; {result['rounds']} rounds, medians.",
        f"Loss curves are compared step by step; ⚠ marks one more than {TOLERANCE:.0%} off somewhere.",
    ]
    if any("exact_deviation" in row for row in rows):
        said.append(f"The fp32 curve is that of {result['reference']}, which ran once.")
    ceiling = next((row["ceiling"] for row in rows if row.get("ceiling")), None)
    return [*said, _of_the_ceiling(ceiling)] if ceiling else said


def _of_the_ceiling(ceiling: Mapping[str, Any]) -> str:
    sentences = (
        f"Share of the ceiling: {ceiling['share']:.0%} of a step ",
        f"({ceiling['gemm_s']:.2f} of {ceiling['step_s']:.2f} s, ",
        f"{ceiling['tokens']:.0f} tokens, {ceiling['tokens_per_s']:.0f} tokens/s) is the time that its own ",
        f"{ceiling['products']:.0f} matrix products take alone, at {ceiling['gemm_gflops']:.0f} GFLOP/s. ",
        f"A plain product ({ceiling['plain']}) runs at {ceiling['plain_gflops']:.0f} GFLOP/s; at that speed ",
        f"they would take {ceiling['plain_share']:.0%} of the step. ",
        f"{ceiling['gemm_gflop']:.0f} GFLOP were replayed; the profiler sees {ceiling['profiled_gflop']:.0f}.",
    )
    return "".join(sentences)


def section(result: Mapping[str, Any]) -> str:
    """Return what a README shows of one result file."""
    rows = summarise(result)
    machine = result["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB"
    versions: dict[str, str] = {}
    for row in rows:
        for package, version in row.get("versions", {}).items():
            if version not in versions.setdefault(package, version).split(", "):
                versions[package] += f", {version}"
    parts = [
        f"`{result['command']}`, {result['date']}, {where}, model: {result['model_is']}.",
        markdown_table(rows),
        *notes(result, rows),
        "Versions: " + ", ".join(f"{package} {version}" for package, version in sorted(versions.items())) + ".",
    ]
    return "\n\n".join(parts)


def write_results(readme: str, results: Sequence[Mapping[str, Any]]) -> str:
    """Return the README with the results between their marks (`<!-- results: lora -->` … `<!-- end -->`).

    Raises:
        ValueError: the README has no place for a workload.
    """
    for result in results:
        name = result["workload"]
        pattern = re.compile(rf"(<!-- results: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(readme):
            raise ValueError(f'the README has no line "<!-- results: {name} -->" with an "<!-- end -->" after it')
        text = section(result)
        readme = pattern.sub(lambda found, text=text: f"{found[1]}\n{text}\n\n{found[2]}", readme)
    return readme
