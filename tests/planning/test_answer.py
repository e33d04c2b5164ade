"""One answer out of the parts: device, time, several devices, notes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.planning.small import small_config

from luthier.ground.errors import BadInput
from luthier.ground.spec import TrainSpec
from luthier.machine.catalogue import find_device
from luthier.planning import answer as planning
from luthier.planning.answer import answer
from luthier.planning.choose import Chosen, Evaluate
from luthier.planning.question import Question
from luthier.planning.workload import Workload, made_up

FULL: dict[str, Any] = {"adapter": {"kind": "full"}}


def asked(spec: TrainSpec | None = None, **more: Any) -> Question:
    spec = spec or TrainSpec(rows_per_step=4)
    values: dict[str, Any] = {
        "name": "small",
        "config": small_config("llama", num_hidden_layers=2),
        "spec": spec,
        "method": spec.adapter.kind,
        "load": lambda of: made_up(32, 4, of),
        "device": find_device("H100"),
        "baseline_bytes": 10_000_000,
        "look_around": False,
    }
    return Question(**{**values, **more})


def test_another_device_is_marked_unverified() -> None:
    on_h100 = answer(asked())
    assert not on_h100.verified and any(text.startswith("Unverified") for text in on_h100.warnings)
    here = replace(find_device("EPYC 9654"), measured=True)
    on_this = answer(asked(device=here))
    assert on_this.verified and on_this.warnings == []
    assert not answer(asked(device=replace(here, measured=False))).verified


def test_a_run_takes_its_tokens_in_steps_as_heavy_as_the_heaviest() -> None:
    def load(of: TrainSpec) -> Workload:
        return replace(made_up(32, 4, of), steps=10, all_tokens=1000)

    result = answer(asked(load=load))
    assert result.total_s == pytest.approx(result.step_s * 1000 / 128)
    assert result.pace.steps == 10 and result.pace.total_s == result.total_s
    assert result.pace.tokens_per_s == pytest.approx(128 / result.step_s)
    assert result.cost is not None and result.cost.hours == pytest.approx(result.total_s / 3600)
    free = answer(asked())
    assert (free.total_s, free.pace.steps, free.cost) == (None, None, None)


@pytest.mark.parametrize("limit", [None, 10**6, 10**12])
def test_it_fits_if_the_peak_is_within_the_limit(limit: int | None) -> None:
    result = answer(asked(limit_bytes=limit, limit_source="a limit"))
    assert result.fits is (None if limit is None else result.peak_bytes <= limit)
    assert result.terms.total == result.peak_bytes
    assert ("a limit" in result.sentence) is (limit is not None)
    assert all(moment.peak_bytes <= result.peak_bytes for moment in result.moments)


def test_ddp_holds_everything_on_each_device_and_fsdp_a_share() -> None:
    spec = TrainSpec(rows_per_step=4, **FULL)
    one = answer(asked(spec)).terms
    ddp = answer(asked(TrainSpec(rows_per_step=4, strategy="ddp", **FULL), devices=4))
    fsdp = answer(asked(TrainSpec(rows_per_step=4, strategy="fsdp", **FULL), devices=4))
    assert ddp.parallel is not None and fsdp.parallel is not None
    for same in ("weights_bytes", "gradients_bytes", "optimizer_bytes", "activations_bytes"):
        assert getattr(ddp.terms, same) == getattr(one, same), same
    assert ddp.terms.temporary_bytes > one.temporary_bytes
    assert fsdp.terms.optimizer_bytes < one.optimizer_bytes / 3
    assert fsdp.terms.activations_bytes == one.activations_bytes
    assert ddp.step_s == pytest.approx(ddp.parallel.network_s + ddp.parallel.arithmetic_s)
    assert fsdp.step_s == pytest.approx(max(fsdp.parallel.network_s, fsdp.parallel.arithmetic_s))
    assert ddp.parallel.arithmetic_s < answer(asked(spec)).step_s
    assert {note.source for note in fsdp.notes} > {note.source for note in answer(asked(spec)).notes}


def test_inference_asks_for_no_training() -> None:
    result = answer(asked(method="inference", look_around=True))
    assert result.terms.optimizer_bytes == result.terms.gradients_bytes == 0
    assert result.terms.kv_cache_bytes == 2 * 2 * 2 * 16 * 32 * 4 * 2  # k, v x layers x heads x width x tokens x rows
    assert result.textbook_bytes == round(1.2 * 2 * result.parameters)
    assert (result.concessions, result.frontier, result.smallest_bytes) == ([], [], None)


def test_updates_in_the_backward_are_never_chosen_for_several_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TrainSpec(rows_per_step=4, max_grad_norm=None, **FULL)
    early = spec.model_copy(update={"optimizer_in_backward": True})
    evaluations: list[Evaluate] = []
    real = planning.choose

    def watched(written: TrainSpec, evaluate: Evaluate, *rest: Any, **more: Any) -> Chosen:
        evaluations.append(evaluate)
        return real(written, evaluate, *rest, **{**more, "evaluations": 2})

    monkeypatch.setattr(planning, "choose", watched)
    for devices in (1, 4):
        answer(asked(spec, devices=devices, look_around=True))
    alone, several = evaluations
    assert 0 < alone(early).peak_bytes <= alone(spec).peak_bytes
    with pytest.raises(BadInput, match="several processes"):
        several(early)


@pytest.mark.parametrize(
    ("settings", "term", "said"),
    [
        ({"optimizer": "adafactor", **FULL}, "optimizer", "Shazeer"),
        ({"optimizer": "adamw8bit", **FULL}, "optimizer", "8 bits in blocks of 256"),
        ({"checkpointing": "full"}, "activations", "only each block's input"),
        ({"base": "nf4"}, "weights", "with their scales"),
        ({}, "adapters", "trained weights in float32"),
    ],
)
def test_a_note_says_what_the_term_comes_from(settings: dict[str, Any], term: str, said: str) -> None:
    result = answer(asked(TrainSpec(rows_per_step=4, **settings)))
    [note] = [note for note in result.notes if note.term == term]
    assert said in note.formula + note.source
    assert getattr(result.terms, f"{term}_bytes") > 0
