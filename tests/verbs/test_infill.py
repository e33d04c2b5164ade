"""Infilling from end to end on tiny models: train, resume, compare, and the filling of gaps afterwards."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
from typer.testing import CliRunner

import luthier as lu
from luthier.cli.main import app
from luthier.ground.errors import BadInput, Refused
from luthier.ground.results import CompareResult
from luthier.verbs.trained_infill import find_infiller

COLOURS = ["red", "green", "blue", "black"]
MARKS = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]
TASK = """name: colours
model: {model}
data: {{train: train.jsonl, dev: dev.jsonl, test: test.jsonl}}
instruction: Write what is missing.
metric: edit_similarity
generation: {{max_new_tokens: 6, precision: fp32, batch_size: 16}}
prompt: {{examples: [0, 1], dev_items: 4}}
train:
  objective: infill
  infill: {{spm_rate: 0.0, loss: middle}}
  epochs: 6
  tokens_per_step: 256
  precision: fp32
  learning_rate: 0.02
  save_every: 5
  adapter: {{rank: 8, alpha: 16}}
"""


def rows(split: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Two lines that name the same colour; the second one is missing."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        colour = chance.choice(COLOURS)
        text = f"{split} {number} has a {colour} lamp and a {colour} chair too"
        gap = text.index(colour, text.index("and a"))
        found.append({"id": f"{split}{number}", "text": text, "gap": [gap, gap + len(colour)]})
    return found


def tokenizer(special: list[str]) -> PreTrainedTokenizerFast:
    trained = Tokenizer(models.BPE(unk_token=None))
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340 + len(special),
        special_tokens=["<pad>", "</s>", *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator([row["text"] for row in rows("train", 200, 5)] + COLOURS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=trained, eos_token="</s>", pad_token="<pad>")


@pytest.fixture(scope="module")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A decoder without sentinels, one with its own, and an encoder-decoder."""
    import torch

    torch.manual_seed(0)
    parent = tmp_path_factory.mktemp("models")
    for name, special in (("bare", []), ("marked", MARKS)):
        fast = tokenizer(special)
        config = LlamaConfig(
            vocab_size=len(fast), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, eos_token_id=1,
            initializer_range=0.2,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(parent / name)
        fast.save_pretrained(parent / name)
    fast = tokenizer([f"<extra_id_{n}>" for n in range(10)])
    t5 = T5Config(
        vocab_size=len(fast), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, dropout_rate=0.0,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    T5ForConditionalGeneration(t5).save_pretrained(parent / "t5")
    fast.save_pretrained(parent / "t5")
    return {name: parent / name for name in ("bare", "marked", "t5")}


def make_task(folder: Path, model: Path) -> Path:
    for split, count, seed in (("train", 48, 1), ("dev", 8, 2), ("test", 12, 3)):
        lines = [json.dumps(row) + "\n" for row in rows(split, count, seed)]
        (folder / f"{split}.jsonl").write_text("".join(lines))
    (folder / "task.yaml").write_text(TASK.format(model=model))
    return folder / "task.yaml"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, model_folders: dict[str, Path]) -> tuple[Path, CompareResult]:
    """A comparison of the decoder that had to be given sentinels."""
    path = make_task(tmp_path_factory.mktemp("task"), model_folders["bare"])
    return path, lu.compare(path)


# -- training and comparing -----------------------------------------------------------------------------------------


def test_the_check_shows_the_transform(model_folders: dict[str, Path], tmp_path: Path) -> None:
    sheet = lu.check(make_task(tmp_path, model_folders["bare"]))
    assert sheet.ok and sheet.end_token_trained
    view = "".join(f"[{part.text}]" if part.trained else part.text for part in sheet.views[0].segments)
    assert view.startswith("<fim_prefix>train 0 has a ") and view.count("[") == 1 and view.endswith("</s>]")


def test_finetuning_beats_asking_in_words(compared: tuple[Path, CompareResult]) -> None:
    _, result = compared
    scores = {system.name: system.score for system in result.systems}
    assert set(scores) == {"base", "prompt", "finetuned"}
    assert scores["finetuned"] > scores["base"] + 0.2
    asked = {system.name: system.prompt_tokens for system in result.systems}
    assert asked["finetuned"] < asked["base"], "the trained model needs no instruction"
    page = lu.report(compared[0])
    assert Path(page.page).stat().st_size > 10_000


def test_the_plan_knows_the_added_tokens(compared: tuple[Path, CompareResult]) -> None:
    plan = lu.plan(compared[0])
    assert plan.fits and plan.peak_bytes > 0


def test_a_resumed_run_is_the_undisturbed_one(model_folders: dict[str, Path], tmp_path: Path) -> None:
    """The transform is drawn again, and so are the vectors of the added tokens: bit for bit."""
    path = make_task(tmp_path, model_folders["bare"])
    lines = [json.dumps({"id": row["id"], "text": row["text"]}) + "\n" for row in rows("train", 48, 1)]
    (tmp_path / "train.jsonl").write_text("".join(lines))
    task = lu.load_task(path, ["train.max_steps=10", "train.infill.rate=0.8", "train.infill.spm_rate=0.5"])
    lu.train(task, out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "step-000010")
    (tmp_path / "cut" / "report.json").unlink()
    again = lu.train(task, out=tmp_path / "cut", resume=True)
    assert again.steps == 10
    last = {name: (tmp_path / name / "step-000010" / "adapter") for name in ("whole", "cut")}
    files = sorted(file.name for file in last["whole"].glob("*.safetensors"))
    assert len(files) == 2 and any(name.startswith("vocabulary-") for name in files)
    for name in files:
        ours, theirs = (load_file(last[way] / name) for way in ("cut", "whole"))
        assert ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours)


@pytest.mark.parametrize("name", ["marked", "t5"])
def test_other_kinds_of_models_learn_it_too(name: str, model_folders: dict[str, Path], tmp_path: Path) -> None:
    path = make_task(tmp_path, model_folders[name])
    trained = lu.train(lu.load_task(path, ["train.epochs=12"] if name == "t5" else []), out=tmp_path / "run")
    assert trained.history[-1].loss < 0.8 * trained.history[0].loss
    filled = lu.infill("t 1 has a red lamp and a <gap> chair too", adapter=tmp_path / "run", precision="fp32")
    assert filled.method == ("span corruption" if name == "t5" else "fill in the middle")
    assert filled.text == f"t 1 has a red lamp and a {filled.fillings[0].text} chair too"


def test_texts_without_gaps_are_trained_whole_and_moved(model_folders: dict[str, Path], tmp_path: Path) -> None:
    path = make_task(tmp_path, model_folders["marked"])
    lines = [json.dumps({"text": row["text"] * 12}) + "\n" for row in rows("train", 6, 1)]
    (tmp_path / "train.jsonl").write_text("".join(lines))
    overrides = ["train.max_length=80", "train.max_steps=3", "train.infill.loss=all", "data.dev=null"]
    result = lu.train(lu.load_task(path, overrides), out=tmp_path / "run")
    assert result.steps == 3


# -- filling ----------------------------------------------------------------------------------------------------------


def adapter_of(compared: tuple[Path, CompareResult]) -> Path:
    return Path(compared[1].training["finetuned"].adapter)


def test_gaps_are_filled_however_they_are_given(compared: tuple[Path, CompareResult]) -> None:
    path, result = compared
    adapter = adapter_of(compared)
    text = "test 3 has a blue lamp and a blue chair too"
    ways = [
        lu.infill("test 3 has a blue lamp and a <gap> chair too", adapter=adapter, precision="fp32"),
        lu.infill(text, at=["1:30-1:34"], adapter=Path(result.training["finetuned"].run), precision="fp32"),
        lu.infill(prefix="test 3 has a blue lamp and a ", suffix=" chair too", task=path, precision="fp32"),
    ]
    fillings = [way.fillings[0] for way in ways]
    assert len({filling.text for filling in fillings}) == 1
    assert [filling.replaced for filling in fillings] == ["", "blue", ""]
    assert (fillings[1].line, fillings[1].column) == (1, 30)
    assert ways[1].text == f"test 3 has a blue lamp and a {fillings[1].text} chair too"
    assert ways[0].provenance.sha256 == result.provenance.sha256


def test_the_filling_is_the_one_of_compare(compared: tuple[Path, CompareResult]) -> None:
    """The same tokens are asked in both, so both write the same."""
    path, result = compared
    items = [json.loads(line) for line in Path(result.items).read_text().splitlines()]
    said = {item["id"]: item["output"] for item in items if item["system"] == "finetuned"}
    row = json.loads((path.parent / "test.jsonl").read_text().splitlines()[0])
    first, end = row["gap"]
    marked = row["text"][:first] + "<gap>" + row["text"][end:]
    filled = lu.infill(marked, adapter=adapter_of(compared), precision="fp32", max_new_tokens=6)
    assert filled.fillings[0].text == said[row["id"]]


def test_new_words_and_a_longer_window_are_put_in_too(model_folders: dict[str, Path], tmp_path: Path) -> None:
    """They lie beside the adapter, and the task file need not be there any more."""
    path = make_task(tmp_path, model_folders["bare"])
    overrides = [
        "context={factor: 2, method: linear}",
        "train.vocabulary={tokens: [lamp, chair]}",
        "train.epochs=3",
        "train.max_length=400",
    ]
    result = lu.compare(lu.load_task(path, [*overrides, "compare.systems=[finetuned]"]))
    adapter = result.training["finetuned"].adapter
    said = {item["id"]: item["output"] for item in map(json.loads, Path(result.items).read_text().splitlines())}
    path.unlink()
    infiller = find_infiller(adapter=adapter)
    assert [type(extension).__name__ for extension in infiller.objective.extensions] == [
        "ContextExtension",
        "VocabularyExtension",
        "VocabularyExtension",
    ]
    tokens = infiller.objective.renderer.tokens
    assert len(tokens.encode(" lamp")) == len(tokens.encode("<fim_middle>")) == 1
    for row in map(json.loads, (tmp_path / "test.jsonl").read_text().splitlines()[:4]):
        first, end = row["gap"]
        filled = lu.infill(prefix=row["text"][:first], suffix=row["text"][end:], adapter=adapter, precision="fp32",
                           max_new_tokens=6)  # fmt: skip
        assert filled.fillings[0].text == said[row["id"]]


def test_a_far_end_that_does_not_fit_is_cut_and_told(compared: tuple[Path, CompareResult]) -> None:
    events: list[Any] = []
    text = "one two three " * 200 + "a <gap> chair"
    filled = lu.infill(text, adapter=adapter_of(compared), precision="fp32", max_new_tokens=4, tell=events.append)
    assert filled.cut_tokens > 0 and filled.prompt_tokens <= 256
    assert any("did not fit the window" in event.get("text", "") for event in events)


def test_gaps_at_the_edges(compared: tuple[Path, CompareResult]) -> None:
    for text in ("<gap> red chair", "a red <gap>"):
        assert lu.infill(text, adapter=adapter_of(compared), precision="fp32", max_new_tokens=2).fillings


def test_the_command_prints_the_filling_or_the_text(compared: tuple[Path, CompareResult], tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("test 3 has a blue lamp and a [old] chair too\n")
    asked = ["infill", str(file), "--at", "1:30-1:35", "--adapter", str(adapter_of(compared)), "-q"]
    filling = CliRunner().invoke(app, asked)
    assert filling.exit_code == 0, filling.output
    whole = CliRunner().invoke(app, [*asked, "--whole"])
    assert whole.output == f"test 3 has a blue lamp and a {filling.output.removesuffix(chr(10))} chair too\n"
    result = json.loads(CliRunner().invoke(app, [*asked, "--json"]).output)
    assert result["fillings"][0]["replaced"] == "[old]" and result["text"] == whole.output


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_base_model_without_sentinels_is_refused(model_folders: dict[str, Path]) -> None:
    with pytest.raises(Refused, match=r"has no tokens that mark a gap.*train an adapter"):
        lu.infill("a <gap> b", model=str(model_folders["bare"]))
    assert lu.infill("a <gap> b", model=str(model_folders["marked"]), max_new_tokens=2).adapter is None


def test_an_adapter_that_lost_its_sentinels_is_refused(compared: tuple[Path, CompareResult], tmp_path: Path) -> None:
    copied = tmp_path / "run" / "adapter"
    shutil.copytree(adapter_of(compared), copied)
    for file in copied.glob("vocabulary-*.safetensors"):
        file.unlink()
    with pytest.raises(BadInput, match=r"there is no vocabulary-.* here, so the new tokens have no vectors"):
        lu.infill("a <gap> b", adapter=copied)


def test_an_adapter_of_another_objective_is_refused(model_folders: dict[str, Path], tmp_path: Path) -> None:
    path = make_task(tmp_path, model_folders["bare"])
    lu.train(lu.load_task(path, ["train.objective=sft", "train.max_steps=1"]), out=tmp_path / "run")
    with pytest.raises(BadInput, match="was trained by sft, and not to fill gaps"):
        lu.infill("a <gap> b", adapter=tmp_path / "run")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "nothing is named that could fill the gap; add --adapter"),
        ({"adapter": "nowhere"}, "there is no such folder"),
    ],
)
def test_what_is_not_there_is_told(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        lu.infill("a <gap> b", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "given", "sentence"),
    [
        ("", {}, "the text is empty"),
        ("a b", {}, "no gap is marked"),
        ("a <gap> b <gap>", {}, "there are 2 gaps, and a decoder fills one at a time"),
        ("a b", {"at": ["7"]}, "no line 7"),
        ("a b", {"prefix": "a"}, "both given"),
        ("", {"prefix": "", "suffix": " "}, "nothing stands around"),
        ("a b", {"at": ["1:1-1:3", "1:2-1:4"]}, "two gaps overlap"),
    ],
)
def test_a_text_without_a_usable_gap_is_told(
    text: str, given: dict[str, Any], sentence: str, compared: tuple[Path, CompareResult]
) -> None:
    with pytest.raises(BadInput, match=sentence):
        lu.infill(text, adapter=adapter_of(compared), **given)


def test_an_encoder_decoder_fills_several_gaps(model_folders: dict[str, Path]) -> None:
    filled = lu.infill("a <gap> b <gap> c", model=str(model_folders["t5"]), max_new_tokens=8)
    assert len(filled.fillings) == 2
    assert filled.text == f"a {filled.fillings[0].text} b {filled.fillings[1].text} c"
