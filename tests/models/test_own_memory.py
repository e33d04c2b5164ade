"""Loaded weights have memory of their own, the file's values, and loading needs the model and one weight."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from luthier.models.find import find_model
from luthier.models.load import load_model
from luthier.models.own_memory import let_go, mapped_ranges, take_over
from models.tiny_models import tiny_tokenizer

ON_LINUX = pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="only Linux tells what is mapped")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def _save(folder: Path, dtype: torch.dtype, *, tied: bool = True, width: int = 256, layers: int = 3) -> Path:
    """A complete llama folder; with the defaults its file has 10 MB in float32."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=4, tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def _resident_of_file(folder: Path) -> int:
    """Return how many bytes of files of the folder this process has in memory through a mapping."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(maxsplit=1)[0]:
            inside = str(folder.resolve()) in line
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@ON_LINUX
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=["stored fp32", "stored bf16"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_of_the_file_stays_in_memory(
    stored: torch.dtype, precision: Literal["fp32", "bf16"], tmp_path: Path
) -> None:
    folder = _save(tmp_path, stored)
    assert (folder / "model.safetensors").stat().st_size > 4.5e6
    loaded = load_model(find_model(str(folder)), precision)
    ranges = mapped_ranges(folder)
    places = [(weight.data_ptr(), weight.nbytes) for weight in loaded.model.parameters()]
    assert not any(start < at + size and at < end for at, size in places for start, end in ranges)
    assert _resident_of_file(folder) < 0.2e6, "at most the pages between two weights"


@ON_LINUX
def test_the_measure_of_the_test_above_sees_a_mapped_file(tmp_path: Path) -> None:
    folder = _save(tmp_path, torch.float32)
    with safe_open(folder / "model.safetensors", "pt") as file:
        held = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118  # it is no dictionary
    total = sum(float(tensor.sum()) for tensor in held)
    if not mapped_ranges(folder):
        pytest.skip("safetensors did not map the file")
    before = _resident_of_file(folder)
    assert before > 9e6
    for tensor in held:
        let_go(tensor, mapped_ranges(folder))
    assert _resident_of_file(folder) < 0.2e6
    assert sum(float(tensor.sum()) for tensor in held) == total, "what was let go is read again"


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_are_the_files_bit_for_bit(
    stored: torch.dtype, precision: Literal["fp32", "bf16"], tmp_path: Path
) -> None:
    folder = _save(tmp_path, stored)
    stored_weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored_weights.values()} == {stored}
    loaded = dict(load_model(find_model(str(folder)), precision).model.named_parameters())
    assert set(loaded) == set(stored_weights)
    for name, tensor in stored_weights.items():
        assert loaded[name].dtype == DTYPES[precision]
        assert torch.equal(loaded[name], tensor.to(DTYPES[precision])), name
        assert loaded[name].is_contiguous()


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_stay_tied_and_others_apart(tied: bool, tmp_path: Path) -> None:
    model = load_model(find_model(str(_save(tmp_path, torch.float32, tied=tied))), "bf16").model
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert (head is embedding) == tied
    assert (head.data_ptr() == embedding.data_ptr()) == tied
    assert torch.equal(head, embedding) == tied


def test_whole_numbers_stay_as_they_are_and_right_weights_are_not_moved(tmp_path: Path) -> None:
    model = nn.Module()
    model.codes = nn.Parameter(torch.arange(6, dtype=torch.uint8), requires_grad=False)
    model.scale = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    model.wide = nn.Parameter(torch.full((4,), 1 / 3))
    place = model.scale.data_ptr()
    take_over(model, torch.bfloat16, tmp_path)
    assert model.codes.dtype == torch.uint8 and model.codes.tolist() == [0, 1, 2, 3, 4, 5]
    assert model.scale.data_ptr() == place, "memory of its own and the right precision: nothing to do"
    assert torch.equal(model.wide, torch.full((4,), 1 / 3).to(torch.bfloat16))


@ON_LINUX
def test_a_file_behind_a_link_is_found_as_well(tmp_path: Path) -> None:
    """The hub's cache is a folder of links to blobs that lie elsewhere."""
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    folder.mkdir()
    save_file({"x": torch.ones(1_000_000)}, blobs / "0123abcd")
    (folder / "model.safetensors").symlink_to(blobs / "0123abcd")
    with safe_open(folder / "model.safetensors", "pt") as file:
        held = file.get_tensor("x")
    ranges = mapped_ranges(folder)
    if not ranges:
        pytest.skip("safetensors did not map the file")
    assert any(start <= held.data_ptr() < end for start, end in ranges)


_LOAD = """
import sys
import transformers.models.llama.modeling_llama  # a model class, which loading would import
from luthier.machine.memory import PeakMemory, give_back_memory, resident_bytes
from luthier.models.find import find_model
from luthier.models.load import load_model, load_tokenizer

found = find_model(sys.argv[1])
load_tokenizer(found)
before = resident_bytes()
with PeakMemory() as peak:
    model = load_model(found, "bf16").model
print(peak.bytes - before, resident_bytes() - before)
"""


@pytest.mark.slow
@ON_LINUX
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system tells no exact peak")
def test_loading_needs_the_model_and_one_weight(tmp_path: Path) -> None:
    folder = _save(tmp_path, torch.float32, width=1024, layers=5)
    weights = load_file(folder / "model.safetensors")
    model, largest = (f(tensor.numel() for tensor in weights.values()) for f in (sum, max))
    del weights
    assert 4 * model > 190e6
    done = subprocess.run([sys.executable, "-c", _LOAD, str(folder)], text=True, capture_output=True, check=True)
    peak, after = map(int, done.stdout.split())
    assert peak < 2 * model + 4 * largest + 60e6, f"{peak / 1e6:.0f} MB for a model of {2 * model / 1e6:.0f} MB"
    assert 2 * model <= after < 2 * model + 40e6
