"""Task files: strict, all faults at once, each in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier.ground.errors import BadInput
from luthier.ground.task import json_schema, load_task, train_values

GOOD = "name: demo\nmodel: smollm2-135m-instruct\ndata: {train: train.jsonl}\n"


def write(folder: Path, text: str) -> Path:
    (folder / "train.jsonl").write_text("{}\n")
    path = folder / "task.yaml"
    path.write_text(text)
    return path


def test_reads_values_and_resolves_paths_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(" Do it. \n")
    task = load_task(write(tmp_path, GOOD + "instruction: 'file:words.txt'\ntrain: {epochs: 3}\n"))
    assert task.spec.train.epochs == 3
    assert task.resolve("train.jsonl") == (tmp_path / "train.jsonl").resolve()
    assert task.instruction == "Do it."


def test_overrides_are_applied_in_order_and_held_to_the_same_rules(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    task = load_task(path, ["train.epochs=1", "train.adapter.rank=4", "train.epochs=5"])
    assert (task.spec.train.epochs, task.spec.train.adapter.rank) == (5, 4)
    with pytest.raises(BadInput, match=r"--set train\.epochs: .*greater than 0, not -1"):
        load_task(path, ["train.epochs=-1"])
    with pytest.raises(BadInput, match=r"not of the form key=value"):
        load_task(path, ["train.epochs"])


def test_all_faults_are_told_at_once_with_place_and_nearest_key(tmp_path: Path) -> None:
    text = GOOD.replace("train: train", "tran: train") + "documents: nowhere/\ntrain:\n  epocs: 2\n  schedule: foo\n"
    with pytest.raises(BadInput) as caught:
        load_task(write(tmp_path, text), ["compare.marign=1"])
    said = str(caught.value)
    assert "5 faults" in said
    assert 'task.yaml:3: there is no key data.tran (did you mean "train"?)' in said
    assert "task.yaml:4: there is no folder nowhere/ (documents)" in said
    assert 'task.yaml:6: there is no key train.epocs (did you mean "epochs"?)' in said
    assert "task.yaml:7: train.schedule: input should be 'linear', 'cosine' or 'constant', not 'foo'" in said
    assert '--set compare.marign: there is no key compare.marign (did you mean "margin"?)' in said


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("- a\n- b\n", "mapping of keys"),
        ("name: [\n", r"task\.yaml:\d+: the file is not YAML"),
        (GOOD + "name: twice\n", r"task\.yaml:4: the key name is given twice"),
        ("model: m\ndata: {}\n", "the key name is missing"),
        (GOOD.replace("train.jsonl", "gone.jsonl"), r"task\.yaml:3: there is no file gone\.jsonl"),
        ("name: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        (
            "a: &a [x, x]\nb: &b [*a, *a]\n"
            + "".join(f"c{i}: &c{i} [{', '.join(['*b' if i == 0 else f'*c{i - 1}'] * 9)}]\n" for i in range(9)),
            "more than 20,000 values",
        ),
    ],
)
def test_unusable_files_get_one_sentence(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        load_task(write(tmp_path, text))


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such task file"):
        load_task(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match="this is a folder"):
        load_task(tmp_path)


def test_the_key_follows_data_bytes_and_settings(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    first = load_task(path).key("train")
    assert load_task(path).key("train") == first
    assert load_task(path, ["train.epochs=9"]).key("train") != first
    (tmp_path / "train.jsonl").write_text("{ }\n")
    assert load_task(path).key("train") != first


def test_the_json_schema_names_every_key_and_refuses_others() -> None:
    schema = json_schema()
    assert {"name", "model", "data", "schema", "train"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert all("description" in field for field in schema["$defs"]["AdapterSpec"]["properties"].values())


def test_settings_of_training_are_read_without_a_file() -> None:
    settings = ["train.optimizer=adafactor", "train.epochs=1", "train.adapter.rank=4", "train.adapter.kind=lora"]
    read = train_values([*settings, "train.epochs=2.5", "train.max_grad_norm=null"])
    adapter = {"rank": 4, "kind": "lora"}
    assert read == {"optimizer": "adafactor", "epochs": 2.5, "adapter": adapter, "max_grad_norm": None}
    assert train_values([]) == {}
    assert train_values(["train={epochs: 3}", "train.seed=1"]) == {"epochs": 3, "seed": 1}


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("train.epochs", 'train.epochs" is not of the form key=value'),
        ("=3", "is not of the form key=value"),
        ("budget.memory=6GB", '"budget" is of a task file, and none is named'),
        ("epochs=3", '"epochs" is of a task file'),
        ("train=5", "train is a mapping of keys to values, not 5"),
    ],
)
def test_settings_without_a_file_are_held_to_train(override: str, match: str) -> None:
    with pytest.raises(BadInput, match=match) as caught:
        train_values(["train.seed=1", override])
    assert "\n" not in str(caught.value)
