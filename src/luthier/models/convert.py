"""Turn a GGUF file into a folder of safetensors, config, tokenizer and chat template.

`transformers` reads and dequantises the file; the model that it returns is marked as quantised and cannot be saved, so
a clean one is rebuilt from its config. Weights are kept in float32: a 4-bit weight `d * q + m` has more bits than
bfloat16 holds (measured on SmolLM2's Q4_1: rounding to bfloat16 moves weights by up to 0.3 % of the largest), and they
are rounded once, at load, if bfloat16 is asked for. It does not fetch or cache anything.

    convert_gguf(Path("model.gguf"), draft)
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from luthier.ground.errors import BadInput
from luthier.models.quiet import no_progress_bars


def convert_gguf(file: Path, into: Path) -> None:
    """Write the model of a GGUF file into the folder `into` (which exists), weights in float32.

    Raises:
        BadInput: the file is damaged, or of an architecture that `transformers` cannot read from GGUF.
    """
    try:
        with no_progress_bars(), contextlib.redirect_stderr(io.StringIO()):  # a bar that nothing else silences
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, local_files_only=True)
            marked = AutoModelForCausalLM.from_pretrained(
                str(file.parent), gguf_file=file.name, dtype=torch.float32, local_files_only=True
            )
    except Exception as error:  # the reader fails in many ways, all of which mean that this file cannot be used
        raise BadInput(f"this GGUF file cannot be read ({_one_line(error)})", where=str(file)) from error
    model = _rebuild(marked)
    with no_progress_bars():
        model.save_pretrained(into, safe_serialization=True, max_shard_size="5GB")
        tokenizer.save_pretrained(into)


def gguf_facts(file: Path) -> tuple[str, str | None]:
    """Return how a GGUF file stores its weights, such as `Q4_1 (embedding Q8_0)`, and its licence if it tells.

    Raises:
        BadInput: it is not a GGUF file.
    """
    try:
        reader = GGUFReader(file)
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise BadInput(f"this is not a GGUF file ({_one_line(error)})", where=str(file)) from error
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) > 1}
    embedding = kinds.pop("token_embd.weight", None)
    main = Counter(kinds.values()).most_common(1)[0][0] if kinds else (embedding or "unknown")
    field = reader.fields.get("general.license")
    license_name = str(field.contents()) if field is not None else None
    return (main if embedding in (None, main) else f"{main} (embedding {embedding})"), license_name


def _rebuild(marked: Any) -> Any:
    values = marked.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        values.pop(key, None)
    model = type(marked)(type(marked.config).from_dict(values)).to(torch.float32)
    model.load_state_dict(marked.state_dict(), strict=True)
    model.tie_weights()
    model.generation_config = GenerationConfig.from_model_config(model.config)
    return model


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
