"""Pictures show what the results say: positions are read back from the picture's own tick marks."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest
import samples
from markupsafe import Markup

from luthier.ground.results import CompareResult, EvalRecord, StepRecord
from luthier.reports.curves import learning_figure, length_figure, loss_figure
from luthier.reports.figures import (
    NARROW,
    WIDE,
    both_widths,
    contrasts_figure,
    latency_figure,
    measures_of,
    scores_figure,
    scores_svg,
    shown_parts,
    tokens_figure,
)

Node = ElementTree.Element
NAMESPACE = "{http://www.w3.org/2000/svg}"


def parsed(picture: str) -> Node:
    root = ElementTree.fromstring(picture)
    for node in root.iter():
        node.tag = node.tag.removeprefix(NAMESPACE)
    return root


def of_class(root: Node, tag: str, class_: str) -> list[Node]:
    return [node for node in root.iter(tag) if class_ in (node.get("class") or "").split()]


def at(node: Node, name: str) -> float:
    value = node.get(name)
    assert value is not None
    return float(value)


def reader(root: Node, place: str, unit: str = "") -> Callable[[float], float]:
    """Return the function from pixels to values that the tick marks define."""
    marks = []
    for node in of_class(root, "text", "tick"):
        words = (node.text or "").replace("−", "-").replace("+", "").replace(",", "")
        vertical = node.get("text-anchor") == "end" and not unit
        if words.endswith(unit) and re.fullmatch(r"-?[\d.]+", words.removesuffix(unit)) and (place == "y") == vertical:
            marks.append((at(node, place) - (4 if place == "y" else 0), float(words.removesuffix(unit))))
    (x0, v0), (x1, v1) = marks[0], marks[-1]
    return lambda x: v0 + (x - x0) * (v1 - v0) / (x1 - x0)


def share_axis(root: Node) -> Callable[[float], float]:
    """The x axis of scores, from its 25% and 75% marks (the outer ones are moved inwards on a phone)."""
    marks = {node.text: at(node, "x") for node in of_class(root, "text", "tick")}
    return lambda x: 0.25 + 0.5 * (x - marks["25%"]) / (marks["75%"] - marks["25%"])


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_scores_stand_where_they_belong(width: float) -> None:
    result = samples.compare()
    root = parsed(scores_figure(result, width))
    value = share_axis(root)
    bars, dots = of_class(root, "rect", "interval")[:-1], of_class(root, "circle", "dot")[:-1]  # the last is the legend
    assert len(bars) == len(dots) == len(result.systems)
    for system, bar, dot in zip(result.systems, bars, dots, strict=True):
        assert value(at(bar, "x")) == pytest.approx(system.interval[0], abs=1e-3)
        assert value(at(bar, "x") + at(bar, "width")) == pytest.approx(system.interval[1], abs=1e-3)
        assert value(at(dot, "cx")) == pytest.approx(system.score, abs=1e-3)
        assert at(bar, "y") + at(bar, "height") / 2 == pytest.approx(at(dot, "cy"))
    for line in of_class(root, "line", "target"):
        assert value(at(line, "x1")) == pytest.approx(0.75, abs=1e-3)
    facts = of_class(root, "rect", "part-1")[: len(result.systems)]
    for system, mark in zip(result.systems, facts, strict=True):
        assert value(at(mark, "x") + at(mark, "width") / 2) == pytest.approx(system.metrics["facts"].score, abs=1e-3)
    for system, mark in zip(result.systems, of_class(root, "path", "part-0"), strict=False):
        x = float((mark.get("d") or "").split()[0].removeprefix("M"))
        assert value(x) == pytest.approx(system.metrics["form"].score, abs=1e-3)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_contrasts_stand_where_they_belong(width: float) -> None:
    result = samples.compare(
        contrasts=[*samples.four_contrasts(), samples.contrast("a", "b", -0.2, -0.3, -0.1, "worse")]
    )
    root = parsed(contrasts_figure(result, width))
    value = reader(root, "x")
    bars, dots = of_class(root, "rect", "interval"), of_class(root, "circle", "dot")
    for contrast, bar, dot in zip(result.contrasts, bars, dots, strict=True):
        assert value(at(bar, "x")) == pytest.approx(100 * contrast.interval[0], abs=0.1)
        assert value(at(bar, "x") + at(bar, "width")) == pytest.approx(100 * contrast.interval[1], abs=0.1)
        assert value(at(dot, "cx")) == pytest.approx(100 * contrast.difference, abs=0.1)
        assert contrast.verdict.replace(" ", "-") in (dot.get("class") or "")
    assert value(at(of_class(root, "line", "zero")[0], "x1")) == pytest.approx(0, abs=0.01)
    band = of_class(root, "rect", "band")[0]
    ends = value(at(band, "x")), value(at(band, "x") + at(band, "width"))
    assert ends == pytest.approx((-3, 3), abs=0.1)


def test_cost_is_read_back_from_both_axes() -> None:
    result = samples.compare()
    for picture, cost in ((latency_figure, "latency"), (tokens_figure, "tokens")):
        root = parsed(picture(result))
        marks = [node for node in of_class(root, "text", "tick") if not (node.text or "").endswith("%")]
        (x0, v0), (x1, v1) = ((at(n, "x"), float((n.text or "").replace(",", ""))) for n in (marks[0], marks[-1]))
        heights = {n.text: at(n, "y") - 4 for n in of_class(root, "text", "tick") if (n.text or "").endswith("%")}
        for system, dot in zip(result.systems, of_class(root, "circle", "dot"), strict=True):
            wanted = system.latency_s.p50 if cost == "latency" else system.prompt_tokens + system.output_tokens
            assert v0 + (at(dot, "cx") - x0) * (v1 - v0) / (x1 - x0) == pytest.approx(wanted, abs=0.01 * v1)
            share = (at(dot, "cy") - heights["0%"]) / (heights["100%"] - heights["0%"])
            assert share == pytest.approx(system.score, abs=1e-3)


def test_very_different_costs_get_a_logarithmic_axis() -> None:
    systems = [
        samples.system("base", 0.1, prompt_tokens=10.0, output_tokens=0.0),
        samples.system("rag", 0.2, prompt_tokens=9000.0),
    ]
    assert "log scale" in tokens_figure(samples.compare(systems=systems))
    assert "log scale" not in latency_figure(samples.compare(systems=systems))


def test_costs_of_zero_do_not_break_the_picture() -> None:
    quiet = samples.system("base", 0.1, prompt_tokens=0.0, output_tokens=0.0)
    parsed(tokens_figure(samples.compare(systems=[quiet])))


def test_loss_curve_is_read_back() -> None:
    training = samples.training()
    root = parsed(loss_figure(training))
    left = [n for n in of_class(root, "text", "tick") if n.get("text-anchor") == "end"]
    (y0, v0), (y1, v1) = ((at(n, "y") - 4, float(n.text or "")) for n in (left[0], left[-1]))
    path = of_class(root, "path", "train")[0].get("d") or ""
    heights = [float(pair.split()[1]) for pair in re.split("[ML]", path) if pair]
    for record, y in zip(training.history, heights, strict=True):
        assert v0 + (y - y0) * (v1 - v0) / (y1 - y0) == pytest.approx(record.loss, abs=0.01)
    assert len(of_class(root, "circle", "dev")) == len(training.evals)
    assert len(of_class(root, "circle", "ring")) == 1


def test_loss_that_is_no_number_is_left_out() -> None:
    bad = StepRecord(
        step=2, loss=float("nan"), learning_rate=0.0, grad_norm=0.0, tokens=1, target_tokens=1, weight=1.0, seconds=1.0
    )
    good = bad.model_copy(update={"step": 1, "loss": 1.0})
    root = parsed(loss_figure(samples.training(history=[good, bad, good], evals=[EvalRecord(step=1, dev_loss=None)])))
    assert "nan" not in ElementTree.tostring(root, encoding="unicode").lower()


def test_histogram_has_a_bar_for_each_bin_with_its_height() -> None:
    tokens = samples.check().tokens["train"]
    root = parsed(length_figure("train", tokens, max_length=2048))
    left = [n for n in of_class(root, "text", "tick") if n.get("text-anchor") == "end"]
    (y0, v0), (y1, v1) = ((at(n, "y") - 4, float(n.text or "")) for n in (left[0], left[-1]))
    bars = of_class(root, "rect", "bar")
    for (_, _, rows), bar in zip(tokens.histogram, bars, strict=True):
        assert v0 + (at(bar, "y") - y0) * (v1 - v0) / (y1 - y0) == pytest.approx(rows, abs=0.5)
    assert not of_class(root, "line", "target")
    assert of_class(parsed(length_figure("train", tokens, max_length=420)), "line", "target")


def test_learning_curve_shows_every_point() -> None:
    root = parsed(learning_figure(samples.compare()))
    assert len(of_class(root, "circle", "dot")) == 3
    assert len(of_class(root, "line", "reference")) == 2
    assert "".join(root.itertext()).count("82.5%") >= 1


def pictures(result: CompareResult) -> list[Markup]:
    made = [scores_figure(result, width) for width in (WIDE, NARROW)]
    made += [contrasts_figure(result, width) for width in (WIDE, NARROW)]
    return [
        *made,
        latency_figure(result),
        tokens_figure(result),
        learning_figure(result),
        loss_figure(samples.training()),
    ]


def test_nothing_is_drawn_outside_the_picture() -> None:
    for picture in pictures(samples.compare()):
        root = parsed(picture)
        _, _, width, height = map(float, (root.get("viewBox") or "").split())
        for node in root.iter("text"):
            anchor, size = node.get("text-anchor", "start"), 13 * 0.53 * len(node.text or "")
            start = at(node, "x") - {"start": 0, "middle": size / 2, "end": size}[anchor]
            assert start >= -20 and start + size <= width + 20, node.text
            assert 0 <= at(node, "y") <= height
        for node in root.iter("rect"):
            assert at(node, "x") >= -0.01 and at(node, "x") + at(node, "width") <= width + 0.01


def test_on_a_phone_no_line_runs_through_words() -> None:
    for picture in (scores_figure(samples.compare(), NARROW), contrasts_figure(samples.compare(), NARROW)):
        root = parsed(picture)
        words = [at(n, "y") for n in root.iter("text") if "label" in (n.get("class") or "")]
        for line in root.iter("line"):
            assert not any(at(line, "y1") < y < at(line, "y2") for y in words)


def test_ids_of_the_two_widths_differ() -> None:
    twice = both_widths(lambda width: scores_figure(samples.compare(), width))
    ids = re.findall(r' id="([^"]+)"', twice)
    assert len(ids) == len(set(ids)) == 4


def test_the_picture_for_the_readme_stands_alone() -> None:
    picture = scores_svg(samples.compare())
    root = ElementTree.fromstring(picture)
    assert root.tag == f"{NAMESPACE}svg"
    style = next(root.iter(f"{NAMESPACE}style")).text or ""
    assert "prefers-color-scheme: dark" in style and "--paper: #fff" in style
    assert "script" not in picture and "url(" not in picture and "<image" not in picture
    words = " ".join(root.itertext())
    assert "tickets: json_match on 200 test items" in words and "2026-11-24" in words and "AMD EPYC" in words


def test_hostile_titles_stay_words() -> None:
    evil = samples.system("prompt", 0.5, title='"><script>alert(1)</script>')
    for picture in pictures(
        samples.compare(systems=[evil], contrasts=[samples.contrast("prompt", "x", 0.1, 0, 0.2, "better")])
    ):
        assert not list(parsed(picture).iter("script"))


def test_parts_that_not_all_systems_have_are_not_drawn() -> None:
    assert shown_parts(samples.five_systems()) == ["form", "facts"]
    assert shown_parts([*samples.five_systems(), samples.system("endpoint", 0.5, metrics={})]) == []
    assert shown_parts([]) == []


def test_the_whole_object_is_not_shown_twice() -> None:
    assert "exact" not in measures_of(samples.five_systems()[0])
