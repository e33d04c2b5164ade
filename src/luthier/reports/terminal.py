"""What the verbs show in a terminal: rich renderables made of results. Prints nothing; the command line does.

Texts from models and data are shown as they are, never read as markup, and their control characters are made visible.
All views fit 80 columns.

    rich.console.Console().print(compare_view(result))
"""

from __future__ import annotations

import shlex

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from luthier.ground.results import (
    AdviceResult,
    CompareResult,
    IndexResult,
    PromptResult,
    SearchResult,
    StartResult,
    SystemResult,
    TrainResult,
)
from luthier.ground.words import (
    count,
    many,
    percent,
    points,
    points_span,
    probability,
    seconds,
    size,
    span,
)
from luthier.reports.classification_section import classification_view
from luthier.reports.context_section import context_view
from luthier.reports.figures import best_of, part_title, shown_parts, title_of
from luthier.reports.language_section import language_view
from luthier.reports.plan_words import memory_words
from luthier.reports.terminal_check import check_view
from luthier.reports.terminal_parts import BAR, facts, interval_bar, plain_table, spaced, sparkline, text
from luthier.reports.terminal_plan import plan_view
from luthier.reports.text import first_line

__all__ = [
    "advice_view",
    "check_view",
    "compare_view",
    "index_view",
    "plan_view",
    "prompt_view",
    "search_view",
    "start_view",
    "train_view",
]

_VERDICTS = {"better": "green", "worse": "red", "non-inferior": "blue", "no evidence": "dim"}


def compare_view(result: CompareResult) -> RenderableType:
    """Return the verdict, the scores with their intervals, what they cost, and the contrasts."""
    blocks: list[RenderableType] = [text(result.verdict, "bold")]
    if result.systems:
        blocks += [_scores(result), _costs(result)]
    if result.contrasts:
        blocks.append(_contrasts(result))
    if result.classification:
        blocks.append(classification_view(result.classification))
    if result.language:
        blocks.append(language_view(result.language))
    if result.context:
        blocks.append(context_view(result.context))
    notes = [f"{many(result.n_test, 'test item')}, {result.metric}, {100 * result.confidence:g}% intervals"]
    notes += [result.sampled] if result.sampled else []
    notes += [result.provenance.sentence]
    blocks.append(Group(*(text(note, "dim") for note in notes)))
    return spaced(blocks)


def advice_view(result: AdviceResult) -> RenderableType:
    """Return the next step, the advice with rules and commands, and what was not chosen."""
    table = plain_table("rule", "advice")
    for piece in result.advice:
        said = text(piece.text)
        if piece.command:
            said = Text("\n").join([said, text(piece.command, "cyan")])
        table.add_row(text(piece.rule, "yellow"), said)
    blocks: list[RenderableType] = [Text("Next: ", "bold yellow") + text(result.next, "bold")]
    if result.advice:
        blocks.append(table)
    if result.rejected:
        rejected = plain_table("not chosen", "why")
        for option in result.rejected:
            rejected.add_row(text(option.option), text(option.reason, "dim"))
        blocks.append(rejected)
    return spaced(blocks)


def train_view(result: TrainResult) -> RenderableType:
    """Return how a training went."""
    losses = [record.loss for record in result.history]
    dev = "" if result.dev_loss is None else f", dev {result.dev_loss:.3f}"
    share = 100 * result.trainable_parameters / max(result.total_parameters, 1)
    return facts(
        [
            ("trained", f"{result.name}: {result.objective}, {result.adapter_kind}, {result.stopped}"),
            ("rows", f"{count(result.rows)}, {result.epochs:g} epochs, {many(result.steps, 'step')}"),
            ("tokens", f"{count(result.tokens)}, of them {count(result.target_tokens)} targets"),
            ("loss", f"train {result.train_loss:.3f}{dev}, best step {result.best_step}"),
            ("", sparkline(losses)),
            ("time", f"{seconds(result.seconds)}, {count(result.tokens_per_s)} tokens/s"),
            ("memory", memory_words(result)),
            ("parameters", f"{count(result.trainable_parameters)} of {count(result.total_parameters)} ({share:.1f}%)"),
            ("base", result.provenance.sentence),
            ("written", f"{result.adapter} ({size(result.adapter_bytes)})"),
        ]
    )


def index_view(result: IndexResult) -> RenderableType:
    """Return what was indexed, and what was left out."""
    changes = f"{count(result.added)} added, {count(result.changed)} changed, {count(result.removed)} removed"
    rows = [
        (
            "indexed",
            f"{many(result.documents, 'document')}, {many(result.chunks, 'passage')} in {seconds(result.seconds)}",
        ),
        ("changes", f"{changes}, {count(result.unchanged)} unchanged"),
        ("embedding", result.embedding or "none (keywords alone)"),
        ("rebuilt", result.rebuilt or ""),
        ("written", result.store),
        *(("left out", f"{file.file}: {file.reason}") for file in result.skipped),
    ]
    return facts(rows)


def search_view(result: SearchResult) -> RenderableType:
    """Return the passages that were found, best first, with their ranks by keyword and by vector."""
    head = f"{many(len(result.passages), 'passage')} for “{result.query}” ({result.method}, {seconds(result.seconds)})"
    blocks: list[RenderableType] = [text(head, "bold")]
    for number, passage in enumerate(result.passages, 1):
        ranks = [("keyword", passage.rank_keyword), ("vector", passage.rank_vector)]
        told = ", ".join(f"{name} {rank}" for name, rank in ranks if rank is not None)
        place = Text(f"{number}  ", "yellow") + text(f"{passage.path}  {passage.heading}", "bold")
        score = text(f"score {passage.score:.4f}" + (f" ({told})" if told else ""), "dim")
        blocks.append(Group(place, Padding(Group(score, text(passage.text)), (0, 0, 0, 3))))
    return spaced(blocks)


def prompt_view(result: PromptResult) -> RenderableType:
    """Return the prompts that were tried, and the one that was chosen."""
    table = plain_table("instruction", "examples", "score on dev", "partial", "tokens")
    for arm in result.arms:
        style = "bold yellow" if arm.chosen else ""
        table.add_row(
            text(first_line(arm.instruction, 60) or "(none)", style),
            text(count(arm.examples), style),
            text(f"{percent(arm.score)}\n{span(*arm.interval)}", style),
            text(percent(arm.graded), style),
            text(count(arm.prompt_tokens), style),
        )
    tried = (
        f"{many(len(result.arms), 'prompt')} tried on {many(result.dev_items, 'dev item')} in {seconds(result.seconds)}"
    )
    chosen = f"chosen, with {many(len(result.example_ids), 'worked example')}:"
    instruction = Padding(text(result.instruction or "(none)"), (0, 0, 0, 2))
    return spaced([text(tried, "bold"), table, Group(text(chosen, "dim"), instruction)])


def start_view(result: StartResult) -> RenderableType:
    """Return what was recognised, guessed and written."""
    rows = ", ".join(f"{split} {count(number)}" for split, number in result.rows.items())
    blocks: list[RenderableType] = [
        facts([("found", result.shape), ("rows", rows), ("written", ", ".join(result.written))]),
        text("Guessed; each guess stands in the file with its reason:", "bold"),
        facts(result.guesses.items()),
        text("Next: ", "bold yellow") + text(f"luthier check {shlex.quote(result.task_file)}", "cyan"),
    ]
    return spaced(blocks)


def _scores(result: CompareResult) -> Table:
    table = plain_table("system", "0%" + " " * (BAR - 6) + "100%", "score", "interval", "failed")
    best = best_of(result.systems)
    for system in result.systems:
        style = "bold yellow" if system.name == best else ""
        table.add_row(
            text(system.title, style),
            interval_bar(*system.interval, system.score, result.target, style),
            text(percent(system.score), style),
            text(span(*system.interval)),
            text(f"{system.n_failed}/{system.n_total}", "red" if system.n_failed else "dim"),
        )
    return table


def _costs(result: CompareResult) -> Table:
    parts = shown_parts(result.systems)
    table = plain_table(
        "system", *(part_title(name) for name in parts), "median", "p95", "tokens", "memory", "training"
    )
    for system in result.systems:
        table.add_row(
            text(system.title),
            *(text(percent(system.metrics[name].score)) for name in parts),
            text(seconds(system.latency_s.p50)),
            text(seconds(system.latency_s.p95)),
            text(count(system.prompt_tokens + system.output_tokens)),
            text(size(system.peak_bytes) if system.peak_bytes else "–"),
            text(_training_time(system)),
        )
    return table


def _training_time(system: SystemResult) -> str:
    return "–" if system.train_seconds is None else seconds(system.train_seconds)


def _contrasts(result: CompareResult) -> Table:
    table = plain_table("contrast", "points", "interval", "Holm p", "verdict")
    for c in result.contrasts:
        style = _VERDICTS.get(c.verdict, "")
        table.add_row(
            text(f"{title_of(result, c.a)} − {title_of(result, c.b)}"),
            text(points(c.difference).removesuffix(" points"), style),
            text(points_span(*c.interval)),
            text(probability(c.p_holm)),
            text(c.verdict, style),
        )
    return table
