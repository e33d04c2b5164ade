"""The prompt search: all arms, on dev alone, from train examples, with a fair choice."""

from __future__ import annotations

import pytest
from evaluation_fakes import EXACT, JSON, FakeGenerator, FakeRenderer, make_items, make_row

from luthier.evaluation.metrics.base import MetricContext
from luthier.evaluation.prompting import draw_examples, instruction_variants, make_prompts, search_prompt
from luthier.evaluation.systems import Item
from luthier.generation.settings import Settings
from luthier.ground.errors import BadInput
from luthier.ground.results import PromptResult
from luthier.ground.spec import PromptSpec
from luthier.rows.compose import Prompt
from luthier.rows.types import Row

TRAIN = [make_row(f"t{n}", f"train question {n}", f"train answer {n}", group=f"g{n // 5}") for n in range(20)]
NONE = MetricContext()


def search(generator: FakeGenerator, **more: object) -> tuple[PromptResult, Prompt]:
    arguments: dict[str, object] = {
        "generator": generator,
        "ask": FakeRenderer().ask,
        "settings": Settings(),
        "metric": EXACT,
        "context": NONE,
        "train": TRAIN,
        "dev": make_items(6),
        "instruction": "Answer.",
        "spec": PromptSpec(examples=(0, 2), dev_items=4),
    }
    return search_prompt(**{**arguments, **more})  # type: ignore[arg-type]


def test_every_arm_is_tried_and_the_best_one_wins() -> None:
    generator = FakeGenerator(
        lambda prompt: "yes" if prompt.count("assistant:") == 2 and "Give only" in prompt else "no"
    )
    result, prompt = search(generator, spec=PromptSpec(instructions=("Say yes.",), examples=(0, 2), dev_items=4))
    assert [(arm.instruction, arm.examples) for arm in result.arms] == [
        (text, count)
        for count in (0, 2)
        for text in ("Answer.", "Answer. Give only the answer, without explanation.", "Say yes.")
    ]
    assert [arm.chosen for arm in result.arms] == [False] * 4 + [True, False]
    assert prompt.instruction == result.instruction == "Answer. Give only the answer, without explanation."
    assert [row.id for row in prompt.examples] == result.example_ids and len(result.example_ids) == 2
    chosen = result.arms[4]
    assert (chosen.score, chosen.n, result.dev_items) == (1.0, 4, 4) and chosen.interval[0] > 0.4
    assert len(generator.prompts) == 6 * 4


def test_the_shorter_prompt_wins_a_tie_and_nearly_right_wins_before_it() -> None:
    result, prompt = search(FakeGenerator(lambda text: "no"))
    assert prompt == Prompt("Answer.")
    assert result.arms[0].chosen
    items = [Item.of(make_row("1", "q", '{"a": 1, "b": 2}'))]
    reply = FakeGenerator(lambda text: '{"a": 1, "b": 3}' if "assistant:" in text else "no")
    graded, prompt = search(reply, metric=JSON, dev=items, spec=PromptSpec(examples=(0, 2), dev_items=4))
    assert len(prompt.examples) == 2 and all(arm.score == 0.0 for arm in graded.arms)


def test_failed_answers_are_wrong_answers() -> None:
    result, _ = search(FakeGenerator(lambda text: None if "question 1" in text else "yes"))
    assert all(arm.score == 0.75 and arm.n == 4 for arm in result.arms)


def test_only_dev_items_are_asked_and_only_train_rows_are_shown() -> None:
    generator = FakeGenerator(lambda text: "no")
    search(generator)
    for prompt in generator.prompts:
        question = prompt.rpartition("user: ")[2]
        assert question in {f"question {n}" for n in range(4)}
        assert prompt.count("question") == 1 + prompt.count("train question")


def test_no_dev_items_is_one_sentence() -> None:
    with pytest.raises(BadInput, match="no dev items"):
        search(FakeGenerator(str), dev=[])


def test_examples_are_nested_seeded_and_from_many_groups() -> None:
    drawn = draw_examples(TRAIN, 8, 0, NONE)
    assert draw_examples(TRAIN, 3, 0, NONE) == drawn[:3]
    assert draw_examples(TRAIN, 8, 1, NONE) != drawn == draw_examples(TRAIN, 8, 0, NONE)
    assert {row.group for row in drawn[:4]} == {"g0", "g1", "g2", "g3"}
    assert {row.group for row in drawn[4:]} == {"g0", "g1", "g2", "g3"}


def test_examples_show_every_label() -> None:
    rows = [make_row(str(n), f"q{n}", "rare" if n == 17 else "common") for n in range(30)]
    assert {row.reference for row in draw_examples(rows, 2, 0, MetricContext(labels=("rare", "common")))} == {
        "rare",
        "common",
    }


def test_rows_without_an_answer_are_no_examples() -> None:
    rows = [make_row("1", "q", " "), Row("2", "r:2", text="raw"), make_row("3", "q", "a")]
    assert [row.id for row in draw_examples(rows, 5, 0, NONE)] == ["3"]


def test_arms_are_not_tried_twice_when_train_is_small() -> None:
    spec = PromptSpec(examples=(0, 2, 4), instructions=("Answer.",))
    prompts = make_prompts("Answer.", spec, TRAIN[:2], EXACT, NONE, 0)
    assert sorted({len(prompt.examples) for prompt in prompts}) == [0, 2] and len(prompts) == 4


@pytest.mark.parametrize(
    ("metric", "context", "reminder"),
    [
        (JSON, NONE, "Answer with the JSON object only."),
        (EXACT, MetricContext(labels=("a", "b")), "Answer with exactly one of: a, b."),
        (EXACT, NONE, "Give only the answer, without explanation."),
    ],
)
def test_reminders_follow_the_metric(metric: object, context: MetricContext, reminder: str) -> None:
    assert instruction_variants("Do it.", metric, context) == ["Do it.", f"Do it. {reminder}"]  # type: ignore[arg-type]
    assert instruction_variants("", metric, context) == ["", reminder]  # type: ignore[arg-type]


def test_the_key_changes_with_what_the_choice_depends_on() -> None:
    def key(**more: object) -> str:
        return search(FakeGenerator(lambda text: "no"), **more)[0].key

    keys = [
        key(),
        key(instruction="Other."),
        key(dev=make_items(2)),
        key(settings=Settings(max_new_tokens=3)),
        key(seed=1),
        key(depends_on={"model": "x"}),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0] == key(settings=Settings(batch_size=3))
