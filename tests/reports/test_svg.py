"""Axes, ticks, and labels that keep apart."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from luthier.reports.svg import Axis, Box, Canvas, element, log_ticks, place_labels, shortened, spread, ticks

numbers = st.floats(-1e6, 1e6, allow_nan=False)


def test_element_escapes_content_and_attributes() -> None:
    made = element("text", "</text><script>", class_='"><script>')
    node = ElementTree.fromstring(made)
    assert node.text == "</text><script>" and node.get("class") == '"><script>'


def test_element_keeps_markup_and_drops_none() -> None:
    assert element("g", Markup("<b>x</b>"), id=None, stroke_width=2.0) == '<g stroke-width="2"><b>x</b></g>'


@given(low=numbers, high=numbers)
def test_ticks_cover_the_range_with_equal_round_steps(low: float, high: float) -> None:
    if not high - low > 1e-6 * max(abs(low), abs(high), 1e-6):
        return
    marks = ticks(low, high)
    step = marks[1] - marks[0]
    assert marks[0] <= low + 1e-6 * step and marks[-1] >= high - 1e-6 * step
    assert 2 <= len(marks) <= 9
    assert all(b - a == pytest.approx(step, rel=1e-6) for a, b in pairwise(marks))


def test_ticks_of_an_empty_range_are_still_a_range() -> None:
    assert len(ticks(0.0, 0.0)) > 1 and len(ticks(3.0, 3.0)) > 1


def test_log_ticks() -> None:
    assert log_ticks(0.3, 30.0) == [0.5, 1, 2, 5, 10, 20]
    assert log_ticks(2.1, 2.9) == [2.1, 2.9]


def test_axis_is_linear_or_logarithmic_and_stays_inside() -> None:
    assert Axis(0, 10, 100, 200)(2.5) == 125
    assert Axis(1, 100, 0, 100, log=True)(10) == pytest.approx(50)
    assert Axis(0, 1, 0, 100)(7) == 100 and Axis(0, 1, 0, 100)(-7) == 0
    assert Axis(3, 3, 0, 100)(3) == 50


@given(st.lists(st.floats(0, 100), max_size=6))
def test_spread_keeps_order_and_gap_inside_the_bounds(positions: list[float]) -> None:
    moved = spread(positions, 15, 0, 100)
    ordered = [moved[index] for index in sorted(range(len(positions)), key=lambda index: positions[index])]
    assert all(b - a >= 15 - 1e-9 for a, b in pairwise(ordered))
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in moved)


def test_spread_leaves_alone_what_is_apart() -> None:
    assert spread([80.0, 20.0, 50.0], 15, 0, 100) == [80.0, 20.0, 50.0]


@given(st.lists(st.tuples(st.floats(40, 360), st.floats(20, 230)), min_size=1, max_size=5, unique=True))
def test_labels_stay_inside_and_apart(points: list[tuple[float, float]]) -> None:
    bounds = Box(0, 0, 400, 250)
    boxes = place_labels(points, [60.0] * len(points), 14, bounds)
    assert all(box.inside(bounds) for box in boxes)
    clear = place_labels(points[:1], [60.0], 14, bounds)[0]
    assert not clear.meets(Box(points[0][0] - 5, points[0][1] - 5, 10, 10))


def test_labels_of_a_row_of_points_do_not_meet() -> None:
    points = [(60.0 + 70 * k, 200.0) for k in range(5)]
    boxes = place_labels(points, [110.0] * 5, 14, Box(0, 0, 430, 240))
    assert not any(a.meets(b) for place, a in enumerate(boxes) for b in boxes[place + 1 :])


def test_labels_avoid_obstacles() -> None:
    wall = Box(60, 0, 400, 100)
    (box,) = place_labels([(50.0, 50.0)], [30.0], 14, Box(0, 0, 400, 100), [wall])
    assert not box.meets(wall)


def test_shortened_keeps_what_fits() -> None:
    assert shortened("abc", 100, 12) == "abc"
    cut = shortened("a very long title of a system", 60, 12)
    assert cut.endswith("…") and len(cut) * 0.53 * 12 <= 60


def test_canvas_names_its_picture_for_those_who_do_not_see_it() -> None:
    canvas = Canvas("a", 100, 50)
    canvas.line(0, 0, 10, 10, "grid")
    node = ElementTree.fromstring(canvas.svg("Title", "Words"))
    ids = {child.get("id"): child.text for child in node if child.get("id")}
    assert node.get("role") == "img" and node.get("viewBox") == "0 0 100 50"
    assert [ids[name] for name in (node.get("aria-labelledby") or "").split()] == ["Title", "Words"]
