"""The conformance kit passes what is right and refuses each fault that it is there for; sft passes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from luthier.ground.errors import BadInput
from luthier.models.packed import hidden_states, logits_at
from luthier.models.segments import Segments
from luthier.objectives.base import OBJECTIVES, ObjectiveContext, make_objective
from luthier.objectives.conformance import FloatArray, check_objective
from luthier.objectives.sft import SupervisedFinetuning
from luthier.rows.packing import one_pack
from luthier.rows.types import Encoded, Message, Pack, Row

ROWS = [
    Row(id=str(i), place=f"train.jsonl:{i + 1}", messages=(Message("user", question), Message("assistant", answer)))
    for i, (question, answer) in enumerate([("abc", "de"), ("fghij", "k"), ("l", "mnopq"), ("rs", "tuv")])
]


class LetterRenderer:
    """A stand-in: letters are tokens, and an assistant's letters and the end token 1 are targets."""

    def encode_row(self, row: Row, *, train: str = "all", prompt_weight: float = 0.0) -> Encoded:
        ids, mask = [0], [False]
        for message in row.messages or ():
            letters = [ord(letter) - ord("a") + 2 for letter in message.content] + [1]
            ids += letters
            mask += [message.role == "assistant"] * len(letters)
        return Encoded(np.array(ids, dtype=np.int64), np.array(mask), row.place)


def tiny_gpt2(tied: bool = False) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=30, n_embd=8, n_layer=2, n_head=2, n_positions=64, tie_word_embeddings=tied, initializer_range=0.3
    )
    return GPT2LMHeadModel(config)


def cross_entropy_in_numpy(logits: Sequence[FloatArray], encoded: Sequence[Encoded]) -> float:
    total = 0.0
    for logits_TV, row in zip(logits, encoded, strict=True):
        for place in np.flatnonzero(row.target_T):
            scores = logits_TV[place - 1]
            highest = scores.max()
            total += highest + np.log(np.exp(scores - highest).sum()) - scores[row.ids_T[place]]
    return float(total)


@pytest.mark.parametrize("tied", [False, True])
def test_sft_passes_the_kit(tied: bool) -> None:
    check_objective(_sft(), tiny_gpt2(tied), ROWS, reference=cross_entropy_in_numpy)


def test_sft_passes_the_kit_with_a_frozen_head() -> None:
    model = tiny_gpt2()
    model.requires_grad_(False)
    model.transformer.h[0].requires_grad_(True)
    check_objective(_sft(), model, ROWS, reference=cross_entropy_in_numpy)


def test_the_registry_knows_sft_and_names_the_nearest() -> None:
    assert isinstance(make_objective("sft", ObjectiveContext(LetterRenderer())), SupervisedFinetuning)  # type: ignore[arg-type]
    assert "sft" in OBJECTIVES.names()
    with pytest.raises(BadInput, match='did you mean "sft"'):
        make_objective("sftt", ObjectiveContext(LetterRenderer()))  # type: ignore[arg-type]


def test_the_head_runs_at_predicting_positions_only() -> None:
    model, objective = tiny_gpt2(), _sft()
    encoded = [objective.encode(row) for row in ROWS]
    rows: list[int] = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    _, count = objective.loss(model, one_pack(encoded))
    assert sum(rows) == count == sum(row.target_tokens for row in encoded) < sum(map(len, encoded))


class _Mean(SupervisedFinetuning):
    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        loss, count = super().loss(model, pack)
        return loss / count, count


class _WrongCount(SupervisedFinetuning):
    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        return super().loss(model, pack)[0], len(pack) // 2


class _Unshifted(SupervisedFinetuning):
    """Predicts each target from its own position, the classic off-by-one."""

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        return _own_loss(model, pack, shift=0)


class _EverythingIsATarget(SupervisedFinetuning):
    """Counts the targets, but trains the prompt too."""

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        loss, _ = super().loss(model, replace(pack, target_T=pack.positions_T > 0))
        return loss, pack.target_tokens


class _Leaky(SupervisedFinetuning):
    """Forgets where one row ends and the next begins."""

    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        return _own_loss(model, replace(pack, lengths=(len(pack),)), shift=1)


class _WrongGradient(SupervisedFinetuning):
    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        loss, count = super().loss(model, pack)
        return 2 * loss - loss.detach(), count


class _Double(SupervisedFinetuning):
    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, int]:
        loss, count = super().loss(model, pack)
        return 2 * loss, count


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (_Mean, "the sum is"),
        (_WrongCount, "counts"),
        (_Unshifted, "depends on tokens at or after it"),
        (_EverythingIsATarget, "depends on tokens at or after it|outside the mask"),
        (_Leaky, "the sum is"),
        (_WrongGradient, "finite differences"),
        (_Double, "the reference says"),
    ],
)
def test_the_kit_refuses(broken: type[SupervisedFinetuning], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_objective(broken(ObjectiveContext(LetterRenderer())), tiny_gpt2(), ROWS, reference=cross_entropy_in_numpy)  # type: ignore[arg-type]


def _sft() -> SupervisedFinetuning:
    return SupervisedFinetuning(ObjectiveContext(LetterRenderer()))  # type: ignore[arg-type]


def _own_loss(model: nn.Module, pack: Pack, shift: int) -> tuple[Tensor, int]:
    ids, positions = torch.from_numpy(pack.ids_T), torch.from_numpy(pack.positions_T)
    targets = torch.from_numpy(np.flatnonzero(pack.target_T))
    hidden = hidden_states(model, ids, positions, Segments(pack.lengths, pack.parents))
    logits = logits_at(model, hidden[targets - shift])
    return nn.functional.cross_entropy(logits, ids[targets], reduction="sum"), pack.target_tokens
