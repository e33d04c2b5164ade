"""What is chosen is held against all combinations, on made-up machines whose memory and time are known."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planning.machines import AGAIN, FULL, GB, KEPT, LORA, fastest_by_tier, least_loss, pick, realistic, separable

from luthier.ground.errors import BadInput
from luthier.ground.spec import AdapterSpec, TrainSpec
from luthier.planning.choose import Outcome, applied
from luthier.planning.levers import options_of
from luthier.planning.search import TIE

# -- the best is found ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("spec", [LORA, FULL], ids=["lora", "full"])
def test_where_levers_add_up_the_best_of_all_combinations_is_chosen(spec: TrainSpec, seed: int) -> None:
    evaluate = separable(seed)
    limit_bytes = int(4e9 - random.Random(seed).uniform(50e6, 500e6))
    every = fastest_by_tier(spec, evaluate, limit_bytes)
    choice = pick(spec, limit_bytes, evaluate).choice
    assert choice.tier == min(every)
    assert choice.outcome.step_s <= every[choice.tier] * (1 + TIE)


@pytest.mark.parametrize("spec", [LORA, FULL], ids=["lora", "full"])
def test_where_levers_hide_each_other_the_tier_is_right_and_the_time_nearly(spec: TrainSpec) -> None:
    gaps = []
    for seed in range(25):
        evaluate = realistic(seed)
        limit_bytes = int(evaluate(spec).peak_bytes * random.Random(seed).uniform(0.5, 0.95))
        if every := fastest_by_tier(spec, evaluate, limit_bytes):
            choice = pick(spec, limit_bytes, evaluate).choice
            assert choice.outcome.peak_bytes <= limit_bytes
            assert choice.tier == min(every)
            gaps.append(choice.outcome.step_s / every[choice.tier] - 1)
    assert len(gaps) >= 20
    assert max(gaps) < 0.1
    assert sum(gaps) / len(gaps) < 0.01


@pytest.mark.parametrize(("seed", "less_bytes"), [(0, 250_000_000), (2, 60_000_000), (7, 120_000_000)])
def test_in_tier_three_no_more_is_lost_than_must_be(seed: int, less_bytes: int) -> None:
    evaluate = separable(seed)
    leanest = {"checkpointing": "full", "pack_tokens": 128, "mlp_tile": 256, "base": "nf4"}
    lower_tiers = evaluate(applied(LORA, {f"train.{key}": value for key, value in leanest.items()})).peak_bytes
    limit_bytes = lower_tiers - less_bytes
    choice = pick(LORA, limit_bytes, evaluate).choice
    assert (choice.fits, choice.tier) == (True, 3)
    lost = sum(
        option.loss for option in options_of(LORA, 30) if dict(option.changes).items() <= choice.settings.items()
    )
    assert lost == least_loss(LORA, evaluate, limit_bytes)


def test_what_fits_as_written_is_left_alone() -> None:
    chosen = pick(LORA, 50 * GB, realistic(1))
    assert (chosen.choice.settings, chosen.choice.tier, chosen.choice.fits) == ({}, 0, True)
    assert chosen.choice.spec == LORA
    assert chosen.choice.sentence.startswith("As written: ")
    assert [point.label for point in chosen.frontier if point.chosen] == ["as written"]


def test_without_a_limit_everything_fits_and_nothing_is_said_of_it() -> None:
    chosen = pick(LORA, None, realistic(1))
    assert chosen.choice.fits and not chosen.choice.settings
    assert {point.fits for point in chosen.frontier} | {each.fits for each in chosen.concessions} == {None}


def test_what_is_not_needed_is_not_changed() -> None:
    """Rows of 900 tokens: packs below that are all alike, so the mildest is named."""

    def evaluate(spec: TrainSpec) -> Outcome:
        tokens = max(900, spec.pack_tokens or 1536)
        return Outcome(
            int(1e9 + 1e6 * tokens * KEPT[spec.checkpointing]), AGAIN[spec.checkpointing] * (1 + 90 / tokens)
        )

    choice = pick(LORA, int(1.95e9), evaluate).choice
    assert choice.settings == {"train.pack_tokens": 512}


def test_training_less_is_never_bought_for_speed() -> None:
    """Four layers would be faster than fifteen and fit as well."""

    def evaluate(spec: TrainSpec) -> Outcome:
        share = (spec.adapter.layers or 30) / 30
        return Outcome(int(GB + GB * share), 0.5 + share)

    choice = pick(LORA, int(1.6e9), evaluate).choice
    assert (choice.settings, choice.tier) == ({"train.adapter.layers": 15}, 3)


def test_what_loses_less_goes_before_what_is_faster() -> None:
    """Half the rank and half the layers both fit; fewer layers are faster, and lose more."""

    def evaluate(spec: TrainSpec) -> Outcome:
        fewer = spec.adapter.layers is not None
        return Outcome(GB if fewer or spec.adapter.rank < 16 else 2 * GB, 0.7 if fewer else 1.0)

    assert pick(LORA, int(1.5e9), evaluate).choice.settings == {"train.adapter.rank": 8, "train.adapter.alpha": 16.0}


def test_a_much_faster_change_of_the_same_mathematics_is_made_unasked() -> None:
    def evaluate(spec: TrainSpec) -> Outcome:
        return Outcome(GB, 0.9 if (spec.pack_tokens or 1536) <= 512 else 1.0)

    assert pick(LORA, 2 * GB, evaluate).choice.settings == {"train.pack_tokens": 512}
    pinned = pick(TrainSpec(pack_tokens=1536), 2 * GB, evaluate)
    assert pinned.choice.settings == {}
    assert [each.sentence for each in pinned.concessions] == ["512-token packs: same memory, −10 % time"]


# -- what the task file sets ---------------------------------------------------------------------------------------


def by_checkpointing(spec: TrainSpec) -> Outcome:
    return Outcome({"none": 5_000_000_000, "selective": 4_000_000_000, "full": 3_100_000_000}[spec.checkpointing]
                   - (100_000_000 if spec.base == "nf4" else 0), AGAIN[spec.checkpointing])  # fmt: skip


def test_a_key_that_the_task_file_sets_stays_while_anything_else_fits() -> None:
    spec = TrainSpec(checkpointing="none")
    choice = pick(spec, 4_900_000_000, by_checkpointing).choice
    assert (choice.settings, choice.tier, choice.overridden) == ({"train.base": "nf4"}, 2, ())
    assert pick(LORA, 4_900_000_000, by_checkpointing).choice.settings == {"train.checkpointing": "selective"}


def test_it_is_changed_if_nothing_fits_otherwise_and_that_is_said() -> None:
    chosen = pick(TrainSpec(checkpointing="none"), 4_000_000_000, by_checkpointing)
    assert chosen.choice.settings == {"train.checkpointing": "selective"}
    assert chosen.choice.overridden == ("train.checkpointing",)
    assert chosen.choice.sentence == (
        "With selective checkpointing: 4.00 GB of 4.00 GB, +10 % time, "
        "although the task file sets it (train.checkpointing)."
    )


def test_a_faster_value_of_a_key_that_is_set_is_told_and_not_taken() -> None:
    chosen = pick(TrainSpec(checkpointing="full"), 9 * GB, by_checkpointing)
    assert chosen.choice.settings == {}
    assert "no checkpointing: +1.90 GB, −23 % time" in [each.sentence for each in chosen.concessions]


# -- limits --------------------------------------------------------------------------------------------------------


def test_if_nothing_fits_the_choice_is_the_smallest() -> None:
    chosen = pick(LORA, GB, by_checkpointing)
    assert not chosen.choice.fits
    assert chosen.choice.settings == {"train.checkpointing": "full", "train.base": "nf4"}
    assert chosen.choice.outcome.peak_bytes == chosen.smallest_bytes == 3_000_000_000
    assert chosen.choice.sentence == (
        "Nothing that was tried fits in 1.00 GB; the smallest (nf4, full checkpointing) needs 3.00 GB, +30 % time."
    )


def test_a_limit_of_time_is_kept_by_a_higher_tier_if_need_be() -> None:
    def evaluate(spec: TrainSpec) -> Outcome:
        outcome = by_checkpointing(spec)
        return Outcome(outcome.peak_bytes - (2 * GB if spec.base == "int8" else 0), outcome.step_s)

    slow = pick(LORA, 4 * GB, evaluate, time_limit_s=2000, steps=1000).choice
    assert (slow.settings, slow.keeps_time) == ({"train.checkpointing": "selective"}, True)
    quick = pick(LORA, 4 * GB, evaluate, time_limit_s=1050, steps=1000).choice
    assert (quick.settings, quick.keeps_time) == ({"train.base": "int8"}, True)
    assert quick.sentence == "With int8: 3.00 GB of 4.00 GB, same time. It takes 16 min 40 s of 17 min 30 s."


def test_if_nothing_keeps_both_memory_decides() -> None:
    choice = pick(LORA, 4 * GB, by_checkpointing, time_limit_s=1000, steps=1000).choice
    assert (choice.settings, choice.fits, choice.keeps_time) == ({"train.checkpointing": "selective"}, True, False)
    assert choice.sentence.endswith(
        "It takes 18 min 20 s: nothing that was tried and fits keeps the limit of 16 min 40 s."
    )


def test_too_slow_as_written_is_made_faster_even_by_little() -> None:
    def evaluate(spec: TrainSpec) -> Outcome:
        return Outcome(GB, 0.98 if (spec.pack_tokens or 1536) <= 512 else 1.0)

    assert pick(LORA, 2 * GB, evaluate).choice.settings == {}
    choice = pick(LORA, 2 * GB, evaluate, time_limit_s=990, steps=1000).choice
    assert (choice.settings, choice.keeps_time) == ({"train.pack_tokens": 512}, True)


@pytest.mark.parametrize("evaluations", [1, 2, 7, 40])
@pytest.mark.parametrize("share", [0.3, 0.6, 2.0])
def test_no_more_evaluations_than_allowed_and_none_twice(evaluations: int, share: float) -> None:
    seen: list[TrainSpec] = []
    inner = realistic(5)

    def evaluate(spec: TrainSpec) -> Outcome:
        seen.append(spec)
        return inner(spec)

    chosen = pick(FULL, int(inner(FULL).peak_bytes * share), evaluate, evaluations=evaluations)
    assert chosen.tried == len(seen) == len(set(seen)) <= evaluations


def test_a_lever_that_does_nothing_costs_one_evaluation() -> None:
    seen: list[TrainSpec] = []

    def evaluate(spec: TrainSpec) -> Outcome:
        seen.append(spec)
        return by_checkpointing(spec)

    pick(LORA, None, evaluate)
    assert [spec.pack_tokens for spec in seen if spec.pack_tokens] == [128]


# -- what a model cannot have --------------------------------------------------------------------------------------


def test_what_the_model_cannot_have_is_passed_over() -> None:
    def evaluate(spec: TrainSpec) -> Outcome:
        if spec.checkpointing == "full":
            raise BadInput("this model cannot checkpoint activations")
        return by_checkpointing(spec)

    choice = pick(LORA, 4_500_000_000, evaluate).choice
    assert choice.settings == {"train.checkpointing": "selective"}
    both = pick(LORA, 3_950_000_000, evaluate).choice  # the leanest of all cannot be had: it is found without it
    assert both.settings == {"train.checkpointing": "selective", "train.base": "nf4"}
    assert not pick(LORA, 3_500_000_000, evaluate).choice.fits


def test_a_spec_that_cannot_be_evaluated_is_the_callers_fault() -> None:
    def evaluate(_: TrainSpec) -> Outcome:
        raise BadInput("no linear layer is called so")

    with pytest.raises(BadInput, match="linear layer"):
        pick(LORA, None, evaluate)


SPECS = st.builds(
    dict,
    kind=st.sampled_from(["lora", "full"]),
    precision=st.sampled_from(["bf16", "fp32", "fp16"]),
    base=st.sampled_from([None, "bf16", "fp32", "int8", "nf4"]),
    checkpointing=st.sampled_from(["none", "selective", "full"]),
    strategy=st.sampled_from(["ddp", "fsdp"]),
    on_spike=st.sampled_from(["ignore", "stop"]),
    rows_per_step=st.sampled_from([None, 1, 8]),
    mlp_tile=st.sampled_from([None, 300]),
    pack_tokens=st.sampled_from([None, 600]),
)


def built(values: dict[str, Any]) -> TrainSpec:
    adapter = AdapterSpec(kind=values["kind"])
    return TrainSpec(adapter=adapter, **{key: value for key, value in values.items() if key != "kind"})


def is_valid(values: dict[str, Any]) -> bool:
    try:
        return bool(built(values))
    except ValueError:
        return False


@settings(max_examples=40, deadline=None)
@given(values=SPECS.filter(is_valid), seed=st.integers(0, 10**6), share=st.floats(0.1, 1.2))
def test_every_spec_is_valid_and_the_frontier_is_one(values: dict[str, Any], seed: int, share: float) -> None:
    """Memory and time are drawn at random: nothing may be assumed of them."""
    found: dict[TrainSpec, Outcome] = {}

    def evaluate(spec: TrainSpec) -> Outcome:
        assert TrainSpec.model_validate(spec.model_dump()) == spec
        draw = random.Random(f"{seed} {spec.model_dump_json()}")
        found[spec] = Outcome(draw.randrange(1, 1000) * 1_000_000, draw.uniform(0.1, 2))
        return found[spec]

    spec = built(values)
    limit_bytes = int(1e9 * share)
    chosen = pick(spec, limit_bytes, evaluate, evaluations=25)
    for point in chosen.frontier:
        outcome = found[applied(spec, point.settings)]
        assert (point.peak_bytes, point.step_s) == (outcome.peak_bytes, outcome.step_s)
        beaten = any(
            o.peak_bytes <= point.peak_bytes and o.step_s <= point.step_s and o != outcome for o in found.values()
        )
        assert point.on_frontier is not beaten
        assert point.on_frontier or point.chosen or point.settings == {}
    shown = {(point.peak_bytes, point.step_s) for point in chosen.frontier}
    for outcome in found.values():  # whatever was tried is there, or something that is no worse
        assert any(peak <= outcome.peak_bytes and step_s <= outcome.step_s for peak, step_s in shown)
    assert sum(point.chosen for point in chosen.frontier) == 1
    assert [point.settings for point in chosen.frontier].count({}) == 1
    assert chosen.smallest_bytes == min(outcome.peak_bytes for outcome in found.values())
    assert chosen.choice.fits == (chosen.choice.outcome.peak_bytes <= limit_bytes)
    assert chosen.choice.fits or chosen.smallest_bytes > limit_bytes
    assert applied(spec, chosen.choice.settings) == chosen.choice.spec


# -- what is said --------------------------------------------------------------------------------------------------


def test_concessions_are_one_sentence_each_the_most_useful_first() -> None:
    def evaluate(spec: TrainSpec) -> Outcome:
        full = spec.checkpointing == "full"
        saved = (1_930_000_000 if full else 0) + (400_000_000 if spec.base == "nf4" else 0)
        return Outcome(6 * GB - saved, (1.31 if full else 1.0) * (1.02 if spec.base == "nf4" else 1.0))

    chosen = pick(LORA, 5 * GB, evaluate)
    assert [each.sentence for each in chosen.concessions] == [
        "nf4: −400 MB, +2.0 % time; rounds the frozen weights",
        "full checkpointing: −1.93 GB, +31 % time",
    ]
    nf4, full = chosen.concessions
    assert (nf4.fits, nf4.same_mathematics, full.fits, full.same_mathematics) == (False, False, True, True)
    assert (full.option, full.settings) == ("checkpointing: full", {"train.checkpointing": "full"})
    assert (full.bytes_change, full.step_change) == (-1_930_000_000, pytest.approx(0.31))
    assert [point.label for point in chosen.frontier] == ["full checkpointing", "nf4", "as written"]


def test_concessions_are_few_of_each_lever_and_the_chosen_is_among_them() -> None:
    chosen = pick(FULL, 1_500_000_000, realistic(3))
    assert len(chosen.concessions) <= 10
    assert chosen.choice.settings in [each.settings for each in chosen.concessions]
    assert len({each.sentence for each in chosen.concessions}) == len(chosen.concessions)
    quantised = [each for each in chosen.concessions if each.settings.get("train.base") == "nf4"]
    assert quantised[0].settings == {"train.adapter.kind": "lora", "train.base": "nf4"}
