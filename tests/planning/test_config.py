"""A model's config by every name that a person may give; nothing but the config is read or fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.ground.errors import BadInput
from luthier.models.hub import fetch_config
from luthier.planning import config as reading
from luthier.planning.config import config_from, is_encoder_decoder, read_config

CONFIGS = Path(__file__).parent / "configs"


def test_a_json_file_of_any_name() -> None:
    config, source = read_config("llama-3.1-405b.json", CONFIGS)
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == ("llama", 126, 16384)
    assert source == "file llama-3.1-405b.json"


def test_a_folder_needs_no_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((CONFIGS / "llama-2-13b.json").read_text())
    config, source = read_config(str(tmp_path))
    assert (config.hidden_size, source) == (5120, f"folder {tmp_path.name}")


def test_a_preset_from_the_cache_without_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models" / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text((CONFIGS / "smollm2-135m.json").read_text())
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    config, source = read_config("smollm2-135m-instruct")
    assert (config.hidden_size, source) == (576, "preset smollm2-135m-instruct")


def test_a_hub_id_fetches_the_config_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, bool]] = []

    def download(hub_id: str, file: str, local_files_only: bool = False, **_: Any) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        asked.append((hub_id, file, local_files_only))
        if local_files_only:
            raise LocalEntryNotFoundError("not there")
        return str(CONFIGS / "mixtral-8x7b.json")

    monkeypatch.setattr("luthier.models.hub.hf_hub_download", download)
    config, source = read_config("mistralai/Mixtral-8x7B-v0.1", tmp_path)
    assert (config.num_local_experts, source) == (8, "hub mistralai/Mixtral-8x7B-v0.1")
    assert asked == [("mistralai/Mixtral-8x7B-v0.1", "config.json", on) for on in (True, False)]


def test_a_hub_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr("luthier.models.hub.hf_hub_download", download)
    with pytest.raises(OSError):
        fetch_config("owner/name")  # reading the cache failed, which is another fault
    from huggingface_hub.errors import LocalEntryNotFoundError

    def nothing(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("not there")

    monkeypatch.setattr("luthier.models.hub.hf_hub_download", nothing)
    with pytest.raises(BadInput, match="owner/name is not on this machine and the hub cannot be reached"):
        fetch_config("owner/name")


def test_a_gguf_file_goes_through_its_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "config.json").write_text((CONFIGS / "smollm2-135m.json").read_text())
    monkeypatch.setattr(reading, "find_model", lambda *_, **__: type("Found", (), {"folder": tmp_path}))
    config, source = read_config("m.gguf", tmp_path)
    assert (config.hidden_size, source) == (576, "GGUF m.gguf")


def test_the_text_part_of_a_model_that_sees(tmp_path: Path) -> None:
    said: list[str] = []
    config, _ = read_config("gemma-3-4b.json", CONFIGS, lambda event: said.append(str(event["text"])))
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == ("gemma3_text", 2560, 34)
    assert said == ["gemma-3-4b.json: only the text part (gemma3_text) of gemma3"]


def test_own_code_and_stored_quantisation_of_a_known_architecture_are_left_out() -> None:
    said: list[str] = []
    config, _ = read_config("deepseek-v3.json", CONFIGS, lambda event: said.append(str(event["text"])))
    assert config.n_routed_experts == 256
    assert not hasattr(config, "quantization_config") and not hasattr(config, "auto_map")
    assert len(said) == 1 and "quantised" in said[0]


def test_encoder_decoders_are_known() -> None:
    assert is_encoder_decoder(read_config("flan-t5-base.json", CONFIGS)[0])
    assert not is_encoder_decoder(read_config("gpt2.json", CONFIGS)[0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "this is not JSON"),
        ("[1]", "a JSON object was wanted"),
        ("{}", "the key model_type is missing"),
        ('{"model_type": "llamma"}', 'the architecture "llamma" is unknown to transformers (did you mean "llama"?)'),
        ('{"model_type": "qwen9x", "auto_map": {"AutoModel": "a.B"}}', "code that the model brings along is never run"),
        ('{"model_type": "bert"}', 'the architecture "bert" is neither a causal nor an encoder-decoder'),
        ('{"model_type": "vit"}', 'the architecture "vit" is neither a causal nor an encoder-decoder'),
        ('{"model_type": "llama", "hidden_size": "wide"}', "the config of a llama cannot be read"),
    ],
)
def test_what_is_no_config_is_told_in_one_sentence(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadInput) as caught:
        read_config("config.json", tmp_path)
    assert words in str(caught.value)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing.json", "nothing.json: there is no such file"),
        ("deep/nothing.json", "deep/nothing.json: there is no such file"),
        ("smollm", 'there is no model "smollm"'),
        (".", "there is no config.json here"),
    ],
)
def test_what_is_not_there_is_told(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_config(name, tmp_path)
    assert words in str(caught.value)


def test_facts_may_come_without_a_file() -> None:
    facts = json.loads((CONFIGS / "gpt2.json").read_text())
    assert config_from(facts, where="here").n_embd == 768
