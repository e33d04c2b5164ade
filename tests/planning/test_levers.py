"""The levers obey the task file's rules, and changes of settings can be written down and applied."""

from __future__ import annotations

from typing import Any

import pytest
from tests.planning.machines import FULL, LORA

from luthier.ground.errors import BadInput
from luthier.ground.spec import AdapterSpec, TrainSpec
from luthier.planning.choose import Outcome
from luthier.planning.levers import applied, combined, difference, label_of, options_of, written_keys
from luthier.planning.tradeoffs import pareto


def names(spec: TrainSpec, **more: Any) -> set[str]:
    return {option.lever for option in options_of(spec, **more)}


def test_what_a_machine_or_a_strategy_does_not_have_is_no_lever() -> None:
    assert {"tile", "layers"} <= names(LORA, layers=30)
    assert not {"tile", "layers"} & names(LORA, has_gpu=True)
    sharded = TrainSpec(strategy="fsdp", adapter=AdapterSpec(kind="full"))
    assert not {"optimizer", "masters"} & names(sharded)


def test_updates_in_the_backward_are_another_algorithm_only_where_clipping_is_lost() -> None:
    def tier(spec: TrainSpec) -> list[int]:
        return [option.tier for option in options_of(spec) if option.lever == "in_backward"]

    assert tier(FULL) == [2]
    assert tier(TrainSpec(max_grad_norm=None, adapter=AdapterSpec(kind="full"))) == [1]


def test_a_halved_rank_keeps_the_scale_of_the_update() -> None:
    for option in options_of(LORA):
        if option.lever == "rank":
            adapter = applied(LORA, dict(option.changes)).adapter
            assert adapter.alpha / adapter.rank == LORA.adapter.alpha / LORA.adapter.rank


@pytest.mark.parametrize("spec", [LORA, FULL, TrainSpec(pack_tokens=600, rows_per_step=8, precision="fp32")])
def test_difference_and_applied_are_each_others_inverse(spec: TrainSpec) -> None:
    for option in options_of(spec, 30):
        if (changed := combined(spec, (option,))) is not None:
            assert applied(spec, difference(spec, changed)) == changed
            assert difference(spec, changed)
    assert difference(spec, spec) == {}


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"train.base": "nf4"}, "full trains the weights"),
        ({"train.checkpoint": "full"}, "not permitted"),
        ({"data.train": "a"}, "not a key of train"),
        ({"train.seed.x": 1}, "valid integer"),
        ({"train": 1}, "not a key of train"),
    ],
)
def test_what_cannot_be_applied_is_bad_input(settings_: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        applied(FULL, settings_)


def test_options_that_would_be_idle_are_not_combined() -> None:
    lora, full = ({option.lever: option for option in options_of(spec, 30)} for spec in (LORA, FULL))
    assert combined(LORA, (lora["tile"],)) is None
    assert combined(LORA, (lora["checkpointing"], lora["tile"])) is not None
    for lever in ("optimizer", "masters", "in_backward"):
        assert combined(LORA, (lora[lever],)) is None
        assert combined(FULL, (full[lever],)) is not None
    assert combined(FULL, (full["rank"],)) is None
    assert combined(FULL, (full["base"],)) is None
    assert combined(FULL, (full["kind"], full["base"])) is not None


def test_what_the_task_file_sets_is_known_even_where_it_is_the_default() -> None:
    spec = TrainSpec(checkpointing="none", adapter=AdapterSpec(kind="full"))
    assert written_keys(spec) == {"train.checkpointing", "train.adapter.kind"}
    assert written_keys(LORA) == set()


def test_labels_are_short() -> None:
    options = {option.label: option for option in options_of(LORA)}
    several = [options[name] for name in ("nf4", "full checkpointing", "512-token packs")]
    assert label_of(several) == "nf4, full checkpointing, 512-token packs"
    assert label_of(()) == "as written"


def test_of_equal_configurations_the_chosen_one_is_on_the_frontier() -> None:
    a, b, *_ = options_of(LORA)
    found = {(): Outcome(5, 2.0), (a,): Outcome(3, 3.0), (b,): Outcome(3, 3.0), (a, b): Outcome(4, 3.0)}
    assert pareto(found) == {(), (a,)}
    assert pareto(found, first=(b,)) == {(), (b,)}
