"""Find the best prompt on dev: every instruction with every number of worked examples, scored by the task's metric.

Examples are drawn from train, in one order for all arms, so that four examples are the two and two more. The test set
has no way in. All arms of one prompt share their beginning, which the generator runs through the model once.

    result, prompt = search_prompt(generator=generator, ask=objective.ask, settings=Settings(), metric=metric,
        context=context, train=train_rows, dev=items, instruction="Extract the order.", spec=task.spec.prompt)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from luthier.evaluation.comparison import clusters_of
from luthier.evaluation.metrics.base import Metric, MetricContext
from luthier.evaluation.scoring import ItemScore, mean_score, score_answers
from luthier.evaluation.statistics import summarise
from luthier.evaluation.systems import Ask, Item, LocalSystem
from luthier.generation.engine import Generator
from luthier.generation.settings import Settings
from luthier.ground.errors import BadInput
from luthier.ground.events import Tell, silent
from luthier.ground.hashes import key_of
from luthier.ground.results import PromptArm, PromptResult
from luthier.ground.seeds import derived_seed
from luthier.ground.spec import PromptSpec
from luthier.rows.compose import Prompt
from luthier.rows.types import Row


@dataclass(frozen=True)
class _Tried:
    prompt: Prompt
    scores: tuple[ItemScore, ...]

    @property
    def prompt_tokens(self) -> float:
        return sum(score.answer.prompt_tokens for score in self.scores) / len(self.scores)

    @property
    def rank(self) -> tuple[float, float, float]:
        """What decides: the score, then how nearly right the answers are, then the shorter prompt."""
        graded = sum(score.graded for score in self.scores) / len(self.scores)
        return mean_score(self.scores), graded, -self.prompt_tokens


def search_prompt(
    *,
    generator: Generator,
    ask: Ask,
    settings: Settings,
    metric: Metric,
    context: MetricContext,
    train: Sequence[Row],
    dev: Sequence[Item],
    instruction: str,
    spec: PromptSpec,
    seed: int = 0,
    confidence: float = 0.95,
    depends_on: Mapping[str, object] | None = None,
    tell: Tell = silent,
) -> tuple[PromptResult, Prompt]:
    """Try every arm on the first `spec.dev_items` dev items; return all arms and the winner.

    Args:
        train: rows from which worked examples are drawn.
        instruction: the task's own; variants come from `spec.instructions` and `instruction_variants`.
        depends_on: what else the result depends on (the model, the template), for its key.

    Raises:
        BadInput: there are no dev items.
    """
    started = time.perf_counter()
    items = dev[: spec.dev_items]
    if not items:
        raise BadInput("there are no dev items on which a prompt could be chosen", fix="set data.dev")
    prompts = make_prompts(instruction, spec, train, metric, context, seed)
    tried: list[_Tried] = []
    for prompt in prompts:
        system = LocalSystem("prompt", generator, ask, prompt, None, settings)
        tried.append(_Tried(prompt, tuple(score_answers(items, system.answer(items, tell), metric, context))))
        tell({"kind": "prompt", "done": len(tried), "total": len(prompts), "score": tried[-1].rank[0]})
    best = max(tried, key=lambda arm: arm.rank)
    result = PromptResult(
        instruction=best.prompt.instruction,
        example_ids=[row.id for row in best.prompt.examples],
        arms=[_arm(arm, metric, confidence, seed, chosen=arm is best) for arm in tried],
        dev_items=len(items),
        seconds=time.perf_counter() - started,
        key=key_of(_dependencies(prompts, items, settings, metric, context, depends_on)),
    )
    return result, best.prompt


def make_prompts(
    instruction: str, spec: PromptSpec, train: Sequence[Row], metric: Metric, context: MetricContext, seed: int
) -> list[Prompt]:
    """Return every arm: each instruction with each number of examples that train can give."""
    instructions = dict.fromkeys([*instruction_variants(instruction, metric, context), *spec.instructions])
    examples = draw_examples(train, max(spec.examples), seed, context)
    counts = sorted({min(number, len(examples)) for number in spec.examples})
    return [Prompt(text, tuple(examples[:number])) for number in counts for text in instructions]


def instruction_variants(instruction: str, metric: Metric, context: MetricContext) -> list[str]:
    """Return the task's own instruction, and the same with a reminder of the form that the metric wants."""
    return [instruction, f"{instruction.rstrip()} {_reminder(metric, context)}".strip()]


def draw_examples(train: Sequence[Row], most: int, seed: int, context: MetricContext) -> list[Row]:
    """Return up to `most` rows with an answer, seeded; smaller draws are the beginning of larger ones.

    Groups take turns (labels do, where the task has them), so that few examples show much of the variety.
    """
    usable = [row for row in train if row.input.strip() and row.reference.strip()]
    order = np.random.default_rng(derived_seed(seed, "examples")).permutation(len(usable))
    shuffled = [usable[place] for place in order]
    turns: dict[str, int] = {}
    turn_of = []
    for row in shuffled:
        kind = row.reference if context.labels else row.group or f"{row.place} {row.id}"
        turn_of.append(turns.get(kind, 0))
        turns[kind] = turn_of[-1] + 1
    in_turn = sorted(range(len(shuffled)), key=lambda place: (turn_of[place], place))
    return [shuffled[place] for place in in_turn[:most]]


def _reminder(metric: Metric, context: MetricContext) -> str:
    if metric.name == "json_match":
        return "Answer with the JSON object only."
    if context.labels:
        return f"Answer with exactly one of: {', '.join(context.labels)}."
    return "Give only the answer, without explanation."


def _arm(arm: _Tried, metric: Metric, confidence: float, seed: int, *, chosen: bool) -> PromptArm:
    score, graded, _ = arm.rank
    summary = summarise(
        [item.score for item in arm.scores],
        binary=metric.binary,
        clusters=clusters_of(arm.scores),
        level=confidence,
        seed=seed,
    )
    return PromptArm(
        instruction=arm.prompt.instruction,
        examples=len(arm.prompt.examples),
        score=score,
        graded=graded,
        interval=(summary.interval.low, summary.interval.high),
        n=len(arm.scores),
        prompt_tokens=arm.prompt_tokens,
        chosen=chosen,
    )


def _dependencies(
    prompts: Sequence[Prompt],
    items: Sequence[Item],
    settings: Settings,
    metric: Metric,
    context: MetricContext,
    more: Mapping[str, object] | None,
) -> dict[str, object]:
    return {
        "arms": [(p.instruction, [(e.input, e.reference) for e in p.examples]) for p in prompts],
        "items": [(item.id, item.row.input, item.reference) for item in items],
        "settings": {key: value for key, value in vars(settings).items() if key != "batch_size"},
        "metric": [metric.name, dict(context.schema or {}), list(context.labels), list(context.facts)],
        "more": dict(more or {}),
    }
