"""From the runs of all rounds to one row per peer: medians, ratios, and how far the loss curves lie apart.

Pure functions over the plain values of a result file.

    rows = summarise(result)
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

TOLERANCE = 0.02  # relative, per step: bfloat16 arithmetic in another order moves a loss by up to about a percent
REFERENCE = "luthier"


def summarise(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per peer, in the order in which they ran.

    Ratios are Luthier's median over the peer's (`faster`) and Luthier's peak over the peer's (`memory`). A peer that
    did not run has `failed`, the reason in one line. `exact_deviation` is the distance from the float32 curve.
    """
    names = list(dict.fromkeys(run["peer"] for run in result["runs"]))
    rows = {name: _row(name, [run for run in result["runs"] if run["peer"] == name]) for name in names}
    reference = rows.get(REFERENCE)
    for row in rows.values():
        if reference and "failed" not in reference and "failed" not in row:
            row["faster"] = reference["tokens_per_s"] / row["tokens_per_s"]
            row["memory"] = reference["peak_rss_bytes"] / row["peak_rss_bytes"]
            row["deviation"] = deviation(reference["losses"], row["losses"])
            row["beyond"] = row["deviation"] > TOLERANCE
    exact = rows.get(result.get("reference") or "", {})
    for row in rows.values():
        if "losses" in exact and "losses" in row and row is not exact:
            row["exact_deviation"] = deviation(exact["losses"], row["losses"])
            row["exact_beyond"] = row["exact_deviation"] > TOLERANCE
    return list(rows.values())


def speed(steps: Sequence[Mapping[str, Any]]) -> float:
    """Return real tokens per second without the first step (which warms up), or of the only step."""
    counted = steps[1:] or steps
    return sum(step["tokens"] for step in counted) / sum(step["seconds"] for step in counted)


def deviation(reference: Sequence[float], losses: Sequence[float]) -> float:
    """Return the largest relative distance of a loss curve from the reference, over the steps.

    >>> round(deviation([2.0, 1.0], [2.0, 1.01]), 4)
    0.01
    """
    return max(abs(loss - own) / abs(own) for own, loss in zip(reference, losses, strict=True))


def best_of(rows: Sequence[Mapping[str, Any]], *, patched: bool) -> str | None:
    """Return the name of TRL's fastest variant, among the patched or the unpatched ones."""
    fit = [
        row
        for row in rows
        if row["peer"].split("-")[0] == "trl" and "failed" not in row and (row["peer"].endswith("-patched") is patched)
    ]
    return max(fit, key=lambda row: row["tokens_per_s"])["peer"] if fit else None


def _row(name: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    done = [run for run in runs if "failed" not in run]
    if not done:
        return {"peer": name, "failed": runs[0]["failed"]}
    speeds = [speed(run["steps"]) for run in done]
    per_step = list(zip(*(run["steps"] for run in done), strict=True))
    norms = [step["grad_norm"] for run in done for step in run["steps"] if step["grad_norm"] is not None]
    row = {
        "peer": name,
        "rounds": len(done),
        "tokens_per_s": statistics.median(speeds),
        "slowest": min(speeds),
        "fastest": max(speeds),
        "whole_tokens_per_s": statistics.median(_whole(run["steps"]) for run in done),
        "first_step_s": statistics.median(run["steps"][0]["seconds"] for run in done),
        "load_s": statistics.median(run["load_s"] for run in done),
        "peak_rss_bytes": statistics.median(run["peak_rss_bytes"] for run in done),
        "rss_before_bytes": statistics.median(run["rss_before_bytes"] for run in done),
        "losses": [statistics.median(step["loss"] for step in steps) for steps in per_step],
        "grad_norms": [_median_or_none([step["grad_norm"] for step in steps]) for steps in per_step],
        "grad_norm": statistics.fmean(norms) if norms else None,
        "dtype": done[0]["dtype"],
        "versions": done[0]["versions"],
    }
    ceilings = [run["ceiling"] for run in done if run.get("ceiling")]
    if ceilings:
        keys = [key for key, value in ceilings[0].items() if isinstance(value, int | float)]
        row["ceiling"] = {key: statistics.median(ceiling[key] for ceiling in ceilings) for key in keys}
        row["ceiling"]["plain"] = ceilings[0]["plain"]
    return row


def _whole(steps: Sequence[Mapping[str, Any]]) -> float:
    return sum(step["tokens"] for step in steps) / sum(step["seconds"] for step in steps)


def _median_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
