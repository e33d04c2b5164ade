"""Each rule speaks on a minimal result that calls for it, is silent on its negation, and names only true numbers."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import samples
from samples import contrast, system

from luthier.advice import rules
from luthier.advice.evidence import NOT_RETRIEVED, NOT_USED
from luthier.advice.rules import PROCEDURE, advise
from luthier.ground import words
from luthier.ground.results import AdviceResult, CheckResult, CompareResult, Duplicates, Latency, Pair, RowCounts

TASK = "examples/tickets/task.yaml"


def result(**changes: Any) -> CompareResult:
    """A comparison about which no rule has anything to say but R2: a prompt that reaches its target."""
    quiet: dict[str, Any] = {
        "systems": [system("base", 0.4), system("prompt", 0.9)],
        "contrasts": [contrast("prompt", "base", 0.5, 0.4, 0.6, "better")],
        "target": 0.8,
        "curve": [],
        "training": {},
        "examples": [],
        "has_documents": False,
        "index": None,
        "check": None,
    }
    return samples.compare(**{**quiet, **changes})


def weak(**changes: Any) -> CompareResult:
    """The same, with a prompt that misses the target."""
    return result(**{"systems": [system("base", 0.4), system("prompt", 0.5)], **changes})


def rag(form: float | None, facts_without: float | None, facts_with: float | None, **changes: Any) -> CompareResult:
    systems = [
        system("prompt", 0.1, form=form, facts=facts_without),
        system("rag", 0.2, form=form, facts=facts_with),
    ]
    return result(**{"systems": systems, "contrasts": [], "has_documents": True, **changes})


def trained(score: float = 0.9, verdict: str = "better", **changes: Any) -> CompareResult:
    systems = [
        system("prompt", 0.3, prompt_tokens=500.0, total_seconds=200.0),
        system("finetuned", score, prompt_tokens=100.0, total_seconds=100.0, train_seconds=60.0),
    ]
    contrasts = [contrast("finetuned", "prompt", score - 0.3, score - 0.4, score - 0.2, verdict)]
    return result(**{"systems": systems, "contrasts": contrasts, **changes})


def adapted(facts: float) -> CompareResult:
    """No prompt brings the facts; whether the adapter trained with passages does is `facts`."""
    systems = [
        system("prompt", 0.1, form=0.1, facts=0.0),
        system("rag", 0.1, form=0.1, facts=0.0),
        system("finetuned", 0.1, form=0.95, facts=0.0),
        system("finetuned+rag", 0.5, form=0.95, facts=facts),
    ]
    return result(systems=systems, contrasts=[], target=0.8)


def misses(missed: int, unused: int, **changes: Any) -> CompareResult:
    """A question-answering comparison: no part of the metric names facts, the causes do."""
    causes = {NOT_RETRIEVED: missed, NOT_USED: unused, "does not parse": 50}
    return result(systems=[system("rag", 0.5, causes=causes)], contrasts=[], has_documents=True, **changes)


def check(**changes: Any) -> CheckResult:
    return samples.check(**changes)


def between(verdict: str, **changes: Any) -> CompareResult:
    return weak(contrasts=[contrast("prompt", "base", 0.01, -0.02, 0.04, verdict, **changes)])


@dataclass(frozen=True)
class Case:
    rule: str
    name: str
    speaks: tuple[CompareResult | None, CheckResult | None]
    silent: tuple[CompareResult | None, CheckResult | None]
    says: str


leak = {"train/test": Duplicates(exact=4, near=3)}
slight = {"train/test": Duplicates(exact=1, near=3)}
CASES = [
    Case("R0", "few items", (result(n_test=49), None), (result(n_test=50), None), "at least 1 items to the 49"),
    Case("R0", "no test set", (None, check(rows={"train": RowCounts(kept=9)})), (None, check()), "there are 0 now"),
    Case("R0a", "check", (None, samples.bad_check()), (None, check()), "says no for 1 reason"),
    Case("R0b", "leak", (None, check(overlap=leak)), (None, check(overlap=slight)), "Take 7 of 200 test items"),
    Case("R0c", "nothing", (None, check()), (result(), check()), "0 have been measured"),
    Case("R1", "one prompt", (weak(prompt=samples.prompt(1)), None), (weak(), None), "1 prompt tried"),
    Case("R1", "not needed", (weak(prompt=None), None), (result(prompt=None), None), "0 prompts tried"),
    Case("R2", "reached", (result(), None), (result(target=0.91), None), "use best prompt, which scores 90.0%"),
    Case("R2", "no gain", (trained(0.2, target=None), None), (trained(target=None), None), "finetuned is 10.0 points"),
    Case("R17", "best", (trained(), None), (trained(verdict="no evidence"), None), "best of 2 systems, with 90.0%"),
    Case("R17", "target", (trained(target=0.9), None), (trained(target=0.91), None), "+60.0 points (+50.0 to +70.0"),
    Case("R18", "as good", (between("non-inferior"), None), (between("no evidence"), None), "margin of 3.0 points"),
    Case("R19", "worse", (between("worse"), None), (between("better"), None), "it is 1.0 points worse"),
    Case("R8", "both", (rag(0.1, 0.1, 0.9), None), (rag(0.95, 0.1, 0.9), None), "3 passages in each"),
    Case(
        "R8", "seen after training", (adapted(0.9), None), (adapted(0.01), None), "of finetuned + passages, which sees"
    ),
    Case("R4", "facts", (rag(0.95, 0.1, 0.9), None), (rag(0.95, 0.8, 0.82), None), "in 10.0% (6.6 to 14.9%)"),
    Case("R4", "no form known", (rag(None, 0.1, 0.9), None), (rag(0.1, 0.1, 0.9), None), "do not finetune for facts"),
    Case(
        "R4",
        "no facts known",
        (rag(None, None, None, contrasts=[contrast("rag", "prompt", 0.1, 0.04, 0.16, "better")]), None),
        (rag(None, None, None, contrasts=[contrast("rag", "prompt", 0.1, -0.04, 0.16, "no evidence")]), None),
        "worth +10.0 points (+4.0 to +16.0)",
    ),
    Case(
        "R4",
        "no documents",
        (weak(systems=[system("prompt", 0.1, form=0.95, facts=0.2)]), None),
        (weak(systems=[system("prompt", 0.1, form=0.95, facts=0.9)]), None),
        "where 0 folders are named",
    ),
    Case("R6", "form", (rag(0.1, 0.9, 0.9), None), (rag(0.1, 0.1, 0.9), None), "160 training examples"),
    Case("R6", "form is good", (rag(0.2, 0.9, 0.9), None), (rag(0.9, 0.9, 0.9), None), "in 20.0% (15.0 to 26.1%)"),
    Case("R5", "passages miss", (rag(0.95, 0.1, 0.6), None), (rag(0.95, 0.1, 0.9), None), "At best 60.0%"),
    Case(
        "R16", "not shown", (between("no evidence", more_items=400), None), (between("better"), None), "400 more test"
    ),
    Case("R16", "no number", (between("no evidence", more_items=None), None), (between("worse"), None), "not the same"),
    Case("R10", "missed", (weak(), None), (result(), None), "30.0 points short of the target of 80.0%"),
    Case(
        "R10",
        "rising",
        (weak(curve=[(80, 0.4, 0.3, 0.5), (160, 0.5, 0.4, 0.6)]), None),
        (trained(curve=[(80, 0.4, 0.3, 0.5), (160, 0.5, 0.4, 0.6)]), None),
        "about 320 where 160 were used",
    ),
    Case(
        "R10",
        "flat",
        (weak(curve=[(80, 0.49, 0.3, 0.5), (160, 0.5, 0.4, 0.6)]), None),
        (result(curve=[(80, 0.49, 0.3, 0.5), (160, 0.5, 0.4, 0.6)]), None),
        "bigger base model than this one with 135 million",
    ),
    Case("R3", "few examples", (weak(n_train=49), None), (weak(n_train=50), None), "Put up to 8 of the 49"),
    Case("R13", "repaid", (trained(), None), (trained(0.2), None), "repaid after 120 answers"),
    Case(
        "R20",
        "failures",
        (weak(systems=[system("prompt", 0.1, n_failed=20)]), None),
        (weak(systems=[system("prompt", 0.1, n_failed=19), system("base", 0.1, n_failed=200)]), None),
        "best prompt failed on 20 of 200 items (10.0%)",
    ),
    Case("R22", "no target", (weak(target=None), None), (weak(), None), "whether 50.0% is enough"),
    Case(
        "R21",
        "blemishes",
        (None, check(overlap=slight, conflicts=[Pair(a="a:1", b="a:2", similarity=1.0)])),
        (None, check(duplicates={"train": Duplicates(exact=20)})),
        "1 pair of rows with the same input",
    ),
    Case(
        "R21",
        "repeats",
        (None, check(duplicates={"train": Duplicates(exact=19, near=2)})),
        (None, check()),
        "21 of 400 rows of train (5.2%)",
    ),
]


def spoken(advice: AdviceResult, rule: str) -> list[str]:
    return [piece.text for piece in advice.advice if piece.rule == rule]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule} {case.name}")
def test_a_rule_speaks_on_its_trigger_and_not_on_the_negation(case: Case) -> None:
    texts = spoken(advise(*case.speaks, task_file=TASK), case.rule)
    assert texts and case.says in " ".join(texts)
    assert spoken(advise(*case.silent, task_file=TASK), case.rule) == []


def test_every_rule_of_the_procedure_has_a_case() -> None:
    assert {case.rule for case in CASES} == {rule.name for rule in PROCEDURE}


def test_the_documented_table_is_the_procedure() -> None:
    rows = re.findall(r"^\| (\d+) \| (R\w+) \|", rules.__doc__ or "", flags=re.MULTILINE)
    assert [name for _, name in rows] == [rule.name for rule in PROCEDURE]
    assert [int(number) for number, _ in rows] == list(range(1, len(PROCEDURE) + 1))


def everything() -> Iterator[AdviceResult]:
    for case in CASES:
        yield advise(*case.speaks, task_file=TASK)
        yield advise(*case.silent, task_file=TASK)
    yield advise(samples.compare(), None, task_file=TASK)
    yield advise(samples.compare(check=samples.bad_check()), None, task_file=TASK)
    yield advise(samples.plain_compare(), None, task_file=TASK)


WRITERS: tuple[Callable[[float], str], ...] = (
    words.count,
    words.percent,
    words.points,
    words.distance,
    words.seconds,
    words.size,
    words.probability,
    lambda value: words.signed(100 * value, 1),
    lambda value: f"{100 * value:.1f}",
    lambda value: f"{value / 1e6:,.0f}",
    lambda value: f"{value:.2f}",
    lambda value: words.seconds(abs(value)),
    lambda value: words.count(abs(value)),
    str,
)
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def written_numbers(value: Any) -> set[str]:
    """All ways in which the numbers in `value` may stand in a text."""
    if isinstance(value, dict):
        return set().union(*map(written_numbers, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(written_numbers, value))
    if isinstance(value, str):
        return set(NUMBER.findall(value))
    if value is None:
        return set()
    return {number for write in WRITERS for number in NUMBER.findall(write(value))}


def test_texts_name_only_numbers_that_they_carry() -> None:
    for told in everything():
        for text, numbers in [(a.text, a.numbers) for a in told.advice] + [
            (r.reason, r.numbers) for r in told.rejected
        ]:
            known = written_numbers(numbers) | {"0.0"}
            assert set(NUMBER.findall(text)) <= known, (text, numbers)


def test_every_sentence_names_a_number() -> None:
    for told in everything():
        for text in [told.next, *(a.text for a in told.advice), *(r.reason for r in told.rejected)]:
            for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text):
                assert re.search(r"\d", sentence), sentence


def test_the_next_step_is_the_first_sentence_of_the_first_rule_that_speaks() -> None:
    for told in everything():
        order = [rule.name for rule in PROCEDURE]
        places = [order.index(piece.rule) for piece in told.advice]
        assert places == sorted(places)
        if told.advice:
            assert told.advice[0].text.startswith(told.next)
        assert told.next.endswith(".")


def test_commands_are_verbs_that_exist_and_name_the_task_file() -> None:
    verbs = {"start", "schema", "check", "train", "index", "search", "prompt", "compare", "advise", "report"}
    for told in everything():
        for command in filter(None, (piece.command for piece in told.advice)):
            program, verb, task, *settings = shlex.split(command)
            assert program == "luthier" and verb in verbs and task == TASK
            assert settings[0::2] == ["--set"] * (len(settings) // 2)
            assert all(re.fullmatch(r"[a-z_.]+=\S+", setting) for setting in settings[1::2])


def test_a_task_file_with_a_blank_is_quoted() -> None:
    told = advise(None, None, task_file="my task.yaml")
    assert told.advice[0].command == "luthier compare 'my task.yaml'"


def test_advice_is_json_without_nan() -> None:
    endless = weak(contrasts=[contrast("prompt", "base", 0.01, -0.02, 0.04, "no evidence", detectable=float("inf"))])
    told = advise(endless, None, task_file=TASK)
    json.dumps(told.model_dump(), allow_nan=False)


def test_the_check_of_the_comparison_is_used_when_no_other_is_given() -> None:
    inside = advise(result(check=samples.bad_check()), None, task_file=TASK)
    assert spoken(inside, "R0a")
    assert not spoken(advise(result(check=samples.bad_check()), check(), task_file=TASK), "R0a")


def test_the_tickets_are_told_to_use_both_and_why() -> None:
    told = advise(samples.compare(), None, task_file=TASK)
    assert [piece.rule for piece in told.advice][:2] == ["R17", "R8"]
    assert told.advice[0].command == f"luthier train {TASK} --set data.sample.train=null --set train.passages=3"
    assert "3.0%" in told.advice[1].text and "71.5%" in told.advice[1].text and "99.5%" in told.advice[1].text


def test_rejected_options_cover_every_other_system_and_the_reasons_against_training() -> None:
    told = advise(samples.compare(), None, task_file=TASK)
    assert [r.option for r in told.rejected] == [*list(samples.TITLES.values())[:4], "doing without finetuning"]
    last = told.rejected[-1]
    assert last.numbers["train_s"] == 176.0 and last.numbers["lost"] == pytest.approx(0.705)
    assert "newer base model" in last.reason and "0 items of other work" in last.reason


def test_a_better_endpoint_is_rejected_with_its_price() -> None:
    far = system("endpoint", 0.95, total_seconds=400.0, cost=1.25, latency_s=Latency(p50=2.0, p95=3.0))
    told = advise(result(systems=[system("prompt", 0.9), far]), None, task_file=TASK)
    reason = next(r.reason for r in told.rejected if r.option == far.title)
    assert "5.0 points above" in reason and "2.0 s" in reason and "1.25" in reason


def test_untrained_choice_rejects_finetuning() -> None:
    told = advise(result(), None, task_file=TASK)
    assert told.rejected[-1].option == "finetuning"
    assert "0 finetuned systems" in told.rejected[-1].reason


def test_causes_are_called_as_the_triage_calls_them() -> None:
    triage = pytest.importorskip("luthier.evaluation.triage")
    assert (triage.NOT_RETRIEVED, triage.NOT_USED) == (NOT_RETRIEVED, NOT_USED)
