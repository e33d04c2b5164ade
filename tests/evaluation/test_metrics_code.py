"""Metrics of edits and of code: against a plain reference, and against programs that must not do what they try."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.evaluation.metrics.base import METRICS, MetricContext, check_references
from luthier.evaluation.metrics.code import executes, parses
from luthier.evaluation.metrics.code_runner import run_python
from luthier.evaluation.metrics.conformance import check_metric
from luthier.evaluation.metrics.edit_similarity import distance, edit_similarity, similarity
from luthier.evaluation.scoring import context_of, score_answers
from luthier.evaluation.systems import Answer, Item
from luthier.ground.errors import BadInput
from luthier.rows.types import Row

BEFORE = "def add(a, b):\n    return "
AFTER = "\n\n\nassert add(1, 2) == 3\nassert add(-1, 1) == 0\n"
AROUND = MetricContext(before=BEFORE, after=AFTER)
PROGRAMS = ("a + b", "b + a", "sum((a, b))")


# -- edit similarity ---------------------------------------------------------------------------------------------------


def plain_distance(a: str, b: str) -> int:
    """The table of Wagner and Fischer (1974), cell by cell."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row[0] = row[:], i
        for j, y in enumerate(b, 1):
            row[j] = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != y))
    return row[-1]


@given(st.text("abc ", max_size=12), st.text("abcé", max_size=12))
def test_the_distance_is_that_of_the_plain_table(a: str, b: str) -> None:
    assert distance(a, b) == plain_distance(a, b) == distance(b, a)


def test_similarity_by_hand() -> None:
    assert similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert (similarity("", ""), similarity("", "ab"), similarity("x" * 3000, "y" * 3000)) == (1.0, 0.0, 0.0)
    score = edit_similarity.score("  return a\n", "return a", MetricContext())
    assert (score.value, score.parts) == (1.0, {"verbatim": 1.0})


def test_edit_similarity_keeps_the_contract() -> None:
    check_metric(edit_similarity)


# -- code --------------------------------------------------------------------------------------------------------------


def test_the_metrics_are_registered() -> None:
    assert {"edit_similarity", "parses", "executes"} <= set(METRICS.names())


def test_code_metrics_keep_the_contract() -> None:
    check_metric(parses, references=PROGRAMS, context=AROUND)
    check_metric(
        executes, references=("a + b",), outputs=("", "a - b", "```python\na + b\n```", '"' * 99), context=AROUND
    )


@pytest.mark.parametrize(
    ("filling", "value", "parse"),
    [
        ("a + b", 1, 1),
        ("  b + a\n", 1, 1),  # white space at the ends
        ("```python\na + b\n```", 1, 1),
        ("a - b", 0, 1),
        ("a +", 0, 0),
        ("The answer is a + b", 0, 0),
        ("exit()", 0, 1),
        ("__import__('os')._exit(0)", 0, 1),
        ("1 / 0", 0, 1),
    ],
)
def test_a_filling_is_run_in_the_text_around_it(filling: str, value: int, parse: int) -> None:
    score = executes.score(filling, "a + b", AROUND)
    assert (score.value, score.parts["parse"]) == (value, parse)
    assert parses.score(filling, "", AROUND).value == parse
    assert score.graded == 1.0 or score.graded < 0.5


def test_a_filling_of_whole_lines_keeps_its_indentation() -> None:
    context = MetricContext(before="def one():\n", after="\n\nassert one() == 1\n")
    assert executes.score("    return 1", "    return 1", context).value == 1
    assert executes.score("return 1", "    return 1", context).value == 0


def test_items_with_a_gap_are_judged_in_their_own_text() -> None:
    text = BEFORE + "a + b" + AFTER
    row = Row("1", "t:1", text=text, gap=(len(BEFORE), len(BEFORE) + 5))
    item = Item.of(row)
    about = context_of(item, MetricContext(labels=("x",)))
    assert (about.labels, about.before, about.after) == (("x",), BEFORE, AFTER)
    assert item.reference == "a + b"
    answers = [Answer("b + a", 0.1, 1, 1), Answer("a", 0.1, 1, 1)]
    scores = score_answers([item, item], answers, executes, MetricContext())
    assert [score.score for score in scores] == [1.0, 0.0]
    check_references(executes, [("t:1", item.reference)], context_of(item, MetricContext()))
    with pytest.raises(BadInput, match="item t:1: the text with the reference in its gap does not run to its end"):
        check_references(executes, [("t:1", "a - b")], context_of(item, MetricContext()))
    with pytest.raises(BadInput, match="is not Python"):
        check_references(parses, [("t:1", "a -")], context_of(item, MetricContext()))


# -- the runner --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        "assert 1 + 1 == 2",
        "import math, re, collections\nprint(math.pi, re.match('a+', 'aa'), collections.Counter('aab'))",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nassert A(1).x == 1",
        "from collections import namedtuple\nassert namedtuple('P', 'x')(1).x == 1",
        "import enum\nclass C(enum.Enum):\n    A = 1\nassert C.A.value == 1",
        "from datetime import datetime\nassert datetime.strptime('2024-01-02', '%Y-%m-%d').day == 2",
        "if __name__ == '__main__':\n    ran = True",
        "text = 'größer 漢字 🙂'\nassert len(text) == 11",
    ],
)
def test_ordinary_programs_reach_their_end(program: str) -> None:
    assert run_python(program).passed, run_python(program).cause


@pytest.mark.parametrize(
    ("program", "cause"),
    [
        ("assert False", "AssertionError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import os\nos._exit(0)", "ended"),
        ("import os\nos.write(1, b'done')\nos._exit(0)", "ended"),
        ("open('/etc/passwd').read()", "PermissionError"),
        ("open('made.txt', 'w').write('x')", "PermissionError"),
        ("import os\nos.listdir('/')", "PermissionError"),
        ("import os\nos.remove('x')", "PermissionError"),
        ("import os\nos.system('true')", "PermissionError"),
        ("import os\nos.fork()", "PermissionError"),
        ("import socket\nsocket.socket()", "PermissionError"),
        ("import subprocess\nsubprocess.run(['true'])", "PermissionError"),
        ("import numpy", "ModuleNotFoundError"),
        ("x = [0] * 10**9", "MemoryError"),
        ("def f():\n    f()\nf()", "RecursionError"),
        ("def broken(:", "SyntaxError"),
        ("input()", "PermissionError"),
        ("\x00", "SyntaxError"),
    ],
)
def test_what_a_program_may_not_do_is_refused(program: str, cause: str) -> None:
    ran = run_python(program)
    assert (ran.passed, ran.cause) == (False, cause)


def test_a_program_without_end_is_stopped() -> None:
    assert run_python("while True:\n    pass", time_s=1.0).cause == "time"


def test_a_program_sees_no_environment_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET_KEY", "x")
    assert run_python("import os\nassert 'SECRET_KEY' not in os.environ").passed
    monkeypatch.chdir(tmp_path)
    run_python("open('made.txt', 'w')")
    assert not list(tmp_path.iterdir())
