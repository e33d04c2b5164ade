"""Results as small HTML tables, for notebooks. Wired to `_repr_html_` by the verbs; shows what stands in the result.

display(HTML(to_html(result)))
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from markupsafe import Markup

from luthier.ground.doctor_result import DoctorResult
from luthier.ground.plan_result import PlanResult
from luthier.ground.result import Result
from luthier.ground.results import (
    AdviceResult,
    CheckResult,
    CompareResult,
    PromptResult,
    SearchResult,
    TrainResult,
)
from luthier.ground.words import change, count, exact_size, percent, seconds, size, size_change, span
from luthier.reports.curves import loss_figure
from luthier.reports.figures import measures_of, part_title, scores_figure
from luthier.reports.plan_figures import frontier_figure, memory_bar
from luthier.reports.plan_words import (
    Facts,
    choice_facts,
    fits_sign,
    measured_facts,
    pace_facts,
    parallel_facts,
    rate,
    same_words,
    terms_of,
    what_facts,
)
from luthier.reports.svg import element
from luthier.reports.text import first_line


def to_html(result: Result) -> str:
    """Return a result as a small table, with a picture where there is one."""
    if isinstance(result, CompareResult):
        return _compare(result)
    if isinstance(result, TrainResult):
        return _framed(_table(("", ""), _scalars(result)), loss_figure(result) if result.history else Markup(""))
    if isinstance(result, AdviceResult):
        rows = [[piece.rule, piece.text, piece.command or ""] for piece in result.advice]
        return _framed(element("p", result.next), _table(("rule", "advice", "command"), rows))
    if isinstance(result, CheckResult):
        return _check(result)
    if isinstance(result, PromptResult):
        rows = [
            [first_line(a.instruction), count(a.examples), percent(a.score), span(*a.interval), "✓" if a.chosen else ""]
            for a in result.arms
        ]
        return _framed(_table(("instruction", "examples", "score", "interval", "chosen"), rows))
    if isinstance(result, SearchResult):
        rows = [[p.path, p.heading, first_line(p.text), f"{p.score:.4f}"] for p in result.passages]
        return _framed(_table(("document", "heading", "passage", "score"), rows))
    if isinstance(result, PlanResult):
        return _plan(result)
    if isinstance(result, DoctorResult):
        return _doctor(result)
    return _framed(_table(("", ""), _scalars(result)))


def _compare(result: CompareResult) -> str:
    parts = list(dict.fromkeys(name for system in result.systems for name in measures_of(system)))
    heads = ("system", "score", "interval", *map(part_title, parts), "failed", "median", "prompt tokens", "memory")
    rows = [
        [
            s.title,
            percent(s.score),
            span(*s.interval),
            *(percent(s.metrics[name].score) if name in s.metrics else "–" for name in parts),
            f"{s.n_failed} of {s.n_total}",
            seconds(s.latency_s.p50),
            count(s.prompt_tokens),
            size(s.peak_bytes),
        ]
        for s in result.systems
    ]
    picture = scores_figure(result) if result.systems else Markup("")
    return _framed(element("p", element("b", result.verdict)), picture, _table(heads, rows))


def _check(result: CheckResult) -> str:
    rows = [
        [
            split,
            count(r.read),
            count(r.refused),
            count(r.cut),
            count(r.dropped),
            count(r.kept),
            count(t.total),
            count(t.target),
        ]
        for split, r in result.rows.items()
        if (t := result.tokens.get(split)) is not None
    ]
    verdict = "fit to train on" if result.ok else "; ".join(["not fit to train on", *result.reasons])
    heads = ("split", "read", "refused", "cut", "dropped", "kept", "tokens", "target tokens")
    return _framed(element("p", element("b", verdict)), _table(heads, rows))


def _plan(result: PlanResult) -> str:
    terms = terms_of(result)
    bytes_of = [[term.name, exact_size(term.number_bytes), percent(term.share), term.formula] for term in terms]
    known = [[name, value] for name, value in _known(result) if value]
    options = [
        [
            option.option,
            exact_size(option.peak_bytes),
            size_change(option.bytes_change),
            change(option.step_change),
            fits_sign(option.fits),
            same_words(option),
        ]
        for option in result.concessions
    ]
    return _framed(
        element("p", element("b", result.sentence)),
        *(element("p", warning) for warning in result.warnings),
        memory_bar(result) if terms else Markup(""),
        _table(("term", "bytes", "share", "formula"), bytes_of),
        _table(("", ""), known),
        frontier_figure(result) if len(result.frontier) > 1 else Markup(""),
        _table(("change", "peak", "memory", "time", "fits", "result"), options) if options else Markup(""),
    )


def _known(result: PlanResult) -> Facts:
    planned = what_facts(result) + choice_facts(result) + pace_facts(result) + parallel_facts(result)
    return planned + [(f"measured: {name}", value) for name, value in measured_facts(result)]


def _doctor(result: DoctorResult) -> str:
    precisions = [
        [
            row.name,
            row.status,
            "–" if row.products_flops_s is None else rate(row.products_flops_s, "FLOP/s"),
            "–" if row.relative_speed is None else f"{row.relative_speed:.2f}",
            f"{row.relative_bytes:.2f}",
            row.practical,
            row.note,
        ]
        for row in result.precisions
    ]
    trials = [
        [trial.precision, _number(trial.loss), _number(trial.kl), f"{trial.largest_activation:.4g}", trial.largest_at]
        for trial in result.trials
    ]
    heads = ("precision", "here", "products", "speed against fp32", "bytes", "practical", "note")
    return _framed(
        element("p", element("b", result.sentence)),
        *(element("p", f"{warning.rule}: {warning.text} {warning.fix}") for warning in result.warnings),
        _table(heads, precisions),
        _table(("precision", "loss", "KL to fp32", "largest activation", "at"), trials) if trials else Markup(""),
    )


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _scalars(result: Result) -> list[list[str]]:
    """The fields of a result that are one value each."""
    values: dict[str, Any] = {name: getattr(result, name) for name in type(result).model_fields}
    return [[name, _short(value)] for name, value in values.items() if isinstance(value, str | int | float | bool)]


def _short(value: str | float) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return count(value) if isinstance(value, int) else f"{value:.4g}"


def _table(heads: tuple[str, ...], rows: list[list[str]]) -> Markup:
    head = Markup("").join(element("th", name) for name in heads)
    body = Markup("").join(element("tr", Markup("").join(element("td", value) for value in row)) for row in rows)
    shown = element("thead", element("tr", head)) if any(heads) else Markup("")
    return element("table", shown + element("tbody", body))


def _framed(*blocks: Markup) -> str:
    """Put blocks into one division; a picture brings its style along."""
    content = Markup("").join(blocks)
    if "<svg" in content:
        style = resources.files("luthier.reports").joinpath("figure.css").read_text(encoding="utf-8")
        content = Markup("<style>{}</style>").format(Markup(style.replace(":root", ".luthier"))) + content
    return str(element("div", content, class_="luthier", style="max-width: 900px"))
