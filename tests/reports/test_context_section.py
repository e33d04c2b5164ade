"""The section of a longer window shows what the result says, in the page and in the terminal."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
import samples
from context_samples import DEPTHS, LENGTHS, RIGHT, SYSTEMS, longer_window
from rich.console import Console
from test_figures import at, of_class, parsed

from luthier.advice.rules import advise
from luthier.ground.results import CompareResult
from luthier.reports.context_section import context_section, context_view, heat_figure, position_figure
from luthier.reports.figures import NARROW, WIDE
from luthier.reports.page import page_html


def compared() -> CompareResult:
    return samples.compare(context=longer_window())


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_each_cell_has_its_counts_and_its_shade(width: float) -> None:
    root = parsed(heat_figure(longer_window(), "passkey", width))
    shades = [at(node, "fill-opacity") for node in of_class(root, "rect", "heat")]
    wanted = [right / 8 for system in SYSTEMS for right in RIGHT[system] for _ in DEPTHS]
    assert shades == pytest.approx([0.75 * share for share in wanted], abs=0.006)
    words = [node.text for node in root.iter("text")]
    assert words.count("7/8") == 3 * len(DEPTHS)
    assert all(words.count(f"{length}") == len(SYSTEMS) for length in LENGTHS)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_everything_lies_inside_the_picture(width: float) -> None:
    root = parsed(heat_figure(longer_window(), "passkey", width))
    height = float((root.get("viewBox") or "").split()[3])
    for node in of_class(root, "rect", "heat"):
        assert at(node, "x") >= 0 and at(node, "x") + at(node, "width") <= width
        assert at(node, "y") >= 0 and at(node, "y") + at(node, "height") <= height


def test_a_line_for_each_system_and_one_at_the_old_window() -> None:
    root = parsed(position_figure(longer_window()))
    assert len(of_class(root, "path", "curve")) == len(SYSTEMS)
    assert len(of_class(root, "line", "target")) == 1
    description = root.find("desc")
    assert description is not None and "finetuned: 1.500 at the beginning, 1.350 at the end" in (description.text or "")


def test_the_page_has_the_section_and_its_entry() -> None:
    result = compared()
    page = page_html(result, advise(result, None, task_file="task.yaml"))
    assert '<section id="context">' in page and 'href="#context"' in page
    assert "A window 4 times as long" in page
    assert "94% of the passkeys are found" in page
    assert "<script" not in page


def test_other_comparisons_have_no_such_section() -> None:
    assert context_section(samples.compare()) is None


def test_pictures_are_sound_xml() -> None:
    section = context_section(compared())
    assert section is not None
    ElementTree.fromstring(f"<div>{section.body}</div>")


def test_terminal_names_the_share_at_each_length() -> None:
    console = Console(width=100, record=True)
    console.print(context_view(longer_window()))
    said = console.export_text()
    assert "passkeys, finetuned" in said and "87.5%" in said and "12.5%" in said
