"""Classification passes the kit for each kind of labels and of model; its loss is that of transformers' classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from luthier.ground.errors import BadInput
from luthier.ground.spec import TrainSpec
from luthier.models.head import classification_head
from luthier.objectives.base import ObjectiveContext, make_objective
from luthier.objectives.classify import Classification
from luthier.objectives.conformance import FloatArray, check_objective
from luthier.rows.labels import LabelSet
from luthier.rows.packing import one_pack, pack_rows
from luthier.rows.template import RowRefused
from luthier.rows.types import Encoded, Message, Pack, Row

TEXTS = ["abc", "fghij", "l", "rstuvwxyz"]
ANSWERS = {"single": ["b", "a", "c", "b"], "multi": ['["a"]', '["b", "c"]', "[]", '["c"]'], "regression": list("3142")}
SETS = {
    "single": LabelSet("single", ("a", "b", "c"), {"a": 1, "b": 2, "c": 1}, 4),
    "multi": LabelSet("multi", ("a", "b", "c"), {"a": 1, "b": 1, "c": 2}, 4),
    "regression": LabelSet("regression", rows=4, mean=2.5, scale=1.25),
}
ARCHITECTURES = ("decoder", "encoder", "encoder-decoder")


class LetterTokens:
    """Letters are tokens, 1 ends a text."""

    def encode_document(self, text: str) -> list[int]:
        return [ord(letter) - ord("a") + 3 for letter in text if letter.isalpha()] + [1]


class LetterRenderer:
    """A prompt is its last message's letters and the token 2, which asks for an answer."""

    tokens = LetterTokens()

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        return [*self.tokens.encode_document(messages[-1].content), 2]


def rows(kind: str, weights: Sequence[float] = (1, 1, 1, 1)) -> list[Row]:
    return [
        Row(str(n), f"t:{n}", (Message("user", text), Message("assistant", answer)), weight=weight)
        for n, (text, answer, weight) in enumerate(zip(TEXTS, ANSWERS[kind], weights, strict=True))
    ]


def model_of(architecture: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if architecture == "decoder":
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=40, n_embd=8, n_layer=2, n_head=2, n_positions=32, initializer_range=0.3)
        )
    if architecture == "encoder":
        return BertModel(
            BertConfig(
                vocab_size=40, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
                max_position_embeddings=32, initializer_range=0.3,
            )
        )  # fmt: skip
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=40, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=12, decoder_ffn_dim=12, max_position_embeddings=32,
            decoder_start_token_id=2, bos_token_id=0, pad_token_id=39, eos_token_id=1, init_std=0.3, dropout=0.0,
        )
    )  # fmt: skip


def objective_of(kind: str, model: PreTrainedModel, architecture: Any, weights: Any = "none") -> Classification:
    made = make_objective(
        "classify",
        ObjectiveContext(
            LetterRenderer(),  # type: ignore[arg-type]
            train=TrainSpec(class_weights=weights),
            labels=SETS[kind],
            architecture=architecture,
            config=model.config,
        ),
    )
    assert isinstance(made, Classification)
    return made


def loss_in_numpy(kind: str, architecture: str, of_labels: FloatArray | None = None) -> Callable[..., float]:
    """Return the loss from the head's scores at each token: of the last token, or their mean for an encoder."""

    def loss(scores: Sequence[FloatArray], encoded: Sequence[Encoded]) -> float:
        total = 0.0
        for scores_TL, row in zip(scores, encoded, strict=True):
            assert row.label_L is not None
            logits_L = scores_TL.mean(0) if architecture == "encoder" else scores_TL[-1]
            weight = 1.0 if row.weight_T is None else float(row.weight_T[-1])
            if kind == "single":
                one = np.log(np.exp(logits_L).sum()) - logits_L[row.label_L.argmax()]
            elif kind == "multi":
                chance_L = 1 / (1 + np.exp(-logits_L))
                each_L = -(row.label_L * np.log(chance_L) + (1 - row.label_L) * np.log(1 - chance_L))
                one = (each_L * (np.ones(3) if of_labels is None else of_labels)).mean()
            else:
                one = float((logits_L[0] - row.label_L[0]) ** 2)
            total += weight * one
        return total

    return loss


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_classification_passes_the_kit(kind: str, architecture: str) -> None:
    model = model_of(architecture)
    objective = objective_of(kind, model, architecture)
    check_objective(objective, model, rows(kind, (1, 2.5, 1, 0.5)), reference=loss_in_numpy(kind, architecture))


def test_class_weights_weight_rows_and_are_the_divisor() -> None:
    model = model_of("decoder")
    objective = objective_of("single", model, "decoder", {"a": 3.0, "b": 0.5})
    check_objective(objective, model, rows("single"), reference=loss_in_numpy("single", "decoder"))
    objective.head.apply(model, seed=0)
    _, weight = objective.loss(model, one_pack([objective.encode(row) for row in rows("single")]))
    assert weight == pytest.approx(0.5 + 3.0 + 1.0 + 0.5)


def test_class_weights_of_several_labels_keep_the_rows_weight() -> None:
    model = model_of("decoder")
    objective = objective_of("multi", model, "decoder", {"a": 4.0})
    reference = loss_in_numpy("multi", "decoder", np.array([4.0, 1.0, 1.0]) / 2.0)
    check_objective(objective, model, rows("multi"), reference=reference)


class _Mean(Classification):
    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, float]:
        loss, weight = super().loss(model, pack)
        return loss / weight, weight


class _FirstToken(Classification):
    """Reads the label from the first token, which has read nothing."""

    def states(self, model: nn.Module, pack: Pack) -> Tensor:
        starts = np.cumsum([0, *pack.lengths[:-1]])
        target_T = np.zeros_like(pack.target_T)
        target_T[starts] = True
        return super().states(model, replace(pack, target_T=target_T))


class _LabelsInAnotherOrder(Classification):
    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, float]:
        assert pack.label_RL is not None
        return super().loss(model, replace(pack, label_RL=pack.label_RL[::-1].copy()))


class _ForgetsWeights(Classification):
    def loss(self, model: nn.Module, pack: Pack) -> tuple[Tensor, float]:
        loss, _ = super().loss(model, replace(pack, weight_T=None))
        return loss, pack.target_weight


class _Leaky(Classification):
    def states(self, model: nn.Module, pack: Pack) -> Tensor:
        return super().states(model, replace(pack, lengths=(len(pack.ids_T),)))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (_Mean, "the sum is"),
        (_FirstToken, "the sum is|depends"),
        (_LabelsInAnotherOrder, "the sum is"),
        (_ForgetsWeights, "the reference says"),
        (_Leaky, "the sum is"),
    ],
)
def test_the_kit_refuses(broken: type[Classification], sentence: str) -> None:
    model = model_of("decoder")
    context = ObjectiveContext(LetterRenderer(), labels=SETS["single"], config=model.config)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match=sentence):
        check_objective(
            broken(context), model, rows("single", (1, 2, 1, 3)), reference=loss_in_numpy("single", "decoder")
        )


def test_the_kit_sees_a_leak_between_rows_of_an_encoder() -> None:
    model = model_of("encoder")
    context = ObjectiveContext(
        LetterRenderer(), labels=SETS["single"], architecture="encoder", config=model.config  # type: ignore[arg-type]
    )  # fmt: skip

    class _OneRow(Classification):
        def states(self, model: nn.Module, pack: Pack) -> Tensor:
            whole = super().states(model, replace(pack, lengths=(len(pack.ids_T),)))
            return whole.expand(len(pack.lengths), -1)

    with pytest.raises(AssertionError, match="the sum is"):
        check_objective(_OneRow(context), model, rows("single"))


# -- parity with transformers ------------------------------------------------------------------------------------------


def _head_like(model: PreTrainedModel, objective: Classification, weight: Tensor, bias: Tensor | None) -> None:
    objective.head.apply(model, seed=0)
    head = classification_head(model)
    with torch.no_grad():
        head.weight_LD.copy_(weight)
        if bias is not None:
            head.bias_L.copy_(bias)


PROBLEMS = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}


def _theirs(kind: str, encoded: Sequence[Encoded]) -> Tensor:
    labels_RL = torch.from_numpy(np.stack([row.label_L for row in encoded if row.label_L is not None]))
    return labels_RL.argmax(-1) if kind == "single" else labels_RL.squeeze(-1) if kind == "regression" else labels_RL


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_a_decoders_loss_is_that_of_transformers(kind: str) -> None:
    model = model_of("decoder").eval()
    objective = objective_of(kind, model, "decoder")
    config = model.config.from_dict({**model.config.to_dict(), "num_labels": objective.head.facts.outputs})
    config.problem_type, config.pad_token_id = PROBLEMS[kind], 39
    theirs = GPT2ForSequenceClassification(config).eval()
    theirs.transformer.load_state_dict(model.transformer.state_dict())
    _head_like(model, objective, theirs.score.weight, None)
    encoded = [objective.encode(row) for row in rows(kind)]
    longest = max(map(len, encoded))
    ids = torch.tensor([[*row.ids_T.tolist(), *[39] * (longest - len(row))] for row in encoded])
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=(ids != 39).long(), labels=_theirs(kind, encoded)).loss
        loss, weight = objective.loss(model, one_pack(encoded))
    assert loss.item() / weight == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_an_encoders_loss_is_that_of_transformers_on_the_same_pooled_state(kind: str) -> None:
    """BERT's own classifier reads a pooler; with the identity in its place and mean pooling the heads are the same."""
    model = model_of("encoder").eval()
    objective = objective_of(kind, model, "encoder")
    config = model.config.from_dict({**model.config.to_dict(), "num_labels": objective.head.facts.outputs})
    config.problem_type = PROBLEMS[kind]
    theirs = BertForSequenceClassification(config).eval()
    theirs.bert.load_state_dict(model.state_dict())

    class _MeanPooler(nn.Module):
        def forward(self, hidden_1TD: Tensor) -> Tensor:
            return hidden_1TD.mean(1)

    theirs.bert.pooler = _MeanPooler()
    _head_like(model, objective, theirs.classifier.weight, theirs.classifier.bias)
    encoded = [objective.encode(row) for row in rows(kind)]
    with torch.no_grad():
        losses = [
            theirs(input_ids=torch.from_numpy(row.ids_T)[None], labels=_theirs(kind, [row])).loss.item()
            for row in encoded
        ]
        loss, _ = objective.loss(model, one_pack(encoded))
    assert loss.item() == pytest.approx(sum(losses), rel=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_an_encoder_decoder_reads_the_state_that_t5s_classifier_reads(tied: bool) -> None:
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=40, d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2, decoder_start_token_id=0, eos_token_id=1,
        pad_token_id=0, tie_word_embeddings=tied,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).eval()
    objective = objective_of("single", model, "encoder-decoder")
    encoded = objective.encode(rows("single")[1])
    assert encoded.encoder_S is not None and encoded.encoder_S[-1] == 1
    seen: list[Tensor] = []
    from transformers import T5ForSequenceClassification

    theirs = T5ForSequenceClassification(config).eval()
    theirs.transformer.load_state_dict(
        {name: value for name, value in model.state_dict().items() if not name.startswith("lm_head")}
    )
    theirs.classification_head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        theirs(input_ids=torch.from_numpy(encoded.encoder_S)[None])
        own = objective.states(model, one_pack([encoded]))
    torch.testing.assert_close(own, seen[0], rtol=1e-4, atol=1e-5)


# -- rows --------------------------------------------------------------------------------------------------------------


def test_a_row_of_weight_two_is_the_row_twice() -> None:
    model = model_of("decoder").eval()
    objective = objective_of("single", model, "decoder")
    objective.head.apply(model, seed=0)
    with torch.no_grad():
        classification_head(model).weight_LD.normal_()
    once, twice = rows("single")[0], rows("single", (2, 1, 1, 1))[0]
    loss, weight = objective.loss(model, one_pack([objective.encode(twice)]))
    other, other_weight = objective.loss(model, one_pack([objective.encode(once)] * 2))
    assert weight == other_weight == 2
    assert loss.item() == pytest.approx(other.item())


def test_shared_beginnings_keep_labels_with_their_rows() -> None:
    model = model_of("decoder").eval()
    objective = objective_of("single", model, "decoder")
    objective.head.apply(model, seed=0)
    with torch.no_grad():
        classification_head(model).weight_LD.normal_()
    texts = ["abcdefghijklmnopqrs" + end for end in ("t", "uv", "wxy", "")]
    encoded = [
        objective.encode(Row(str(n), f"t:{n}", (Message("user", text), Message("assistant", "abc"[n % 3]))))
        for n, text in enumerate(texts)
    ]
    shared = pack_rows(encoded, 200, share=True)
    assert any(pack.parents for pack in shared), "the texts begin alike"
    with torch.no_grad():
        loss = sum(objective.loss(model, pack)[0].item() for pack in shared)
        alone = sum(objective.loss(model, one_pack([row]))[0].item() for row in encoded)
    assert loss == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "answer", "sentence"),
    [
        ("single", "d", 'the label "d" is not among the task\'s labels'),
        ("multi", "a", "is not a JSON list of names"),
        ("regression", "much", "is not a number"),
    ],
)
def test_a_label_outside_the_tasks_is_refused(kind: str, answer: str, sentence: str) -> None:
    objective = objective_of(kind, model_of("decoder"), "decoder")
    row = Row("1", "train.jsonl:7", (Message("user", "abc"), Message("assistant", answer)))
    with pytest.raises(RowRefused, match=sentence) as refusal:
        objective.encode(row)
    assert "train.jsonl:7" in str(refusal.value)


def test_a_label_never_seen_in_training_has_its_own_sentence() -> None:
    labels = replace(SETS["single"], listed=False)
    context = ObjectiveContext(LetterRenderer(), labels=labels)  # type: ignore[arg-type]
    row = Row("1", "dev.jsonl:2", (Message("user", "abc"), Message("assistant", "d")))
    with pytest.raises(RowRefused, match="is never seen in training"):
        Classification(context).encode(row)


def test_text_without_a_label_is_refused() -> None:
    objective = objective_of("single", model_of("decoder"), "decoder")
    with pytest.raises(RowRefused, match="the row has no label"):
        objective.encode(Row("1", "t:1", text="abc"))


def test_an_encoder_has_no_objective_that_writes() -> None:
    model = model_of("encoder")
    context = ObjectiveContext(LetterRenderer(), architecture="encoder", config=model.config)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="the model is an encoder") as refusal:
        make_objective("sft", context)
    assert "classify" in str(refusal.value)
