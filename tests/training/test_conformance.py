"""Every way of taking a step passes the kit, and the kit refuses each fault that it is there for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from tiny_training import VOCABULARY, tiny_model, tiny_objective, tiny_spec
from torch import Tensor
from torch.nn import functional

from luthier.adapters.base import get_kind, remove_adapter
from luthier.ground.errors import Refused
from luthier.ground.spec import AdapterSpec, TrainSpec
from luthier.objectives.base import Objective
from luthier.rows.packing import one_pack
from luthier.rows.types import Encoded, Pack
from luthier.training.conformance import check_step
from luthier.training.engine.body import engine_for
from luthier.training.parallel.group import SOLO
from luthier.training.parallel.sharded import mesh_of, shard_model
from luthier.training.parallel.step import ParallelStep, ShardedStep
from luthier.training.spikes import Ceiling
from luthier.training.step import Step, StepOutcome, TorchStep
from models.tiny_models import tiny_model as tiny_family

FULL = {"adapter": {"kind": "full"}}


def rows() -> list[Encoded]:
    """Unequal rows with one to eight targets; the first three begin alike."""
    generator = np.random.default_rng(3)
    common = generator.integers(2, VOCABULARY, 18)
    made = []
    for number, (shared, own, targets) in enumerate([(18, 6, 1), (18, 3, 3), (18, 9, 8), (0, 5, 3), (0, 12, 4)]):
        ids = np.concatenate([common[:shared], generator.integers(2, VOCABULARY, own)])
        made.append(Encoded(ids, np.arange(len(ids)) >= len(ids) - targets, f"train.jsonl:{number + 1}"))
    return made


def steps_of(
    spec: TrainSpec,
    *,
    dtype: torch.dtype = torch.float32,
    dropout: float = 0.0,
    is_fast: bool = True,
    autocast: torch.dtype | None = None,
    cls: Callable[..., Step] = TorchStep,
) -> Callable[[Objective], contextlib.AbstractContextManager[Step]]:
    @contextlib.contextmanager
    def make(objective: Objective) -> Iterator[Step]:
        model = tiny_model(dropout) if dropout else tiny_family("llama")
        model = model.to(dtype).requires_grad_(False)
        kind = get_kind(spec.adapter.kind)
        kind.inject(model, spec.adapter, seed=0)
        try:
            trainable = kind.trainable(model)
            if not is_fast:
                yield cls(model, objective, trainable, spec, autocast)
                return
            with engine_for(model, spec, autocast) as engine:
                assert engine.name == ("general" if dropout or autocast else "fast"), engine.sentence
                yield cls(model, objective, trainable, spec, autocast)
        finally:
            remove_adapter(model)

    return make


BF16 = torch.bfloat16
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "general": ({}, {"is_fast": False}, {}),
    "general full": (FULL, {"is_fast": False}, {}),
    "fast": ({}, {}, {}),
    "fast, blocks again": ({"checkpointing": "full"}, {}, {}),
    "fast, gate and up again, tiles": ({"checkpointing": "selective", "mlp_tile": 64}, {}, {}),
    "fast full": (FULL, {}, {}),
    "fast lora in bf16": ({"precision": "bf16"}, {"dtype": BF16}, {"tolerance": 2e-2}),
    "fast full in bf16": ({**FULL, "precision": "bf16"}, {"dtype": BF16}, {"tolerance": 2e-2}),
    "without masters": (
        {"adapter": {"kind": "full", "masters": "none"}, "precision": "bf16"}, {"dtype": BF16}, {"tolerance": 2e-2}
    ),
    "in backward": (
        {**FULL, "optimizer_in_backward": True, "max_grad_norm": None}, {}, {"is_torn_by_gradients": True}
    ),
    "layers in turn": ({**FULL, "layers_in_turn": 1}, {}, {}),
    "8 bits": ({**FULL, "optimizer": "adamw8bit"}, {}, {}),
    "adafactor": ({**FULL, "optimizer": "adafactor"}, {}, {}),
    "autocast": ({}, {"autocast": BF16}, {"tolerance": 2e-2}),
    "float16": ({"precision": "fp16"}, {"autocast": torch.float16}, {"tolerance": 2e-2}),
    "one process of one": ({}, {"cls": lambda *a: ParallelStep(*a, group=SOLO)}, {}),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_it_passes_the_kit(way: str) -> None:
    changes, how, kit = WAYS[way]
    spec = tiny_spec(**{"weight_decay": 0.01, **changes})
    wanted = None if spec.precision == "fp16" or spec.layers_in_turn else mean_and_norm(spec.adapter)
    check_step(steps_of(spec, **how), tiny_objective(), rows(), reference=wanted, **kit)


@lru_cache(maxsize=4)
def mean_and_norm(adapter: AdapterSpec) -> tuple[float, float]:
    """Mean loss over all targets and the norm of its gradient, by plain transformers, one row at a time."""
    model = tiny_family("llama", attention="eager").requires_grad_(False)
    kind = get_kind(adapter.kind)
    kind.inject(model, adapter.model_copy(update={"masters": "fp32"}), seed=0)
    total, count = torch.zeros(()), 0
    for row in rows():
        ids_T, places = torch.from_numpy(row.ids_T), torch.from_numpy(np.flatnonzero(row.target_T))
        logits_TV = model(input_ids=ids_T[None]).logits[0]
        total = total + functional.cross_entropy(logits_TV[places - 1], ids_T[places], reduction="sum")
        count += len(places)
    gradients = torch.autograd.grad(total / count, list(kind.trainable(model).values()))
    remove_adapter(model)
    return total.item() / count, torch.cat([gradient.flatten() for gradient in gradients]).norm().item()


def test_weights_in_shards_pass_the_kit(tmp_path: Path) -> None:
    """FSDP's step, in a group of one: what several processes do with it is `test_parallel`'s affair."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=store)
    spec = tiny_spec(**FULL)
    try:

        @contextlib.contextmanager
        def make(objective: Objective) -> Iterator[Step]:
            model, kind = tiny_family("llama"), get_kind("full")
            kind.inject(model, spec.adapter, seed=0)
            root, trainable = shard_model(model, objective, mesh_of(SOLO), kind.trainable(model))
            yield ShardedStep(root, objective, trainable, spec, group=SOLO, filler=one_pack(rows()[:1]))

        check_step(make, tiny_objective(), rows(), reference=mean_and_norm(spec.adapter))
    finally:
        torch.distributed.destroy_process_group()


# -- faults ----------------------------------------------------------------------------------------------------------


class _CountsPacks(TorchStep):
    def _loss(self, pack: Pack) -> tuple[Tensor, int]:
        return super()._loss(pack)[0], 1


class _MeanOfMeans(TorchStep):
    def _loss(self, pack: Pack) -> tuple[Tensor, int]:
        loss, count = super()._loss(pack)
        return loss / count, count


class _SumOfGradients(TorchStep):
    def _grad_norm(self, count: int) -> float:
        return super()._grad_norm(count) * count


class _ForgetsTheLastPack(TorchStep):
    def _accumulate(self, packs: Sequence[Pack], learning_rate: float) -> tuple[float, int]:
        loss, _ = super()._accumulate(packs[:-1] or packs, learning_rate)
        return loss, sum(pack.target_tokens for pack in packs)


class _SharedTargetsTwice(TorchStep):
    """Takes the places of a pack for its rows, as if nothing were shared."""

    def _loss(self, pack: Pack) -> tuple[Tensor, int]:
        return super()._loss(Pack(pack.ids_T, pack.positions_T, pack.target_T, pack.lengths, pack.places))


class _StepsAnyway(TorchStep):
    def run(self, packs: Sequence[Pack], learning_rate: float, ceiling: Ceiling | None = None) -> StepOutcome:
        try:
            return super().run(packs, learning_rate, ceiling)
        except Refused:
            return StepOutcome(float("nan"), 1, 0.0)


class _LeavesTraces(TorchStep):
    def _refuse(self, what: str, packs: Sequence[Pack], how: type[Refused] = Refused) -> NoReturn:
        next(iter(self._trainable.values())).data.mul_(1.001)
        super()._refuse(what, packs, how)


class _NamesNobody(TorchStep):
    def _places(self, packs: Sequence[Pack]) -> list[str]:
        return ["somewhere"]

    def _guilty(self, what: str, packs: Sequence[Pack]) -> list[str]:
        return self._places(packs)


class _DrawsInEvaluation(TorchStep):
    def evaluate(self, packs: Sequence[Pack]) -> tuple[float, int]:
        torch.rand(1)
        return super().evaluate(packs)


class _TrainsInEvaluation(TorchStep):
    def evaluate(self, packs: Sequence[Pack]) -> tuple[float, int]:
        result = super().evaluate(packs)
        next(iter(self._trainable.values())).data.mul_(1.001)
        return result


class _SavesOnlyWeights(TorchStep):
    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in super().tensors().items() if name.startswith("weight/")}


class _RestoresOnlyWeights(TorchStep):
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.restore_weights(tensors)


class _RestoresNoWeights(TorchStep):
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        super().restore_weights(tensors)
        self._updates.restore(tensors)

    def restore_weights(self, tensors: Mapping[str, Tensor]) -> None:
        pass


class _HasItsOwnRate(TorchStep):
    def run(self, packs: Sequence[Pack], learning_rate: float, ceiling: Ceiling | None = None) -> StepOutcome:
        return super().run(packs, 1e-3, ceiling)


class _Climbs(TorchStep):
    def run(self, packs: Sequence[Pack], learning_rate: float, ceiling: Ceiling | None = None) -> StepOutcome:
        return super().run(packs, -learning_rate, ceiling)


@pytest.mark.parametrize(
    ("faulty", "sentence"),
    [
        (_CountsPacks, "counts 1 targets"),
        (_MeanOfMeans, "mean loss, against the reference"),
        (_SumOfGradients, "norm of its gradient, against the reference"),
        (_ForgetsTheLastPack, "one row at a time: the loss"),
        (_SharedTargetsTwice, "common beginnings once"),
        (_StepsAnyway, "a step is taken on a loss that is not finite"),
        (_LeavesTraces, "refused for its loss changes weight/"),
        (_NamesNobody, "the row train.jsonl:4 is not named"),
        (_DrawsInEvaluation, "evaluating changes state of the random numbers"),
        (_TrainsInEvaluation, "evaluating twice"),
        (_SavesOnlyWeights, "a fresh step goes on otherwise"),
        (_RestoresOnlyWeights, "a fresh step: restoring changes what there is"),
        (_RestoresNoWeights, "restoring weights leaves"),
        (_HasItsOwnRate, "a rate of 0 moves"),
        (_Climbs, "do not lower the loss"),
    ],
)
def test_the_kit_refuses(faulty: type[TorchStep], sentence: str) -> None:
    spec = tiny_spec(**FULL)
    with pytest.raises(AssertionError, match=sentence):
        check_step(steps_of(spec, cls=faulty), tiny_objective(), rows(), reference=mean_and_norm(spec.adapter))


def test_the_kit_refuses_steps_that_are_without_reference_no_means() -> None:
    for faulty in (_MeanOfMeans, _SumOfGradients):
        with pytest.raises(AssertionError, match=r"one row at a time|rows twice"):
            check_step(steps_of(tiny_spec(), cls=faulty), tiny_objective(), rows())
