"""The page: whole, valid, self-contained, safe, and with every figure of the result."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import samples

from luthier.advice.rules import advise
from luthier.ground import words
from luthier.ground.errors import BadInput
from luthier.ground.results import AdviceResult, CompareResult
from luthier.reports.page import page_html, write_page

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Reader(HTMLParser):
    """Reads a page: its texts, tags and attributes; refuses tags that are not balanced."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.style = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> does not fit"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_of(result: CompareResult, advice: AdviceResult | None = None) -> str:
    return page_html(result, advice or advise(result, None, task_file="task.yaml"))


def test_every_figure_of_the_result_is_on_the_page() -> None:
    result = samples.compare()
    shown = Reader(page_of(result)).text
    assert result.verdict in shown
    for system in result.systems:
        figures = [words.percent(system.score), words.span(*system.interval), f"{system.n_failed} of {system.n_total}"]
        figures += [words.percent(system.metrics[name].score) for name in ("form", "facts", "field_f1")]
        figures += [words.span(*system.metrics[name].interval) for name in ("form", "facts", "field_f1")]
        figures += [words.seconds(system.latency_s.p50), words.seconds(system.latency_s.p95)]
        figures += [words.count(system.prompt_tokens), words.count(system.output_tokens), words.size(system.peak_bytes)]
        figures += [words.seconds(system.total_seconds)]
        figures += [words.seconds(system.train_seconds)] if system.train_seconds else []
        assert [figure for figure in figures if figure not in shown] == []
    for contrast in result.contrasts:
        figures = [contrast.sentence, words.points(contrast.difference), words.points_span(*contrast.interval)]
        figures += [
            words.probability(contrast.p),
            words.probability(contrast.p_holm),
            contrast.method,
            contrast.verdict,
        ]
        figures += [f"{words.count(contrast.more_items)} more"] if contrast.more_items else []
        assert [figure for figure in figures if figure not in shown] == []
    for training in result.training.values():
        figures = [words.count(training.tokens), words.seconds(training.seconds), f"{training.train_loss:.3f}"]
        assert [figure for figure in [*figures, training.adapter] if figure not in shown] == []
    assert result.provenance.sentence in shown and result.provenance.sha256 in shown
    assert all(f"{name} {version}" in shown for name, version in result.environment.versions.items())
    assert all(words.percent(score) in shown for _, score, _, _ in result.curve)
    assert result.prompt and all(words.percent(arm.graded) in shown for arm in result.prompt.arms)


def test_the_table_puts_each_score_in_the_row_of_its_system() -> None:
    result = samples.compare()
    rows = re.findall(
        r'<th scope="row">([^<]+)</th>\s*<td[^>]*data-head="score"><span>([^<]+?) <small>', page_of(result)
    )
    assert dict(rows) == {system.title: words.percent(system.score) for system in result.systems}


def test_the_answer_and_the_next_step_come_first() -> None:
    result = samples.compare()
    advice = advise(result, None, task_file="task.yaml")
    shown = Reader(page_html(result, advice)).text
    places = [
        shown.index(part) for part in (result.verdict, advice.next, advice.advice[0].command or "", "How well each")
    ]
    assert places == sorted(places)


def test_advice_with_rules_commands_and_rejections_is_on_the_page() -> None:
    result = samples.compare(check=samples.bad_check())
    advice = advise(result, None, task_file="task.yaml")
    shown = Reader(page_html(result, advice)).text
    for piece in advice.advice:
        assert f"{piece.rule} {piece.text}" in shown
        assert piece.command is None or piece.command in shown
    for option in advice.rejected:
        assert f"{option.option} {option.reason}" in shown


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    for result in (samples.compare(), samples.plain_compare()):
        reader = Reader(page_of(result))
        names = {tag for tag, _ in reader.tags}
        assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use"}
        for tag, attributes in reader.tags:
            assert not {"src", "srcset", "style", "action", "data"} & set(attributes), tag
            assert not any(name.startswith("on") for name in attributes)
            assert attributes.get("href", "#").startswith("#")
        assert "url(" not in reader.style and "@import" not in reader.style


def test_links_inside_the_page_have_targets() -> None:
    reader = Reader(page_of(samples.compare()))
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for tag, attributes in reader.tags if tag == "a"}
    assert targets <= set(ids)
    for _, attributes in reader.tags:
        assert set(attributes.get("aria-labelledby", "").split()) <= set(ids)


def test_the_policy_allows_exactly_the_style_of_the_page() -> None:
    reader = Reader(page_of(samples.compare()))
    policy = next(a["content"] for _, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(reader.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\x00\ud800\u202e{{ 7 * 7 }}"


def hostile() -> CompareResult:
    example = samples.example(1).model_copy(
        update={"input": EVIL, "reference": EVIL, "outputs": {"rag": EVIL, EVIL: ""}, "passages": [EVIL], "id": EVIL}
    )
    view = samples.view(1)
    segments = [segment.model_copy(update={"text": EVIL}) for segment in view.segments]
    check = samples.bad_check()
    faults = [fault.model_copy(update={"message": EVIL, "file": EVIL}) for fault in check.faults]
    check = check.model_copy(
        update={
            "views": [view.model_copy(update={"segments": segments, "place": EVIL})],
            "faults": faults,
            "warnings": [EVIL],
        }
    )
    return samples.compare(
        verdict=EVIL,
        task=EVIL,
        systems=[samples.system("rag", 0.5, title=EVIL, causes={EVIL: 2})],
        contrasts=[samples.contrast("rag", EVIL, 0.1, 0.0, 0.2, "better", sentence=EVIL)],
        examples=[example],
        check=check,
        sampled=EVIL,
    )


def test_hostile_texts_are_shown_and_do_nothing() -> None:
    result = hostile()
    advice = AdviceResult(task=EVIL, next=EVIL, advice=[], rejected=[])
    page = page_html(result, advice)
    page.encode("utf-8")
    reader = Reader(page)
    assert not {tag for tag, _ in reader.tags} & {"script", "img"}
    assert reader.text.count("<script>alert(1)</script>") > 12
    assert not re.search("[\x00-\x08\x0b-\x1f\ud800-\udfff\u202e]", page)
    assert "49" not in re.sub(r"[\d.]*49[\d.]+|[\d.]+49[\d.]*", "", reader.text) and "{{ 7 * 7 }}" in reader.text


def test_addresses_in_answers_stay_text() -> None:
    example = samples.example(1).model_copy(update={"outputs": {"rag": "see https://example.org/a"}})
    reader = Reader(page_of(samples.compare(examples=[example])))
    assert "see https://example.org/a" in reader.text
    assert not any("example.org" in value for _, attributes in reader.tags for value in attributes.values())


PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "contrasts": ({"contrasts": []}, "What is shown, and what is not"),
    "training": ({"training": {}, "curve": []}, "How training went"),
    "curve": ({"curve": []}, "Score by number of examples"),
    "examples": ({"examples": []}, "Where systems differ"),
    "check": ({"check": None}, "The data"),
    "prompt": ({"prompt": None}, "How the prompt was chosen"),
    "index": ({"index": None}, "files, 96 passages"),
    "target": ({"target": None}, "The task asks for a score"),
    "systems": ({"systems": [], "contrasts": []}, "How well each system answers"),
}


@pytest.mark.parametrize("part", PARTS)
def test_what_is_missing_is_left_out_and_the_rest_stays(part: str) -> None:
    changes, heading = PARTS[part]
    assert heading in Reader(page_of(samples.compare())).text
    shown = Reader(page_of(samples.compare(**changes))).text
    assert heading not in shown and "How it was measured" in shown


def test_the_least_comparison_renders() -> None:
    shown = Reader(page_of(samples.plain_compare())).text
    assert "45.3%" in shown and "chrF" in shown


def test_an_unknown_metric_with_odd_parts_renders() -> None:
    odd = samples.system("prompt", 0.4, metrics={"politeness": samples.measure(0.31), "brevity": samples.measure(0.77)})
    shown = Reader(page_of(samples.compare(metric="score.py", systems=[odd], contrasts=[]))).text
    assert "politeness" in shown and "31.0%" in shown and "Answers are scored by score.py" in shown


def test_an_endpoint_with_a_price_renders() -> None:
    endpoint = samples.system("endpoint", 0.9, form=0.95, facts=0.2, cost=0.0421, peak_bytes=0)
    shown = Reader(page_of(samples.compare(systems=[*samples.five_systems(), endpoint]))).text
    assert "remote endpoint (gpt-small)" in shown and "0.0421" in shown
    assert "price" not in Reader(page_of(samples.compare())).text


def test_failed_answers_and_partial_scores_are_marked() -> None:
    example = samples.example(1).model_copy(
        update={"outputs": {"base": "", "rag": "half"}, "scores": {"base": 0.0, "rag": 0.5}}
    )
    shown = Reader(page_of(samples.compare(examples=[example]))).text
    assert "(no answer)" in shown and "50.0%" in shown


def test_causes_of_wrong_answers_are_counted_by_system() -> None:
    page = page_of(samples.compare())
    shown = Reader(page).text
    assert "does not parse" in shown and "facts missing, though in the passages" in shown
    assert re.search(r'data-head="does not parse"><span>197</span>', page)
    assert "What was wrong" not in Reader(page_of(samples.plain_compare())).text


def test_trained_tokens_are_coloured_and_the_others_are_not() -> None:
    page = page_of(samples.compare())
    view = re.findall(r'<details class="view".*?</details>', page, flags=re.DOTALL)[0]
    coloured = re.findall(r'<span class="trained">(.*?)</span>', view, flags=re.DOTALL)
    assert len(coloured) == 1 and "BR-4471" in coloured[0] and "squeals" not in coloured[0]


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "report.html"
    result = samples.compare()
    told = write_page(target, result, advise(result, None, task_file="task.yaml"))
    assert told.page == str(target) and told.bytes == target.stat().st_size and told.verdict == result.verdict
    Reader(target.read_text(encoding="utf-8"))
    assert [entry.name for entry in target.parent.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(BadInput, match=r"report\.html"):
        write_page(tmp_path / "report.html", samples.compare(), AdviceResult(task="t", next="", advice=[], rejected=[]))
