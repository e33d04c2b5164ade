"""Terminal views: the same figures, inside 80 columns, with texts that cannot act on the terminal."""

from __future__ import annotations

import io

import pytest
import samples
from rich.cells import cell_len
from rich.console import Console, RenderableType

from luthier.advice.rules import advise
from luthier.ground import words
from luthier.ground.results import Fault, Segment, TurnCounts
from luthier.reports.terminal import (
    advice_view,
    check_view,
    compare_view,
    index_view,
    prompt_view,
    search_view,
    start_view,
    train_view,
)
from luthier.reports.terminal_check import histogram_line, turns_line
from luthier.reports.terminal_parts import interval_bar, sparkline


def shown(view: RenderableType, width: int = 80, colour: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colour, color_system="standard" if colour else None
    )
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


VIEWS: dict[str, RenderableType] = {
    "compare": compare_view(samples.compare()),
    "compare, plain": compare_view(samples.plain_compare()),
    "compare, nothing": compare_view(samples.compare(systems=[], contrasts=[])),
    "advice": advice_view(advise(samples.compare(), None, task_file="examples/tickets/task.yaml")),
    "check": check_view(samples.check()),
    "check, bad": check_view(samples.bad_check()),
    "train": train_view(samples.training()),
    "train, short": train_view(samples.training(history=[], evals=[], dev_loss=None, predicted_peak_bytes=10**9)),
    "index": index_view(samples.index()),
    "search": search_view(samples.search()),
    "prompt": prompt_view(samples.prompt()),
    "start": start_view(samples.start()),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("width", [40, 80, 120])
def test_views_keep_their_width(name: str, width: int) -> None:
    assert all(cell_len(line) <= width for line in shown(VIEWS[name], width).splitlines())


def test_the_comparison_shows_the_figures_of_the_result() -> None:
    result = samples.compare()
    output = shown(compare_view(result))
    for system in result.systems:
        line = next(line for line in output.splitlines() if line.startswith(f"{system.title}  "))
        assert words.percent(system.score) in line and words.span(*system.interval) in line
        assert f"{system.n_failed}/{system.n_total}" in line
        assert words.percent(system.metrics["facts"].score) in output
        assert words.seconds(system.latency_s.p50) in output
    for contrast in result.contrasts:
        assert words.points_span(*contrast.interval) in output and contrast.verdict in output


def test_the_bar_is_drawn_to_scale() -> None:
    bar = interval_bar(0.2, 0.6, 0.4, target=0.9, width=11).plain
    assert bar == "··━━●━━··┊·"
    assert interval_bar(0.0, 0.0, 0.0, width=11).plain == "●" + "·" * 10
    assert interval_bar(1.0, 1.0, 1.0, width=11).plain == "·" * 10 + "●"


def test_markup_and_escapes_in_texts_do_nothing() -> None:
    evil = "[bold red]x[/bold red] [/] \x1b[2J\x07 \u202e"
    result = samples.compare(verdict=evil, systems=[samples.system("rag", 0.5, title=evil)], contrasts=[])
    for view in (
        compare_view(result),
        check_view(samples.check(faults=[Fault(file=evil, line=1, kind="k", message=evil)])),
    ):
        output = shown(view, width=120)
        assert "[bold red]x[/bold red] [/] ␛[2J␇" in output
        assert "\x1b" not in output and "\u202e" not in output
    assert "[bold]Tamsin[/bold]" in shown(search_view(samples.search()))


def test_what_is_learned_is_green_and_the_rest_is_not() -> None:
    view = samples.view(1).model_copy(
        update={"segments": [Segment(text="read", trained=False), Segment(text="learned", trained=True)]}
    )
    output = shown(check_view(samples.check(views=[view])), colour=True)
    assert "\x1b[32mlearned" in output and "\x1b[32mread" not in output and "read" in output


def test_the_check_says_yes_or_no_with_reasons() -> None:
    assert "fit to train on" in shown(check_view(samples.check()))
    output = shown(check_view(samples.bad_check()))
    assert "2 rows of train.jsonl cannot be read" in output and "train.jsonl:17" in output
    assert "9 exact, 5 near" in output and "NOT trained" not in output
    assert "NOT trained" in shown(check_view(samples.check(end_token_trained=False)))


def test_advice_names_rule_command_and_rejected_options() -> None:
    told = advise(samples.compare(), None, task_file="t.yaml")
    output = " ".join(shown(advice_view(told), width=200).split())
    assert output.startswith(f"Next: {told.next}")
    for piece in told.advice:
        assert piece.rule in output and (piece.command or "") in output
    assert all(option.option in output for option in told.rejected)


def test_sparkline_has_eight_heights_and_at_most_its_width() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5.0, 5.0]) == "▁▁" and sparkline([1.0]) == ""
    assert len(sparkline(list(range(1000)))) == 40


def test_histogram_line_shows_empty_bins_as_blanks() -> None:
    assert histogram_line([(0, 10, 8), (10, 20, 0), (20, 30, 4)]) == "0 █ ▄ 30"
    assert histogram_line([]) == ""


def test_only_what_is_unusual_about_answers_is_shown() -> None:
    assert turns_line(TurnCounts(answers=480)) == ""
    odd = TurnCounts(
        answers=480, untrained=2, calls=3, with_tools=1, weighted=2, smallest_weight=0.5, largest_weight=2.0
    )
    shown = "480, 2 of them not trained, 3 call tools, 1 row with tools, 2 rows weighted (0.5 to 2)"
    assert turns_line(odd) == shown
