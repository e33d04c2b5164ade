"""Classification from the data check to labelled texts, on a tiny decoder and a tiny encoder."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from luthier.cli.main import app
from luthier.ground.errors import BadInput, Refused
from luthier.ground.results import CompareResult
from luthier.ground.task import load_task
from luthier.verbs.check import check
from luthier.verbs.classify import classify
from luthier.verbs.compare import compare, system_names
from luthier.verbs.plan import plan
from luthier.verbs.report import report
from luthier.verbs.train import train

WORDS = {"red": ["apple", "brick", "rose"], "blue": ["sky", "sea", "ink"], "green": ["leaf", "moss", "frog"]}
FILLER = ["the", "a", "my", "old", "new", "on", "in", "here", "there", "is", "was"]


def examples(split: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Texts with one tell-tale word, which is the label's."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        label = list(WORDS)[number % 3]
        words = [chance.choice(FILLER) for _ in range(chance.randint(1, 3))]
        words.insert(chance.randrange(len(words)), chance.choice(WORDS[label]))
        found.append({"id": f"{split}-{number}", "text": f"{' '.join(words)} {split}{number}", "label": label})
    return found


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT with a word for each token."""
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FILLER, *(word for of in WORDS.values() for word in of)]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=24, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def write_task(folder: Path, model: Path, rows: dict[str, list[dict[str, Any]]] | None = None, more: str = "") -> Path:
    splits = rows or {
        name: examples(name, count, seed) for name, count, seed in (("train", 60, 1), ("dev", 12, 2), ("test", 15, 3))
    }
    for name, values in splits.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    (folder / "task.yaml").write_text(
        f"""name: colours
model: {model}
data: {{train: train.jsonl, dev: dev.jsonl, test: test.jsonl}}
instruction: Which colour?
metric: label
generation: {{max_new_tokens: 4, precision: fp32, batch_size: 16}}
prompt: {{examples: [0], dev_items: 4}}
train:
  objective: classify
  adapter: {{kind: full}}
  epochs: 6
  rows_per_step: 6
  precision: fp32
  learning_rate: 0.01
{more}"""
    )
    return folder / "task.yaml"


def test_an_encoder_goes_the_whole_way(tmp_path: Path, tiny_encoder: Path) -> None:
    file = write_task(tmp_path, tiny_encoder)
    sheet = check(file)
    assert sheet.ok, sheet.reasons
    assert sheet.labels["train"] == {"blue": 20, "green": 20, "red": 20}
    said: list[str] = []
    result = compare(file, tell=lambda event: said.append(str(event.get("text", ""))))
    assert [system.name for system in result.systems] == ["majority", "finetuned"]
    assert any("reads and cannot write: base, prompt and rag are left out" in text for text in said)
    assert any("labels of the training rows: blue, green, red" in text for text in said)
    assert [(contrast.a, contrast.b) for contrast in result.contrasts] == [("finetuned", "majority")]
    assert result.systems[1].score > 0.9
    _check_classification(result)
    page = Path(report(file).page).read_text()
    assert "As a classifier" in page
    assert "Reliability of finetuned" in page


def _check_classification(result: CompareResult) -> None:
    found = result.classification
    assert found is not None
    assert found.labels == ["blue", "green", "red"]
    trained = next(one for one in found.systems if one.system == "finetuned")
    assert trained.macro_f1 is not None and trained.ece is not None
    assert sum(one.n for one in trained.bins) == result.n_test
    lines = [json.loads(line) for line in Path(result.items).read_text().splitlines()]
    chances = [line["probabilities"] for line in lines if line["system"] == "finetuned"]
    assert len(chances) == result.n_test
    assert all(sum(chance.values()) == pytest.approx(1, abs=1e-5) for chance in chances)
    assert not any("probabilities" in line for line in lines if line["system"] != "finetuned")


def test_a_decoder_is_compared_with_prompting_it(tmp_path: Path, tiny_model: Path) -> None:
    file = write_task(tmp_path, tiny_model)
    result = compare(file)
    assert [system.name for system in result.systems] == ["majority", "base", "prompt", "finetuned"]
    assert ("finetuned", "prompt") in {(contrast.a, contrast.b) for contrast in result.contrasts}
    _check_classification(result)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_classify_says_what_compare_says(
    tmp_path: Path, tiny_encoder: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = compare(load_task(write_task(tmp_path, tiny_encoder), [f"train.adapter.kind={kind}"]))
    lines = [json.loads(line) for line in Path(result.items).read_text().splitlines()]
    expected = [line for line in lines if line["system"] == "finetuned"]
    assert len({line["output"] for line in expected}) > 1
    adapter = result.training["finetuned"].adapter
    assert {path.name for path in Path(adapter).iterdir()} >= {"head.json", "head.safetensors", "luthier.json"}
    texts = [row["text"] for row in examples("test", 15, 3)]
    found = classify(texts, adapter=adapter, precision="fp32").answers
    assert [answer.label for answer in found] == [line["output"] for line in expected]
    for answer, line in zip(found, expected, strict=True):
        assert answer.probabilities == pytest.approx(line["probabilities"], abs=1e-4)
    with pytest.raises(SystemExit) as end:
        app(["classify", "--adapter", adapter, "--json", *texts[:2]])
    assert end.value.code in (0, None)
    shown = json.loads(capsys.readouterr().out)
    assert [answer["text"] for answer in shown["answers"]] == texts[:2]
    assert shown["labels"] == ["blue", "green", "red"]


def test_new_words_and_a_longer_window_are_put_in_too(tmp_path: Path, tiny_model: Path) -> None:
    words = [word for of in WORDS.values() for word in of]
    overrides = ["context={factor: 2, method: linear}", f"train.vocabulary={{tokens: {words}}}"]
    more = ["train.max_length=64", "train.epochs=3", "train.adapter={kind: lora, rank: 4}"]
    task = load_task(write_task(tmp_path, tiny_model), [*overrides, *more, "compare.systems=[finetuned]"])
    result = compare(task)
    expected = [json.loads(line) for line in Path(result.items).read_text().splitlines()]
    texts = [row["text"] for row in examples("test", 15, 3)]
    found = classify(texts, adapter=result.training["finetuned"].adapter, precision="fp32").answers
    for answer, line in zip(found, expected, strict=True):
        assert answer.probabilities == pytest.approx(line["probabilities"], abs=1e-4)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, tiny_encoder: Path) -> None:
    file = write_task(tmp_path, tiny_encoder, more="  save_every: 4\n  eval_every: 4\n  max_steps: 12\n")
    whole = train(file, out=tmp_path / "whole")
    out = tmp_path / "cut"

    def stop(event: dict[str, Any]) -> None:
        if event.get("kind") == "save" and event.get("step") == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(file, out=out, tell=stop)
    assert not (out / "step-000012").exists()
    resumed = train(file, out=out, resume=True)
    assert resumed.steps == whole.steps == 12
    heads = [(Path(run.adapter) / "head.safetensors").read_bytes() for run in (whole, resumed)]
    assert heads[0] == heads[1]


def test_several_labels_and_numbers(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = {
        name: examples(name, count, seed) for name, count, seed in (("train", 60, 1), ("dev", 12, 2), ("test", 15, 3))
    }
    several = {
        name: [{"id": row["id"], "text": row["text"], "labels": [row["label"], "any"]} for row in values]
        for name, values in rows.items()
    }
    (tmp_path / "several").mkdir()
    file = write_task(tmp_path / "several", tiny_encoder, several)
    result = compare(load_task(file, ["labels_kind=multi", "metric=multi_label_f1", "train.epochs=14"]))
    assert result.classification is not None
    assert result.classification.kind == "multi"
    assert result.classification.labels == ["any", "blue", "green", "red"]
    assert result.systems[-1].score > result.systems[0].score
    valued = {
        name: [{"id": row["id"], "text": row["text"], "value": len(row["text"].split())} for row in values]
        for name, values in rows.items()
    }
    (tmp_path / "valued").mkdir()
    file = write_task(tmp_path / "valued", tiny_encoder, valued)
    result = compare(load_task(file, ["labels_kind=regression", "metric=closeness"]))
    found = result.classification
    assert found is not None
    majority, trained = found.systems
    assert (trained.mean_absolute_error or 9) < (majority.mean_absolute_error or 0)
    assert "As a measuring instrument" in Path(report(load_task(file)).page).read_text()


def test_a_plan_knows_encoders(tmp_path: Path, tiny_encoder: Path) -> None:
    result = plan(load_task(write_task(tmp_path, tiny_encoder)))
    assert result.peak_bytes > 0
    assert result.fits is not False


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_a_label_never_seen_in_training_is_told(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = {"train": examples("train", 12, 1), "dev": examples("dev", 6, 2), "test": examples("test", 6, 3)}
    rows["dev"][4]["label"] = "pink"
    file = write_task(tmp_path, tiny_encoder, rows)
    sheet = check(file)
    assert not sheet.ok
    assert 'the label "pink" is never seen in training' in sheet.faults[0].message
    assert sheet.faults[0].file.endswith("dev.jsonl")
    assert sheet.faults[0].line == 5
    with pytest.raises(Refused, match="dev: 1 of 6 rows refused"):
        train(file)
    train(load_task(file, ["data.on_bad=skip", "train.max_steps=1"]))


def test_few_rows_of_a_label_are_warned_of(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = {"train": examples("train", 12, 1), "dev": examples("dev", 6, 2), "test": examples("test", 6, 3)}
    rows["train"] = [row for row in rows["train"] if row["label"] != "red"] + [rows["train"][0]]
    file = write_task(tmp_path, tiny_encoder, rows)
    sheet = check(load_task(file, ["labels=[red, blue, green, pink]"]))
    assert any('no row has the label "pink", so it is never learned' in text for text in sheet.warnings)
    assert any('only one row has the label "red"' in text for text in sheet.warnings)


def test_a_text_beyond_the_window_is_dropped_in_training_and_cut_when_asked(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = {"train": examples("train", 12, 1), "dev": examples("dev", 6, 2), "test": examples("test", 6, 3)}
    rows["train"][0]["text"], rows["test"][0]["text"] = "the old " * 20 + "apple", "my new " * 20 + "rose"
    file = write_task(tmp_path, tiny_encoder, rows)
    sheet = check(file)
    assert sheet.max_length == 24
    assert sheet.rows["train"].dropped == 1
    said: list[str] = []
    result = compare(file, tell=lambda event: said.append(str(event.get("text", ""))))
    assert any("1 items were cut to the model's window" in text for text in said)
    assert result.systems[-1].n_failed == 0


def test_an_encoder_cannot_be_prompted(tmp_path: Path, tiny_encoder: Path) -> None:
    task = load_task(write_task(tmp_path, tiny_encoder), ["compare.systems=[base, finetuned]"])
    with pytest.raises(BadInput, match="the system base needs a model that writes"):
        system_names(task, writes=False)
    with pytest.raises(BadInput, match="the model is an encoder"):
        train(load_task(tmp_path / "task.yaml", ["train.objective=sft"]))


def test_another_base_model_is_refused(tmp_path: Path, tiny_encoder: Path) -> None:
    trained = train(load_task(write_task(tmp_path, tiny_encoder), ["train.max_steps=1"]))
    torch.manual_seed(9)
    other = tmp_path / "other"
    BertModel(BertConfig.from_pretrained(tiny_encoder)).save_pretrained(other)
    PreTrainedTokenizerFast.from_pretrained(tiny_encoder).save_pretrained(other)
    with pytest.raises(Refused, match="trained on another base model"):
        classify(["the sky"], adapter=trained.adapter, model=str(other), precision="fp32")


def test_classify_wants_texts_and_a_head(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is nothing to classify"):
        classify([], adapter=tmp_path)
    with pytest.raises(BadInput, match="there is no classification head here"):
        classify(["x"], adapter=tmp_path)
