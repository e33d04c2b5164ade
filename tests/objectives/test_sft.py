"""sft against transformers' own loss and a NumPy reference; weights mean what they say; noise as published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM
from transformers.integrations.neftune import neftune_post_forward_hook
from transformers.loss.loss_utils import ForCausalLMLoss

from luthier.ground.errors import BadInput, Interrupted
from luthier.ground.spec import TrainSpec
from luthier.objectives.base import ObjectiveContext, make_objective
from luthier.objectives.conformance import FloatArray, check_objective
from luthier.objectives.noise import noise_like, noisy_embeddings
from luthier.objectives.sft import SupervisedFinetuning
from luthier.rows.packing import one_pack, tree_pack
from luthier.rows.types import Encoded, Message, Row, ToolCall
from luthier.training.engine.body import engine_for, fast_body
from rows.conftest import make_renderer
from rows.test_tools import TOOLS, tool_renderer
from training.tiny_training import tiny_model, tiny_run, tiny_spec

TALK = (
    Message("user", "Hi"),
    Message("assistant", "Hello"),
    Message("user", "And now?"),
    Message("assistant", "Bye"),
)
ROWS = [
    Row("1", "t:1", TALK),
    Row("2", "t:2", TALK[2:], weight=2.0),
    Row("3", "t:3", (TALK[0], replace(TALK[1], train=False), *TALK[2:]), weight=0.5),
    Row("4", "t:4", text="raw text"),
]


def objective_of(**train: object) -> SupervisedFinetuning:
    made = make_objective("sft", ObjectiveContext(make_renderer("chatml"), train=TrainSpec(**train)))
    assert isinstance(made, SupervisedFinetuning)
    return made


@cache
def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    vocabulary = len(make_renderer("chatml").tokenizer)
    config = GPT2Config(
        vocab_size=vocabulary, n_embd=8, n_layer=2, n_head=2, n_positions=128, initializer_range=0.3, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def weighted_cross_entropy_in_numpy(logits: Sequence[FloatArray], encoded: Sequence[Encoded]) -> float:
    total = 0.0
    for logits_TV, row in zip(logits, encoded, strict=True):
        for place in np.flatnonzero(row.target_T):
            scores = logits_TV[place - 1]
            highest = scores.max()
            loss = highest + np.log(np.exp(scores - highest).sum()) - scores[row.ids_T[place]]
            total += loss * (1.0 if row.weight_T is None else row.weight_T[place])
    return float(total)


@pytest.mark.parametrize("train", [{}, {"turns": "last"}, {"prompt_loss_weight": 0.25}, {"prompt_loss_weight": 1.0}])
def test_the_kit_with_weights_of_rows_and_prompts(train: dict[str, object]) -> None:
    check_objective(objective_of(**train), model(), ROWS, reference=weighted_cross_entropy_in_numpy)


@pytest.mark.parametrize("train", [{}, {"turns": "last"}, {"prompt_loss_weight": 1.0}])
def test_the_loss_of_transformers(train: dict[str, object]) -> None:
    """On a padded batch with labels −100 outside the mask: the same mean."""
    objective, wide = objective_of(**train), model()
    encoded = [objective.encode(replace(row, weight=1.0)) for row in ROWS]
    longest = max(map(len, encoded))
    ids, labels, seen = (torch.full((len(encoded), longest), fill) for fill in (0, -100, 0))
    for number, row in enumerate(encoded):
        ids[number, : len(row)] = torch.from_numpy(row.ids_T)
        labels[number, : len(row)] = torch.from_numpy(np.where(row.target_T, row.ids_T, -100))
        seen[number, : len(row)] = 1
    with torch.no_grad():
        theirs = ForCausalLMLoss(wide(input_ids=ids, attention_mask=seen).logits, labels, wide.config.vocab_size)
        loss, weight = objective.loss(wide, one_pack(encoded))
    assert weight == int((labels != -100).sum())
    torch.testing.assert_close(loss / weight, theirs, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    weights=st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=4),
    prompt_weight=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_a_row_of_weight_two_is_the_row_twice(weights: list[float], prompt_weight: float) -> None:
    objective = objective_of(prompt_loss_weight=prompt_weight)
    rows = [replace(row, weight=weight) for row, weight in zip(ROWS, weights, strict=False)]
    doubled = [replace(rows[0], weight=2 * rows[0].weight), *rows[1:]]
    with torch.no_grad():
        (a, a_weight), (b, b_weight) = (
            objective.loss(model(), one_pack([objective.encode(row) for row in chosen]))
            for chosen in ([rows[0], *rows], doubled)
        )
    assert a_weight == pytest.approx(b_weight)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_row_of_weight_zero_has_no_target() -> None:
    encoded = objective_of(prompt_loss_weight=0.5).encode(replace(ROWS[0], weight=0.0))
    assert encoded.target_tokens == 0


def test_prompt_tokens_of_rows_that_begin_alike_stay_targets_when_beginnings_are_shared() -> None:
    objective = objective_of(prompt_loss_weight=0.5)
    asked = "What is the capital of France, and of Spain, and of Italy? "
    rows = [Row(str(n), f"t:{n}", (Message("user", asked), Message("assistant", a))) for n, a in enumerate("xyz")]
    encoded = sorted((objective.encode(row) for row in rows), key=lambda row: row.ids_T.tolist())
    with torch.no_grad():
        shared, alone = (objective.loss(model(), pack(encoded)) for pack in (tree_pack, one_pack))
    assert shared[1] == alone[1]
    torch.testing.assert_close(shared[0], alone[0], rtol=1e-5, atol=1e-5)


def test_a_question_is_asked_with_its_tools() -> None:
    objective = SupervisedFinetuning(ObjectiveContext(tool_renderer("qwen")))
    talk = (Message("user", "x"), Message("assistant", "", tool_calls=(ToolCall("weather", "{}"),)))
    encoded = objective.encode(Row("1", "t:1", talk, tools=TOOLS))
    prompt = objective.ask(Row("1", "t:1", talk[:1], tools=TOOLS))
    assert encoded.ids_T[: len(prompt)].tolist() == prompt and encoded.target_T[len(prompt)]


@pytest.mark.parametrize("name", ["pretrain", "infill", "classify"])
def test_settings_of_sft_are_refused_elsewhere(name: str) -> None:
    with pytest.raises(ValidationError, match="turns and neftune_alpha of train is for objective: sft"):
        TrainSpec(objective=name, turns="last", neftune_alpha=5.0)


def test_noise_is_refused_for_encoder_decoders() -> None:
    context = ObjectiveContext(None, train=TrainSpec(neftune_alpha=5.0), architecture="encoder-decoder")
    with pytest.raises(BadInput, match="a decoder alone"):
        make_objective("sft", context)


# -- noise ---------------------------------------------------------------------------------------------------------


def test_noise_of_one_row_is_that_of_transformers() -> None:
    embedding = nn.Embedding(30, 8)
    embedding.neftune_noise_alpha = 5.0  # type: ignore[assignment]
    ids = torch.arange(12)[None]
    torch.manual_seed(3)
    theirs = neftune_post_forward_hook(embedding, None, embedding(ids))
    torch.manual_seed(3)
    ours = embedding(ids) + noise_like(embedding(ids), [12], 5.0)
    torch.testing.assert_close(ours, theirs)


def test_noise_is_bounded_by_each_rows_own_length() -> None:
    lengths, width, alpha = [4, 100, 16], 64, 5.0
    noise = noise_like(torch.zeros(1, sum(lengths) + 8, width), lengths, alpha)
    assert noise.shape == (sum(lengths) + 8, width) and not noise[sum(lengths) :].any()
    for part, length in zip(noise[: sum(lengths)].split(lengths), lengths, strict=True):
        bound = alpha / (length * width) ** 0.5
        assert bound * 0.9 < part.abs().max() <= bound
        assert part.var() == pytest.approx(bound**2 / 3, rel=0.3)


def pack_and_losses(alpha: float | None, seed: int = 0) -> float:
    pack = one_pack(
        [Encoded(np.arange(2, 9), np.arange(7) > 3, "t:1"), Encoded(np.arange(3, 20), np.arange(17) > 3, "t:2")]
    )
    objective = SupervisedFinetuning(ObjectiveContext(None, train=TrainSpec(neftune_alpha=alpha)))
    torch.manual_seed(seed)
    return objective.loss(noisy_model(), pack)[0].item()


@cache
def noisy_model() -> LlamaForCausalLM:
    return tiny_model()


def test_noise_only_while_training_and_the_same_in_the_fast_engine() -> None:
    trained = noisy_model()
    trained.eval()
    plain = pack_and_losses(None)
    assert pack_and_losses(5.0) == plain
    trained.train()
    noisy = pack_and_losses(5.0)
    assert noisy != plain and noisy == pack_and_losses(5.0) and noisy != pack_and_losses(5.0, seed=1)
    with fast_body(trained) as engine:
        assert engine.name == "fast"
        assert pack_and_losses(5.0) == pytest.approx(noisy, rel=1e-5)
    assert not trained.get_input_embeddings()._forward_hooks
    trained.eval()


def test_nothing_is_kept_or_shared_that_noise_changes() -> None:
    spec = TrainSpec(neftune_alpha=5.0, precision="fp32", epochs=2.0)
    trained = tiny_model()
    trained.requires_grad_(False)
    trained.model.layers[1].requires_grad_(True)
    rows = [Encoded(np.arange(2, 9), np.arange(7) > 3, "t:1")]
    with engine_for(trained, spec) as engine:
        assert not engine.shares
        assert engine.body is None or engine.remember_frozen(rows, spec, Path(), 64) == ""


def test_noise_in_the_middle_of_a_failure_leaves_no_hook() -> None:
    trained = tiny_model().train()
    with pytest.raises(KeyError), noisy_embeddings(trained, [3], 5.0):
        raise KeyError
    assert not trained.get_input_embeddings()._forward_hooks


def test_a_resumed_run_with_noise_is_the_undisturbed_one(tmp_path: Path) -> None:
    spec = tiny_spec(neftune_alpha=5.0, save_every=1)
    objective = SupervisedFinetuning(ObjectiveContext(None, train=spec))

    def stop(event: dict[str, object]) -> None:
        if event["kind"] == "step" and event["step"] == 5:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)

    whole = tiny_run(tmp_path / "whole", spec, objective=objective)
    with pytest.raises(Interrupted):
        tiny_run(tmp_path / "parts", spec, objective=objective, tell=stop)
    resumed = tiny_run(tmp_path / "parts", spec, objective=objective, resume=True)
    losses = [[record.loss for record in outcome.history] for outcome in (whole, resumed)]
    assert losses[0] == losses[1] and whole.evals == resumed.evals
    plain = tiny_run(tmp_path / "plain", tiny_spec(save_every=1))
    assert [record.loss for record in plain.history] != losses[0]
