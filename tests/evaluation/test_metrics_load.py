"""Metrics from a user's file and from plug-ins, and the check that tells a bad metric."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from luthier.evaluation.metrics.base import METRICS, FunctionMetric, MetricContext, Part, Score, score_item
from luthier.evaluation.metrics.conformance import check_metric
from luthier.evaluation.metrics.load import load_metric
from luthier.ground.errors import BadInput, Refused

NOTHING = MetricContext()


def write(folder: Path, source: str, name: str = "score.py") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(source, encoding="utf-8")


def test_a_registered_name(tmp_path: Path) -> None:
    assert load_metric("token_f1", tmp_path) is METRICS.get("token_f1")
    with pytest.raises(BadInput, match='no metric called "tokenf1" \\(did you mean "token_f1"'):
        load_metric("tokenf1", tmp_path)


@pytest.mark.parametrize(
    ("source", "call", "binary", "value"),
    [
        ("def score(output, reference, context):\n    return 0.25\n", "score.py", False, 0.25),
        ("def score(output, reference):\n    return 0.25\n", "score.py", False, 0.25),
        ("def score(output, reference, *rest):\n    return float(len(rest))\n", "score.py", False, 1.0),
        ("def score(output: str, reference: str) -> bool:\n    return output == reference\n", "score.py", True, 1.0),
        (
            "from __future__ import annotations\ndef same(o, r, c) -> bool:\n    return o == r\n",
            "score.py:same",
            True,
            1.0,
        ),
        ("def score(o, r, c):\n    return int(o == r)\n", "deep/er/score.py", False, 1.0),
        (
            "from dataclasses import dataclass\n@dataclass\nclass Marks:\n    n: int = 1\n"
            "def score(o, r):\n    return Marks().n\n",
            "score.py",
            False,
            1.0,
        ),
    ],
)
def test_a_users_file(tmp_path: Path, source: str, call: str, binary: bool, value: float) -> None:
    write(tmp_path, source, call.partition(":")[0])
    metric = load_metric(call, tmp_path)
    assert (metric.name, metric.binary, metric.parts) == (call, binary, ())
    assert score_item(metric, "1", "a", "a", NOTHING).value == value


def test_a_users_parts(tmp_path: Path) -> None:
    write(
        tmp_path,
        "from luthier.evaluation.metrics.base import Score\nPARTS = {'polite': True, 'length': False}\n"
        "def score(o, r):\n    return Score(float(o == r), {'polite': float('please' in o), 'length': 0.5})\n",
    )
    metric = load_metric("score.py", tmp_path)
    assert metric.parts == (Part("polite"), Part("length", binary=False))
    assert score_item(metric, "1", "please", "x", NOTHING).parts == {"polite": 1.0, "length": 0.5}
    assert score_item(metric, "1", None, "x", NOTHING).parts == {"polite": 0.0, "length": 0.0}


@pytest.mark.parametrize(
    ("source", "call", "message"),
    [
        (None, "absent.py", "absent.py: there is no such file"),
        ("def score(:\n", "score.py", "score.py:1: the file cannot be run with SyntaxError"),
        ("x = 1\nimport no_such_module_here\n", "score.py", "score.py:2: the file cannot be run with ModuleNotFound"),
        ("raise SystemExit(3)\n", "score.py", "score.py:1: the file cannot be run with SystemExit"),
        ("def scores(o, r):\n    pass\n", "score.py", 'no function "score" (did you mean "scores"?)'),
        ("def score(o):\n    pass\n", "score.py", "must take (output, reference, context)"),
        ("PARTS = ['a']\ndef score(o, r):\n    pass\n", "score.py", "PARTS must map names"),
    ],
)
def test_a_file_that_cannot_be_used_gets_one_sentence(
    tmp_path: Path, source: str | None, call: str, message: str
) -> None:
    if source is not None:
        write(tmp_path, source)
    before = set(sys.modules)
    with pytest.raises(BadInput) as caught:
        load_metric(call, tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    if "cannot be run" in message:
        assert not [name for name in set(sys.modules) - before if name.startswith("luthier_user_metric")]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1.5", "score.py, item 7: a metric must return a number from 0 to 1, not 1.5"),
        ("return float('nan')", "must return a number from 0 to 1, not nan"),
        ("return 'good'", "must return a number from 0 to 1, a truth value or a Score, not 'good'"),
        ("return None", "not None"),
        ("x = 1\n    return {}['missing']", "score.py:3, item 7: the metric fails with KeyError: 'missing'"),
        ("import json\n    return json.loads(o)", "score.py:3, item 7: the metric fails with JSONDecodeError"),
    ],
)
def test_a_function_that_fails_names_file_line_and_item(tmp_path: Path, body: str, message: str) -> None:
    write(tmp_path, f"def score(o, r):\n    {body}\n")
    metric = load_metric("score.py", tmp_path)
    with pytest.raises(BadInput) as caught:
        score_item(metric, "7", "answer", "reference", NOTHING)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_binary_function_must_return_truth(tmp_path: Path) -> None:
    write(tmp_path, "def score(o, r) -> bool:\n    return 0.5\n")
    with pytest.raises(BadInput, match=r"item 7: a score .* is not as declared: its value is 0\.5"):
        score_item(load_metric("score.py", tmp_path), "7", "a", "b", NOTHING)


def test_a_plug_in_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    write(
        tmp_path,
        "from luthier.evaluation.metrics.base import FunctionMetric\n"
        "half = FunctionMetric('half', lambda o, r, c: 1.0 if o == r else 0.5)\nclass Loose:\n    pass\n",
        "half_metric.py",
    )
    info = tmp_path / "half_metric-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half-metric\nVersion: 1.0\n", encoding="utf-8")
    points = "[luthier.metrics]\nhalf = half_metric:half\nloose = half_metric:Loose\n"
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    try:
        assert "half" in METRICS.names()
        check_metric(load_metric("half", tmp_path))
        with pytest.raises(BadInput, match=r"half-metric 1\.0 cannot be used: the entry point names a class"):
            load_metric("loose", tmp_path)
    finally:
        METRICS._plugged_in.clear()


class Flaky:
    name, binary, parts = "flaky", False, ()

    def __init__(self) -> None:
        self.calls = 0

    def score(self, output: str, reference: str, context: MetricContext) -> Score:
        self.calls += 1
        return Score(1.0 if output == reference else (self.calls % 7) / 10)


def broken(score: object, *, binary: bool = False, parts: tuple[Part, ...] = ()) -> FunctionMetric:
    return FunctionMetric("broken", score, binary, parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "fault"),
    [
        (broken(lambda o, r, c: 0.5), "against itself gets 0.5"),
        (broken(lambda o, r, c: Score(1.0, graded=0.5)), "graded 0.5"),
        (broken(lambda o, r, c: 1.0 if o == r else 0.5, binary=True), "declared binary"),
        (broken(lambda o, r, c: 1.0 if o == r else 2.0), "raises BadInput on the answer"),
        (broken(lambda o, r, c: 1.0 if o == r else o[0] == r), "raises IndexError on the answer ''"),
        (broken(lambda o, r, c: 1 / 0), "raises ZeroDivisionError on the reference"),
        (broken(lambda o, r, c: Score(1.0, {"form": 1.0})), "has the parts ['form'] where [] were declared"),
        (broken(lambda o, r, c: 1.0, parts=(Part("form"),)), "has the parts [] where ['form'] were declared"),
        (broken(lambda o, r, c: Score(1.0, {"form": 0.5}), parts=(Part("form"),)), "part form is 0.5"),
        (broken(lambda o, r, c: 1.0, parts=(Part("form"), Part("form"))), "share a name"),
        (Flaky(), "two different scores"),
        (
            SimpleNamespace(name="loose", binary=True, parts=(), score=lambda o, r, c: 1.0),
            "returns a float, not a Score",
        ),
        (SimpleNamespace(name="", binary=1, parts=[], score=lambda o, r, c: Score(1.0)), "its name is not a text"),
    ],
)
def test_the_check_tells_a_metric_that_breaks_the_contract(metric: object, fault: str) -> None:
    with pytest.raises(Refused) as caught:
        check_metric(metric)  # type: ignore[arg-type]
    assert fault in str(caught.value)


def test_the_check_wants_at_least_one_usable_reference() -> None:
    with pytest.raises(Refused, match="accepts none of the references"):
        check_metric(METRICS.get("json_match"), references=["plain words"])
