"""The report: one HTML file that loads nothing, made of a comparison and the advice on it.

Every text is escaped by the template; no script is in the page, and its policy forbids any. Computes no figure.

    write_page(Path("runs/tickets/report.html"), result, advise(result, None, task_file="task.yaml"))
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from luthier.ground import words
from luthier.ground.files import write_whole
from luthier.ground.plan_result import PlanResult
from luthier.ground.results import AdviceResult, CheckResult, CompareResult, ItemExample, Pair, ReportResult
from luthier.reports import plan_words
from luthier.reports.classification_section import classification_section
from luthier.reports.context_section import context_section
from luthier.reports.curves import learning_figure, length_figure, loss_figure
from luthier.reports.figures import (
    best_of,
    both_widths,
    contrasts_figure,
    latency_figure,
    measures_of,
    part_title,
    scores_figure,
    title_of,
    tokens_figure,
)
from luthier.reports.language_section import language_section
from luthier.reports.plan_figures import frontier_figure, memory_bar, predicted_measured
from luthier.reports.section import KindSection
from luthier.reports.sentences import (
    check_sentence,
    contrasts_sentence,
    examples_sentence,
    method_sentences,
    metric_sentence,
    prompt_sentence,
)
from luthier.reports.text import first_line, visible

_PLAN_WORDS: tuple[Callable[..., Any], ...] = (
    words.change, words.exact_size, words.size_change,
    plan_words.against, plan_words.choice_facts, plan_words.fits_sign, plan_words.measured_facts,
    plan_words.memory_words, plan_words.pace_facts, plan_words.parallel_facts, plan_words.rules_of,
    plan_words.same_words, plan_words.shown_points, plan_words.step_time, plan_words.terms_of, plan_words.what_facts,
)  # fmt: skip
_OF_KINDS: tuple[Callable[[CompareResult], KindSection | None], ...] = (
    classification_section,
    context_section,
    language_section,
)
_SHOWN_PARTS = (
    5  # columns of the score table beside the score; a metric with more parts shows these and the JSON has all
)


def write_page(path: Path, result: CompareResult, advice: AdviceResult, plan: PlanResult | None = None) -> ReportResult:
    """Write the report to `path`, whole or not at all, and return where it is."""
    content = page_html(result, advice, plan).encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    return ReportResult(page=str(path), bytes=len(content), verdict=result.verdict)


def page_html(result: CompareResult, advice: AdviceResult, plan: PlanResult | None = None) -> str:
    """Return the report as one HTML document; with a plan, it says what training needs."""
    style = _resource("figure.css") + _resource("page.css")
    parts = _part_titles(result)
    return _template().render(
        result=result,
        advice=advice,
        plan=plan,
        first_command=advice.advice[0].command if advice.advice else None,
        policy=_policy(style),
        style=Markup(style),
        tiles=_tiles(result),
        contents=_contents(result, advice, plan),
        figures=_figures(result, plan),
        kind_sections=_kind_sections(result),
        best=best_of(result.systems),
        part_titles=parts,
        priced=any(system.cost is not None for system in result.systems),
        causes=_causes(result),
        pairs=_pairs(result.check),
        versions=", ".join(f"{name} {version}" for name, version in result.environment.versions.items()),
        title_of=lambda name: title_of(result, name),
        mark_of=_mark_of,
        sign_of=_sign_of,
        word_of=_word_of,
        metric_sentence=metric_sentence(result),
        contrasts_sentence=contrasts_sentence(result),
        examples_sentence=examples_sentence(result),
        check_sentence=check_sentence(result.check) if result.check else "",
        prompt_sentence=prompt_sentence(result.prompt) if result.prompt else "",
        method=method_sentences(result),
    )


@dataclass(frozen=True)
class Tile:
    """A figure that stands large at the head of the page."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Section:
    """An entry of the list of contents."""

    id: str
    title: str


def _kind_sections(result: CompareResult) -> list[KindSection]:
    """Return the sections that only tasks of one kind have."""
    return [section for make in _OF_KINDS if (section := make(result)) is not None]


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plain = (words.count, words.percent, words.points, words.distance, words.seconds, words.size, words.probability)
    filters: dict[str, Callable[..., str]] = {function.__name__: function for function in plain}
    filters |= {
        "span": lambda ends: words.span(*ends),
        "points_span": lambda ends: words.points_span(*ends),
        "first_line": first_line,
    }
    environment.filters.update(filters)
    environment.filters.update({function.__name__: function for function in _PLAN_WORDS})
    return environment.get_template("page.html.j2")


def _resource(name: str) -> str:
    return resources.files("luthier.reports").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str) -> str:
    """Return a content security policy under which nothing loads, nothing runs, and only this style applies."""
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _figures(result: CompareResult, plan: PlanResult | None) -> dict[str, Any]:
    check = result.check
    train = check.tokens.get("train") if check else None
    return {
        "scores": both_widths(lambda width: scores_figure(result, width)) if result.systems else "",
        "contrasts": both_widths(lambda width: contrasts_figure(result, width)) if result.contrasts else "",
        "latency": latency_figure(result) if result.systems else "",
        "tokens": tokens_figure(result) if result.systems else "",
        "losses": {name: loss_figure(training) for name, training in result.training.items() if training.history},
        "learning": learning_figure(result) if len(result.curve) > 1 else "",
        "measured": _measured(result),
        "memory": both_widths(lambda width: memory_bar(plan, width)) if plan and plan.terms.total else "",
        "frontier": both_widths(lambda width: frontier_figure(plan, width)) if plan and len(plan.frontier) > 1 else "",
        "lengths": length_figure("train", train, check.max_length) if check and train and train.histogram else "",
    }


def _measured(result: CompareResult) -> Markup:
    named = {title_of(result, name): training for name, training in result.training.items()}
    if not any(plan_words.prediction_error(training) is not None for training in named.values()):
        return Markup("")
    return both_widths(lambda width: predicted_measured(named, width))


def _tiles(result: CompareResult) -> list[Tile]:
    best = next((system for system in result.systems if system.name == best_of(result.systems)), None)
    if best is None:
        return []
    tiles = [
        Tile("best score", words.percent(best.score), f"{best.title}, {words.span(*best.interval)}"),
        Tile(
            "test items", words.count(result.n_test), f"{words.count(best.n_failed)} failed answers of the best system"
        ),
        Tile(
            "an answer", words.seconds(best.latency_s.p50), f"median; {words.count(best.prompt_tokens)} prompt tokens"
        ),
    ]
    if best.train_seconds is not None:
        tiles.append(Tile("training", words.seconds(best.train_seconds), f"on {words.many(result.n_train, 'example')}"))
    else:
        tiles.append(Tile("peak memory", words.size(best.peak_bytes), "while answering"))
    return tiles


def _contents(result: CompareResult, advice: AdviceResult, plan: PlanResult | None) -> list[Section]:
    sections = [
        (result.systems, "scores", "Scores"),
        (result.contrasts, "contrasts", "What is shown"),
        *((True, section.id, section.title) for section in _kind_sections(result)),
        (advice.advice or advice.rejected, "advice", "Advice"),
        (result.systems, "cost", "Cost"),
        (plan, "needs", "What it needs"),
        (result.training or result.curve, "training", "Training"),
        (result.examples, "examples", "Examples"),
        (result.check, "data", "Data"),
        (result.prompt, "prompt", "Prompt"),
        (True, "method", "Method"),
    ]
    return [Section(name, title) for present, name, title in sections if present]


def _part_titles(result: CompareResult) -> dict[str, str]:
    """The parts of the metric that get a column, and their heads: what any system has beside its score."""
    names = dict.fromkeys(name for system in result.systems for name in measures_of(system))
    order = [name for name in ("form", "facts") if name in names]
    rest = [name for name in names if name not in order and not ("form" in order and name in ("valid", "parse"))]
    return {name: part_title(name) for name in [*order, *rest][:_SHOWN_PARTS]}


def _causes(result: CompareResult) -> list[str]:
    """The causes of wrong answers over all systems, the commonest first."""
    total: Counter[str] = Counter()
    for system in result.systems:
        total.update(system.causes)
    return [cause for cause, _ in total.most_common()]


def _pairs(check: CheckResult | None) -> list[tuple[str, Pair]]:
    if check is None:
        return []
    repeats = [(f"repeats in {split}", pair) for split, found in check.duplicates.items() for pair in found.pairs]
    overlaps = [(f"overlap of {name}", pair) for name, found in check.overlap.items() for pair in found.pairs]
    return [*overlaps, *repeats, *(("other output", pair) for pair in check.conflicts)][:40]


def _mark_of(example: ItemExample, name: str) -> str:
    score = example.scores.get(name, 0.0)
    return "right" if score >= 1 else "wrong" if score <= 0 else "partial"


def _sign_of(example: ItemExample, name: str) -> str:
    mark = _mark_of(example, name)
    return {"right": "✓", "wrong": "✗"}.get(mark, f"{100 * example.scores.get(name, 0.0):.0f}")


def _word_of(example: ItemExample, name: str) -> str:
    mark = _mark_of(example, name)
    return mark if mark != "partial" else words.percent(example.scores[name])
