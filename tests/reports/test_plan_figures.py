"""Pictures of a plan: read back to scale, every term there, no two words over each other, nothing outside."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import plan_samples
import pytest
import samples
from markupsafe import Markup
from test_figures import Node, at, of_class, parsed

from luthier.ground.plan_result import PlanResult
from luthier.reports.figures import NARROW, WIDE
from luthier.reports.plan_figures import frontier_figure, memory_bar, predicted_measured, unit_of
from luthier.reports.plan_words import terms_of

UNITS = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0}
PLANS: dict[str, PlanResult] = {
    "plan": plan_samples.plan(),
    "giant": plan_samples.giant(),
    "inference": plan_samples.inference(),
    "bare": plan_samples.bare(),
    "over": plan_samples.plan(limit_bytes=700_000_000, fits=False),
    "at the limit": plan_samples.plan(limit_bytes=plan_samples.TICKETS.total),
    "far limit": plan_samples.plan(limit_bytes=80 * 10**9, limit_source="memory of the device"),
}
BOTH = pytest.mark.parametrize("width", [WIDE, NARROW])


def bytes_at(root: Node) -> Callable[[float], float]:
    """The x axis of bytes, from the first and the last tick that stand in the middle of their place."""
    marks = [node for node in of_class(root, "text", "tick") if node.get("text-anchor") == "middle"]
    found = [(at(n, "x"), float((n.text or "").split()[0]) * UNITS[(n.text or "").split()[1]]) for n in marks]
    (x0, v0), (x1, v1) = ((1.0, 0.0) if len(found) < 2 else found[0]), found[-1]
    return lambda x: v0 + (x - x0) * (v1 - v0) / (x1 - x0)


def boxes(root: Node) -> list[tuple[float, float, float, float, str]]:
    sizes = {"tick": 11.5, "small": 12, "target-label": 12, "label": 14, "value": 16, "peak-label": 13}
    made = []
    for node in root.iter("text"):
        size = sizes[(node.get("class") or "").split()[0]]
        length = size * 0.5 * len(node.text or "")
        x = at(node, "x") - {"start": 0.0, "middle": length / 2, "end": length}[node.get("text-anchor", "start")]
        made.append((x, at(node, "y") - 0.7 * size, x + length, at(node, "y"), node.text or ""))
    return made


def assert_tidy(picture: Markup) -> None:
    root = parsed(picture)
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    for x0, y0, x1, y1, words in boxes(root):
        assert x0 >= -1 and x1 <= width + 8 and y0 >= 0 and y1 <= height, words
    for a, b in combinations(boxes(root), 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{a[4]} over {b[4]}"
    for node in root.iter("rect"):
        assert at(node, "x") >= 0 and at(node, "x") + at(node, "width") <= width + 0.01


@BOTH
@pytest.mark.parametrize("name", PLANS)
def test_the_bar_has_every_term_to_scale(name: str, width: float) -> None:
    result = PLANS[name]
    root = parsed(memory_bar(result, width))
    bars = [node for node in of_class(root, "rect", "term") if at(node, "height") > 20]
    terms = terms_of(result)
    assert [(node.get("class") or "").split()[1] for node in bars] == [term.key for term in terms]
    value = bytes_at(root)
    per_unit = value(2.0) - value(1.0)
    ends = [*(at(node, "x") for node in bars[1:]), at(of_class(root, "line", "peak")[0], "x1")]
    for term, bar, end in zip(terms, bars, ends, strict=True):
        drawn = end - at(bar, "x")
        assert drawn == pytest.approx(max(2.5, term.number_bytes / per_unit), abs=10), term.name
    assert value(ends[-1]) == pytest.approx(result.terms.total, rel=0.01)
    assert ends[-1] - at(bars[0], "x") == pytest.approx(sum(
        end - at(bar, "x") for bar, end in zip(bars, ends, strict=True)))  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", PLANS)
def test_every_term_is_named_once_with_its_bytes_and_nothing_overlaps(name: str, width: float) -> None:
    result = PLANS[name]
    picture = memory_bar(result, width)
    named = [text for node in parsed(picture).iter("text") if (text := node.text or "")]
    for term in terms_of(result):
        assert sum(text == term.name or text.startswith(f"{term.name} ") for text in named) == 1, term.name
    assert_tidy(picture)


def test_the_limit_is_a_line_where_it_belongs_or_is_told() -> None:
    root = parsed(memory_bar(plan_samples.plan()))
    assert bytes_at(root)(at(of_class(root, "line", "target")[0], "x1")) == pytest.approx(3e9, rel=0.01)
    far = parsed(memory_bar(PLANS["far limit"]))
    assert not of_class(far, "line", "target") and "52.6 times the bar" in "".join(far.itertext())
    assert not of_class(parsed(memory_bar(PLANS["bare"])), "line", "target")


@BOTH
def test_the_frontier_is_read_back(width: float) -> None:
    result = plan_samples.plan()
    root = parsed(frontier_figure(result, width))
    ticks = of_class(root, "text", "tick")
    left = [n for n in ticks if n.get("text-anchor") == "end"]
    below = [n for n in ticks if n.get("text-anchor") == "middle"]
    (y0, s0), (y1, s1) = ((at(n, "y") - 4, float(n.text or "")) for n in (left[0], left[-1]))
    (x0, g0), (x1, g1) = ((at(n, "x"), float(n.text or "")) for n in (below[0], below[-1]))
    drawn = sorted(
        (
            round(g0 + (at(n, "cx") - x0) * (g1 - g0) / (x1 - x0), 2),
            round(s0 + (at(n, "cy") - y0) * (s1 - s0) / (y1 - y0), 2),
        )
        for n in of_class(root, "circle", "dot")
    )
    wanted = sorted((point.peak_bytes / 1e9, point.step_s) for point in result.frontier)
    for found, truth in zip(drawn, wanted, strict=True):
        assert found == pytest.approx(truth, abs=0.011)
    line = of_class(root, "path", "frontier")[0].get("d") or ""
    assert line.count("L") == sum(point.on_frontier for point in result.frontier) - 1
    assert len(of_class(root, "circle", "open")) == sum(point.fits is False for point in result.frontier)
    ring, chosen = of_class(root, "circle", "ring")[0], of_class(root, "circle", "best")[0]
    assert (at(ring, "cx"), at(ring, "cy")) == (at(chosen, "cx"), at(chosen, "cy"))
    assert len(of_class(root, "line", "target")) == 1
    assert "lora r16" in [node.text for node in of_class(root, "text", "best")]


CROWD = [
    plan_samples.point(f"configuration {n}", 1 + n / 90, 9 - n / 20, chosen=n == 20, on_frontier=n % 3 > 0)
    for n in range(60)
]
WIDE_RANGE = [plan_samples.point("small", 0.2, 90.0, chosen=True), plan_samples.point("large", 40.0, 0.4)]


@BOTH
@pytest.mark.parametrize("points", [plan_samples.frontier(), CROWD, WIDE_RANGE, WIDE_RANGE[:1], WIDE_RANGE[:1] * 2])
@pytest.mark.parametrize("limit", [None, 3 * 10**9, 700_000_000, 80 * 10**9, 10**6])
def test_names_of_points_keep_clear_of_each_other(points: list[object], limit: int | None, width: float) -> None:
    assert_tidy(frontier_figure(plan_samples.plan(frontier=points, limit_bytes=limit), width))


def test_values_far_apart_get_logarithmic_axes() -> None:
    assert frontier_figure(plan_samples.plan(frontier=WIDE_RANGE)).count("log scale") == 2
    assert "log scale" not in frontier_figure(plan_samples.plan())


@BOTH
def test_predicted_and_measured_are_read_back(width: float) -> None:
    trainings = {
        "finetuned": samples.training("finetuned", predicted_peak_bytes=2_330_000_000),
        "finetuned + passages": samples.training(predicted_peak_bytes=1_200_000_000),
        "not predicted": samples.training(),
    }
    picture = predicted_measured(trainings, width)
    root = parsed(picture)
    rings, dots = of_class(root, "circle", "predicted")[:-1], of_class(root, "circle", "best")[:-1]
    assert len(rings) == len(dots) == 2
    value = bytes_at(root)
    for training, ring, dot in zip(trainings.values(), rings, dots, strict=False):
        assert value(at(ring, "cx")) == pytest.approx(training.predicted_peak_bytes, rel=0.02)
        assert value(at(dot, "cx")) == pytest.approx(training.peak_bytes, rel=0.02)
    assert "−3.3 %" in picture and "−50 %" in picture and "not predicted" not in picture
    assert_tidy(picture)
    assert predicted_measured({"a": samples.training()}) == ""


def test_hostile_names_stay_words() -> None:
    evil = '"><script>alert(1)</script>'
    result = plan_samples.plan(frontier=[plan_samples.point(evil, 1.0, 1.0, chosen=True)], limit_source=evil)
    training = samples.training(predicted_peak_bytes=10**9)
    for picture in (memory_bar(result), frontier_figure(result), predicted_measured({evil: training})):
        assert not list(parsed(picture).iter("script"))


def test_pictures_are_the_same_each_time() -> None:
    assert memory_bar(plan_samples.plan()) == memory_bar(plan_samples.plan())
    assert frontier_figure(plan_samples.plan()) == frontier_figure(plan_samples.plan())


def test_units_are_decimal() -> None:
    assert [unit_of(number)[1] for number in (1, 1e3, 5e8, 1e9, 6.6e12)] == ["B", "kB", "MB", "GB", "TB"]
