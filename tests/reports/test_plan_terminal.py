"""A plan in a terminal: 80 columns, bars to scale, every term, texts that do nothing, missing parts left out."""

from __future__ import annotations

import io
import re

import plan_samples
import pytest
import samples
from rich.cells import cell_len
from rich.console import Console, RenderableType

from luthier.ground import words
from luthier.ground.plan_result import TERMS, PlanResult, Terms
from luthier.reports.plan_words import LETTERS, bar_scale, parts_of, step_time, terms_of
from luthier.reports.terminal import train_view
from luthier.reports.terminal_plan import StackedBar, plan_view, whole_parts


def shown(view: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def flat(view: RenderableType, width: int = 80) -> str:
    return " ".join(shown(view, width).split())


PLANS: dict[str, PlanResult] = {
    "plan": plan_samples.plan(),
    "giant": plan_samples.giant(),
    "inference": plan_samples.inference(),
    "sharded": plan_samples.sharded(),
    "bare": plan_samples.bare(),
    "nothing": plan_samples.bare(terms=Terms(), peak_bytes=0, peak_at="", architecture="", device_source=""),
    "changed": plan_samples.plan(choice={"train.checkpointing": "full", "train.mlp_tile": None}),
    "long words": plan_samples.plan(model="m" * 300, sentence="s" * 300, warnings=["w" * 200], peak_at="p" * 120),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_plan_keeps_its_width(name: str, width: int) -> None:
    assert all(cell_len(line) <= width for line in shown(plan_view(PLANS[name]), width).splitlines())


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("width", [30, 78])
def test_the_bar_has_every_term_to_scale_and_fills_its_width(name: str, width: int) -> None:
    result = PLANS[name]
    bar = StackedBar(result).lines(width)[0].plain
    assert len(bar) == width
    terms = terms_of(result)
    assert "".join(cell for cell in bar if cell not in "█·") == "".join(term.letter for term in terms)
    scale, _ = bar_scale(result)
    filled = len(bar.rstrip("·"))
    assert abs(filled - width * result.terms.total / scale) <= max(1, len(terms))


@pytest.mark.parametrize("cells", [9, 10, 37, 78])
def test_parts_are_whole_in_proportion_and_sum_to_the_cells(cells: int) -> None:
    values = [800, 1, 1, 400, 7, 3, 90, 2, 600]
    parts = whole_parts(values, cells)
    assert sum(parts) == cells and min(parts) >= 1
    assert sorted(parts, reverse=True)[0] == parts[0]
    if cells == 78:
        assert parts[0] == pytest.approx(78 * 800 / sum(values), abs=3)


def test_lengths_keep_their_sum_and_their_least() -> None:
    lengths = parts_of([1e12, 1.0, 5e9, 3e11], 800.0, 2.5)
    assert sum(lengths) == pytest.approx(800.0) and min(lengths) == 2.5
    assert lengths[0] / lengths[3] == pytest.approx(1e12 / 3e11)
    assert parts_of([2.0, 1.0], 9.0, 1.0) == pytest.approx([6.0, 3.0])
    assert parts_of([], 9.0, 1.0) == []


def test_the_limit_stands_under_its_place() -> None:
    lines = [line.plain for line in StackedBar(plan_samples.plan()).lines(78)]
    assert lines[2].index("▲") == 77 and "limit 3.00 GB" in lines[2]
    assert lines[1].index("▲") == pytest.approx(78 * plan_samples.TICKETS.total / 3e9, abs=1)
    over = [line.plain for line in StackedBar(plan_samples.plan(limit_bytes=10**9, fits=False)).lines(78)]
    assert over[1].index("▲") == int(78 * 1e9 / plan_samples.TICKETS.total) and "peak 1.52 GB ▲" in over[1]


def test_a_limit_far_away_is_named_instead_of_pressing_the_bar_together() -> None:
    lines = StackedBar(plan_samples.plan(limit_bytes=80 * 10**9)).lines(78)
    assert "·" not in lines[0].plain and "52.6 times the bar" in lines[-1].plain


def test_letters_are_different() -> None:
    assert len(set(LETTERS.values())) == len(TERMS)


@pytest.mark.parametrize("name", PLANS)
def test_every_term_that_is_there_shows_with_bytes_and_share(name: str) -> None:
    result = PLANS[name]
    lines = shown(plan_view(result)).splitlines()
    for term in terms_of(result):
        line = next(line for line in lines if line.startswith(f"{term.letter}  {term.name}"))
        assert words.exact_size(term.number_bytes) in line and words.percent(term.share) in line
    gone = [LETTERS[key] for key in TERMS if not getattr(result.terms, f"{key}_bytes")]
    assert not [line for line in lines for letter in gone if line.startswith(f"{letter}  ")]


def test_the_answer_stands_first_and_the_numbers_follow() -> None:
    result = plan_samples.plan()
    output = flat(plan_view(result))
    assert output.startswith(result.sentence)
    wanted = ["1.52 GB of 3.00 GB (budget.memory), 1.48 GB to spare", "backward, block 29", "train.optimizer adamw"]
    wanted += ["28 min 44 s for 400 steps", "0.041 kWh", "0.06 USD, 0.12 an hour", "After 911 requests"]
    wanted += ["Nothing had to change to fit.", "predicted 1.52 GB, measured 1.57 GB", "−4.2 % of the bytes above"]
    wanted += ["+42 %", "12 of 400 rows", "lora r16 (chosen)", plan_samples.TRACED]
    assert [part for part in wanted if part not in output] == []
    rows = [line for line in shown(plan_view(result)).splitlines() if line.startswith("train.checkpointing: full")]
    assert all(part in rows[0] for part in ("1.12 GB", "−398 MB", "+30 %", "✓", "same mathematics"))
    assert "another algorithm" in output and "lora r4" not in output.split("frontier")[1].split("Predicted")[0]


def test_what_does_not_fit_says_by_how_much_and_what_would() -> None:
    output = flat(plan_view(plan_samples.giant()))
    assert "6.60 TB of 24.0 GB (memory of the device), 6.57 TB too much" in output
    assert "The smallest of all that was tried needs 231 GB." in output and "✗" in output
    assert "have not been verified" in output and "Nothing had to change" not in output


def test_changes_that_made_it_fit_are_named() -> None:
    output = flat(plan_view(PLANS["changed"]))
    assert "Changed to fit: train.checkpointing full, train.mlp_tile none." in output


def test_several_devices_and_inference_say_what_is_theirs() -> None:
    output = flat(plan_view(plan_samples.sharded()))
    assert "8, fsdp; the terms are those of one" in output and "42.0 GB at 450 GB/s: 93 ms" in output
    assert "textbook: weights + 20 % 31.2 GB" in flat(plan_view(plan_samples.inference()))


def test_what_is_not_known_is_left_out() -> None:
    output = shown(plan_view(plan_samples.bare()))
    for word in ("None", "break-even", "price", "energy", "whole run", "limit", "frontier", "rules", "fits", "! "):
        assert word not in output


def test_texts_are_not_markup_and_cannot_act() -> None:
    evil = "<b>[bold red]x[/bold red] [/] \x1b[2J\x07\u202e"
    result = plan_samples.plan(
        model=evil, sentence=evil, device=evil, warnings=[evil], peak_at=evil, settings={evil: evil},
        limit_source=evil,
        concessions=[plan_samples.concession(evil, 1, 0.1, settings={})],
        frontier=[plan_samples.point(evil, 1.0, 1.0), plan_samples.point("b", 2.0, 0.5)],
        rules={evil: 5}, notes=[plan_samples.notes()[0].model_copy(update={"formula": evil, "source": evil})],
    )  # fmt: skip
    output = shown(plan_view(result), width=200)
    assert output.count("<b>[bold red]x[/bold red] [/] ␛[2J␇") >= 10
    assert "\x1b" not in output and "\u202e" not in output and "\x07" not in output


def test_very_many_points_are_thinned_out_but_the_chosen_one_stays() -> None:
    points = [plan_samples.point(f"p{n:03d}", 1 + n / 100, 9 - n / 100, chosen=n == 33) for n in range(100)]
    output = shown(plan_view(plan_samples.plan(frontier=points)))
    assert (
        len(re.findall(r"^p\d\d\d ", output, re.MULTILINE)) <= 13
        and "p033 (chosen)" in output
        and "p000" in output
        and "p099" in output
    )


def test_output_is_the_same_each_time() -> None:
    assert shown(plan_view(plan_samples.plan())) == shown(plan_view(plan_samples.plan()))


def test_a_training_shows_predicted_and_measured_memory() -> None:
    training = samples.training(peak_bytes=1_570_000_000, predicted_peak_bytes=1_520_000_000)
    line = next(line for line in shown(train_view(training)).splitlines() if line.startswith("memory"))
    assert line.split(maxsplit=1)[1].rstrip() == "predicted 1.52 GB, measured 1.57 GB (−3.2 %)"
    assert "2.41 GB at most" in shown(train_view(samples.training()))
    unmeasured = shown(train_view(samples.training(peak_bytes=0, predicted_peak_bytes=10**9)))
    assert "predicted 1.00 GB, measured 0 B" in unmeasured


@pytest.mark.parametrize(
    ("duration_s", "wanted"),
    [
        (0.0, "0 ms"),
        (0.0123, "12.3 ms"),
        (0.9994, "999 ms"),
        (0.9999, "1.00 s"),
        (9.996, "10 s"),
        (125.0, "2 min 05 s"),
    ],
)
def test_steps_are_timed_finely(duration_s: float, wanted: str) -> None:
    assert step_time(duration_s) == wanted
