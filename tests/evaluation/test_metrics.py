"""The built-in metrics: the contract on any text, and what each of them means on examples worked by hand."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu import sentence_chrf

from luthier.evaluation.metrics.appears import appears
from luthier.evaluation.metrics.base import METRICS, MetricContext, Score, check_references, failed_score, score_item
from luthier.evaluation.metrics.conformance import check_metric
from luthier.ground.errors import BadInput
from luthier.ground.strict_json import dump_json

NOTHING = MetricContext()
SCHEMA = {
    "type": "object",
    "required": ["code", "days"],
    "properties": {
        "code": {"type": "string"},
        "days": {"type": "integer"},
        "actions": {"enum": [["ship"], ["refund"]]},
    },
    "additionalProperties": False,
}
TICKETS = MetricContext(schema=SCHEMA, facts=("code", "days"))
REFERENCE = '{"code": "BX-36", "days": 365}'
OF_SOME_TEXTS = {
    "closeness",
    "multi_label_f1",
    "within",
    "json_match",
    "parses",
    "executes",
}  # metrics whose references must be more than text
OF_OWN_REFERENCES = {"closeness": ("3", "-0.5"), "within": ("3", "-0.5"), "multi_label_f1": ('["yes", "no"]', "[]")}
CONTEXTS = [NOTHING, TICKETS, MetricContext(labels=("yes", "no")), MetricContext(schema=SCHEMA)]

documents = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


def value_of(name: str, output: str, reference: str, context: MetricContext = NOTHING) -> float:
    return METRICS.get(name).score(output, reference, context).value


# -- the contract ----------------------------------------------------------------------------------------------------


def test_the_built_in_metrics_are_listed() -> None:
    own = {
        "chrf",
        "contains",
        "edit_similarity",
        "exact_match",
        "executes",
        "json_match",
        "label",
        "parses",
        "token_f1",
    }
    own |= OF_OWN_REFERENCES.keys()
    assert own <= set(METRICS.names())


@pytest.mark.parametrize("context", CONTEXTS, ids=["bare", "tickets", "labels", "schema"])
@pytest.mark.parametrize("name", METRICS.names())
def test_every_built_in_metric_keeps_the_contract(name: str, context: MetricContext) -> None:
    references = (REFERENCE,) if context is TICKETS or context.schema else ("yes", "no", "", REFERENCE)
    check_metric(METRICS.get(name), references=OF_OWN_REFERENCES.get(name, references), context=context)
    if context is NOTHING:
        check_metric(METRICS.get(name))


@settings(max_examples=60)
@given(reference=st.text(), output=st.text())
@pytest.mark.parametrize("name", sorted(set(METRICS.names()) - OF_SOME_TEXTS))
def test_the_contract_holds_on_any_text(name: str, reference: str, output: str) -> None:
    check_metric(METRICS.get(name), references=[reference], outputs=[output, reference + output, output + reference])


@given(reference=documents, other=documents, output=st.text())
def test_json_match_keeps_the_contract_on_any_object(reference: dict[str, object], other: object, output: str) -> None:
    context = MetricContext(facts=tuple(reference))
    outputs = [output, dump_json(other), "Sure! " + dump_json(reference), dump_json(reference)[:-1]]
    check_metric(METRICS.get("json_match"), references=[dump_json(reference)], outputs=outputs, context=context)


@given(reference=documents, other=documents)
def test_json_match_fields_are_symmetric_and_1_exactly_when_they_agree(
    reference: dict[str, object], other: dict[str, object]
) -> None:
    metric = METRICS.get("json_match")
    there = metric.score(dump_json(other), dump_json(reference), NOTHING)
    back = metric.score(dump_json(reference), dump_json(other), NOTHING)
    assert there.parts == back.parts
    assert there.value <= there.parts["field_f1"]
    shuffled = dict(reversed(reference.items()))
    assert metric.score(dump_json(shuffled), dump_json(reference), NOTHING).value == 1.0


# -- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "output", "reference", "value"),
    [
        ("exact_match", " the\n answer ", "the answer", 1.0),
        ("exact_match", "The answer", "the answer", 0.0),
        ("exact_match", "", "the answer", 0.0),
        ("contains", "It is Paris, of course.", "paris", 1.0),
        ("contains", "a warranty of 365 days", "36", 0.0),
        ("contains", "a  warranty\nof 36 months", "warranty of 36", 1.0),
        ("contains", "anything", "", 0.0),
        ("contains", " ", "", 1.0),
        ("token_f1", "The Eiffel Tower!", "eiffel tower", 1.0),
        ("token_f1", "in the city of Paris", "Paris", 2 * 1 / (4 + 1)),
        ("token_f1", "paris paris", "paris", 2 * 1 / (2 + 1)),
        ("token_f1", "Rome", "Paris", 0.0),
        ("token_f1", "", "Paris", 0.0),
        ("label", "Positive.", "positive", 1.0),
        ("label", '"positive"', "Positive", 1.0),
        ("label", "positive, I think", "positive", 0.0),
        ("label", "...", "...", 1.0),
        ("label", "C", "C++", 0.0),
        ("chrf", "", "Paris", 0.0),
        ("chrf", "xyz", "Paris", 0.0),
    ],
)
def test_values_worked_by_hand(name: str, output: str, reference: str, value: float) -> None:
    assert value_of(name, output, reference) == pytest.approx(value)


def test_chrf_is_that_of_sacrebleu() -> None:
    output, reference = "The cat sat on a mat.", "A cat is sitting on the mat."
    assert value_of("chrf", output, reference) == pytest.approx(sentence_chrf(output, [reference]).score / 100)
    assert 0.1 < value_of("chrf", output, reference) < 0.9


def test_label_tells_known_labels_from_invalid_ones() -> None:
    context = MetricContext(labels=("refund", "repair"))
    metric = METRICS.get("label")
    assert metric.score("Repair", "refund", context).parts == {"known": 1.0}
    assert metric.score("ship it", "refund", context).parts == {"known": 0.0}
    wordy = metric.score("I would say: refund", "refund", context)
    assert wordy.value == 0.0 and wordy.graded > metric.score("ship it", "refund", context).graded


@pytest.mark.parametrize("name", ["exact_match", "contains", "label"])
def test_graded_prefers_the_nearer_of_two_wrong_answers(name: str) -> None:
    metric = METRICS.get(name)
    near = metric.score("The part is a long chain", "a long chain of steel", NOTHING)
    far = metric.score("I cannot help", "a long chain of steel", NOTHING)
    right = metric.score("a long chain of steel", "a long chain of steel", NOTHING)
    assert far.graded <= near.graded < right.graded == 1.0
    assert name == "label" or far.graded < near.graded


# -- appears ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text", "found"),
    [
        ("36", "a warranty of 36 months", True),
        ("36", "36", True),
        ("36", '{"months":36}', True),
        ("36", '"36"', True),
        ("36", "36-month warranty, 36months, 36.", True),
        ("36", "a 36-Month warranty", True),
        ("36", "36.0 months", True),
        ("36", "€36,", True),
        ("36", "保証は36ヶ月です", True),
        ("36", "365 days", False),
        ("36", "136 days", False),
        ("36", "36.5 days", False),
        ("36", "0.36 or .36", False),
        ("36", "36,000 km and 1,036 km", False),
        ("36", "part BX-36, part 36-B, part X36, part 36B12, -36, 24-36", False),
        ("-5", "at -5 degrees", True),
        ("-5", "at −5 degrees", True),
        ("5", "at -5 degrees", False),
        ("1200", "1,200 EUR", True),
        ("1200", "1200.00 EUR", True),
        ("1200", "11,200 EUR", False),
        ("1200", "1,2000", False),
        ("1234567", "1,234,567", True),
        ("12.5", "12.50 mm", True),
        ("12.5", "12.55 mm", False),
        ("12.50", "12.5 mm", True),
        ("BX-36", "part bx-36.", True),
        ("BX-36", "part BX-365", False),
        ("BX-36", "part BX-36-C", False),
        ("BX-36", "part ABX-36", False),
        ("BX-36", "a BX-36-compatible part", True),
        ("007", "agent 007", True),
        ("007", "agent 0070", False),
        ("chain", "keychain", False),
        ("chain", "Chain!", True),
        ("brake cable", "the brake\n  cable", True),
        ("Müller", "bei Mu\u0308ller", True),
        ("東京", "東京都庁", True),
        ("true", '{"ok": true}', True),
        ("(a)", "see (A) there", True),
        ("", "anything", False),
    ],
)
def test_appears_as_itself(value: str, text: str, found: bool) -> None:
    assert appears(value, text) is found


@given(st.text(min_size=1).filter(str.strip), st.sampled_from(["", " ", "\n", "(", '"']))
def test_whatever_it_is_it_appears_in_itself(value: str, around: str) -> None:
    assert appears(value, around + value + around)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_number_appears_only_where_it_is_the_number(left: int, right: int) -> None:
    assert appears(str(left), f"it is {right} days") is (left == right)
    assert appears(str(left), f"it is {right:,} days") is (left == right)


# -- json_match ------------------------------------------------------------------------------------------------------


def parts_of(output: str, reference: str = REFERENCE, context: MetricContext = TICKETS) -> dict[str, float]:
    return dict(METRICS.get("json_match").score(output, reference, context).parts)


ALL = {"parse": 1.0, "valid": 1.0, "form": 1.0, "field_f1": 1.0, "exact": 1.0, "facts": 1.0}


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (REFERENCE, ALL),
        ('{"days":365.0,"code":"BX-36"}', ALL),
        (f"```json\n{REFERENCE}\n```", ALL),
        (f"  ```\n{REFERENCE}```\n", ALL),
        ('{"code": "BX-36", "days": 36}', ALL | {"field_f1": 0.5, "exact": 0.0, "facts": 0.0}),
        ('{"code": "BX-36"}', ALL | {"valid": 0.0, "form": 0.0, "field_f1": 2 / 3, "exact": 0.0, "facts": 0.0}),
        ('{"code": "BX-36", "days": "365"}', ALL | {"valid": 0.0, "form": 0.0, "field_f1": 0.5, "exact": 0.0}),
        (f"Here it is: {REFERENCE}", dict.fromkeys(ALL, 0.0) | {"facts": 1.0}),
        ("The BX-36 has 365 days of warranty.", dict.fromkeys(ALL, 0.0) | {"facts": 1.0}),
        ('{"code": "BX-36", "days": 365', dict.fromkeys(ALL, 0.0) | {"facts": 1.0}),
        ('{"code": "BX-36", "days": 365, "days": 365}', dict.fromkeys(ALL, 0.0) | {"facts": 1.0}),
        (f"[{REFERENCE}]", dict.fromkeys(ALL, 0.0) | {"facts": 1.0}),
        ("", dict.fromkeys(ALL, 0.0)),
        ("null", dict.fromkeys(ALL, 0.0)),
        ("{}", dict.fromkeys(ALL, 0.0) | {"parse": 1.0}),
    ],
)
def test_form_and_facts_are_scored_apart(output: str, expected: dict[str, float]) -> None:
    score = METRICS.get("json_match").score(output, REFERENCE, TICKETS)
    assert dict(score.parts) == pytest.approx(expected)
    assert score.value == expected["exact"]


def test_parts_follow_what_the_task_knows() -> None:
    assert set(parts_of("{}", context=NOTHING)) == {"parse", "field_f1", "exact"}
    assert set(parts_of("{}", context=MetricContext(schema=SCHEMA))) == {"parse", "valid", "field_f1", "exact"}
    without_schema = parts_of("{}", context=MetricContext(facts=("code",)))
    assert without_schema == {"parse": 1.0, "field_f1": 0.0, "exact": 0.0, "form": 1.0, "facts": 0.0}


def test_graded_sees_an_object_with_words_around_it() -> None:
    metric = METRICS.get("json_match")
    answers = [
        "I cannot do that.",
        "Sure: {broken",
        f"Sure: {REFERENCE} Done.",
        REFERENCE.replace("365", "3"),
        REFERENCE,
    ]
    grades = [metric.score(answer, REFERENCE, TICKETS).graded for answer in answers]
    assert grades == sorted(grades) and grades[-1] == 1.0 and grades[2] > grades[0]


def test_arrays_count_in_their_order_for_the_object_but_not_for_the_fields() -> None:
    parts = parts_of('{"a": [2, 1]}', '{"a": [1, 2]}', NOTHING)
    assert parts["exact"] == 0.0 and parts["field_f1"] == 1.0
    assert parts_of("[1, 2]", "[1, 2]", NOTHING)["exact"] == 1.0
    assert parts_of('{"a": 1}', "[1]", NOTHING)["parse"] == 0.0


def test_facts_are_found_behind_escapes_in_lists_and_in_nested_objects() -> None:
    reference = '{"who": {"name": "M\\u00fcller"}, "days": [30, 365], "note": null}'
    context = MetricContext(facts=("who.name", "days", "note"))
    assert parts_of('{"n":"M\\u00fcller","d":[30,365]}', reference, context)["facts"] == 1.0
    assert parts_of("Müller: 30 and 365", reference, context)["facts"] == 1.0
    assert parts_of("Müller: 30", reference, context)["facts"] == 0.0


def test_a_reference_it_cannot_use_is_told() -> None:
    metric = METRICS.get("json_match")
    with pytest.raises(BadInput, match="needs JSON references"):
        metric.score("{}", "{'a': 1}", NOTHING)
    with pytest.raises(BadInput, match="objects or arrays"):
        metric.score("{}", "3", NOTHING)
    with pytest.raises(BadInput, match='no field "colour"'):
        metric.score("{}", REFERENCE, MetricContext(facts=("colour",)))


def test_a_schema_that_is_none_is_told_and_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[object] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *given, **_: fetched.append(given))
    metric = METRICS.get("json_match")
    with pytest.raises(BadInput, match="not one, at properties/a/type"):
        metric.score("{}", "{}", MetricContext(schema={"properties": {"a": {"type": "txt"}}}))
    with pytest.raises(BadInput, match="refers to something that is not in it: http://127"):
        metric.score("{}", "{}", MetricContext(schema={"$ref": "http://127.0.0.1:9/schema.json"}))
    assert fetched == []


def test_a_recursive_schema_and_a_deep_answer_do_not_crash() -> None:
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "additionalProperties": {"$ref": "#/$defs/n"}}}}
    deep = '{"a":' * 99 + "{}" + "}" * 99
    assert METRICS.get("json_match").score(deep, "{}", MetricContext(schema=schema)).value == 0.0


def test_hostile_answers_take_no_time() -> None:
    metric = METRICS.get("json_match")
    started = time.perf_counter()
    for output in (
        "{" * 50_000,
        "```" * 20_000,
        '"\\' * 20_000,
        "1" * 100_000,
        "{" + " " * 100_000 + "}",
        "\n" * 99_999,
    ):
        assert metric.score(output, REFERENCE, TICKETS).value == 0.0
    assert time.perf_counter() - started < 2.0


# -- the functions around a metric -----------------------------------------------------------------------------------


def test_a_failed_generation_gets_nothing_in_everything() -> None:
    metric = METRICS.get("json_match")
    assert failed_score(metric, TICKETS) == Score(0.0, dict.fromkeys(ALL, 0.0))
    assert score_item(metric, "item-1", None, REFERENCE, TICKETS) == failed_score(metric, TICKETS)
    assert failed_score(metric, TICKETS).graded == 0.0


def test_a_fault_names_the_item() -> None:
    with pytest.raises(BadInput, match=r"^item 17: json_match needs JSON references"):
        score_item(METRICS.get("json_match"), "17", "{}", "nonsense", NOTHING)


def test_references_that_no_answer_could_satisfy_are_refused_beforehand() -> None:
    metric = METRICS.get("json_match")
    check_references(metric, [("1", REFERENCE)], TICKETS)
    with pytest.raises(BadInput, match="item 2: the reference itself gets only 0 in valid"):
        check_references(metric, [("1", REFERENCE), ("2", '{"code": "A", "days": "x"}')], TICKETS)
    with pytest.raises(BadInput, match=r"item 3: .* in known of the metric label"):
        check_references(METRICS.get("label"), [("3", "maybe")], MetricContext(labels=("yes", "no")))


@pytest.mark.parametrize("bad", [-0.1, 1.01, float("nan"), float("inf"), "1", None, True])
def test_a_score_is_a_number_from_0_to_1(bad: object) -> None:
    with pytest.raises(BadInput, match="value of a score"):
        Score(bad)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="form of a score"):
        Score(0.5, {"form": bad})  # type: ignore[dict-item]
    with pytest.raises(BadInput, match="graded of a score"):
        Score(0.5, graded=bad)  # type: ignore[arg-type]
