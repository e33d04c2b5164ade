"""What a model folder must not be: a pickle, code, a way out, or half a model."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from tiny_models import tiny_folder

from luthier.ground.errors import BadInput, LuthierError, Refused
from luthier.models.folder import check_folder, tensor_shapes


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.canary)!r}, 'w').close()",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "model")


def edit_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_a_sound_folder_gives_its_weights(folder: Path) -> None:
    assert check_folder(folder) == [folder / "model.safetensors"]
    assert tensor_shapes(folder / "model.safetensors")["model.norm.weight"] == (64,)


def test_a_pickle_renamed_safetensors_is_refused_and_never_opened(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(canary)))
    with pytest.raises(BadInput, match="not a sound safetensors file"):
        check_folder(folder)
    assert not canary.exists()
    pickle.loads((folder / "model.safetensors").read_bytes())
    assert canary.exists()  # so the bomb was live


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "model.ckpt", "Model.PKL"])
def test_weights_only_as_a_pickle_are_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(Refused, match="pickle"):
        check_folder(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_code_of_its_own_is_refused(folder: Path, file: str) -> None:
    edit_json(folder / file, auto_map={"AutoModel": "modeling.Evil"})
    with pytest.raises(Refused, match="code of its own"):
        check_folder(folder)


def test_quantised_weights_are_told(folder: Path) -> None:
    edit_json(folder / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(BadInput, match="quantised \\(gptq\\)"):
        check_folder(folder)


@pytest.mark.parametrize(
    "name", ["../evil.safetensors", "/etc/passwd", "sub/x.safetensors", "x.bin", "..\\x.safetensors/.."]
)
def test_an_index_that_names_files_elsewhere_is_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder.parent / "evil.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(Refused, match="not a safetensors file of this folder"):
        check_folder(folder)


def test_an_index_that_names_a_missing_file_is_told(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x.safetensors"}}))
    with pytest.raises(BadInput, match="which is missing"):
        check_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "chat_template.jinja"])
def test_a_link_that_leaves_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("{}")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    with pytest.raises(Refused, match="leads out of the model's folder"):
        check_folder(folder)


def test_links_into_the_hubs_cache_are_allowed(folder: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "hub" / "blobs"
    blobs.mkdir(parents=True)
    (folder / "model.safetensors").rename(blobs / "ab")
    (folder / "model.safetensors").symlink_to(blobs / "ab")
    assert check_folder(folder, links_into=tmp_path / "hub") == [folder / "model.safetensors"]


@pytest.mark.parametrize(
    ("file", "text", "wanted"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "not JSON"),
        ("config.json", "[]", "JSON object was wanted"),
        ("config.json", '{"a": NaN}', "NaN"),
        ("config.json", "{}", "model_type is missing"),
        ("model.safetensors", None, "no model.safetensors"),
        ("model.safetensors", "", "not a sound safetensors"),
        ("tokenizer.json", None, "no tokenizer.json"),
    ],
)
def test_half_a_model_is_told_in_one_sentence(folder: Path, file: str, text: str | None, wanted: str) -> None:
    (folder / file).unlink()
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(LuthierError, match=wanted) as caught:
        check_folder(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_an_adapter_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match="holds an adapter"):
        check_folder(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,  # a header of 2^64 - 1 bytes
        (10).to_bytes(8, "little") + b"{}",  # truncated
        (90).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,999]}}'.ljust(90) + b"\0" * 16,
        (90).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}'.ljust(90) + b"\0" * 16,
    ],
)
def test_abused_safetensors_headers_are_told(folder: Path, header: bytes) -> None:
    (folder / "model.safetensors").write_bytes(header)
    with pytest.raises(BadInput, match="not a sound safetensors file"):
        check_folder(folder)
