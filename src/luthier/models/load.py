"""Load a found model and its tokenizer, in the precision that is asked for or quantised, with its provenance.

The model is set to evaluation, its weights frozen, and its attention is the one of `luthier.models.packed`, which is
plain scaled-dot-product attention for ordinary calls. Weights that are not finite, missing, or too few for the
tokenizer are refused. Nothing is fetched here.

    loaded = load_model(find_model("smollm2-135m-instruct"), "bf16"); print(loaded.provenance.sentence)
"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from luthier.ground.errors import BadInput
from luthier.ground.results import Provenance
from luthier.models.architecture import LIBRARY, architecture_of
from luthier.models.find import Found
from luthier.models.folder import read_json_file, stored_dtype
from luthier.models.own_memory import take_over
from luthier.models.packed import install_packed_attention
from luthier.models.quantized import QuantizedKind, QuantizedLinear, parameter_count
from luthier.models.quantized_loading import RoundToNearest
from luthier.models.quiet import no_progress_bars

Precision = Literal["bf16", "fp32"]
_UNUSED = "pooler."  # of encoders: never read here, and many files lack it
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_LOADED: weakref.WeakKeyDictionary[nn.Module, tuple[Provenance, Path]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer, and what it is."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    provenance: Provenance
    found: Found


def load_tokenizer(found: Found) -> PreTrainedTokenizerFast:
    """Return the model's tokenizer, which carries its chat template."""
    try:
        with no_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(str(found.folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever the library meets in a stranger's files, they are what is wrong
        raise BadInput(f"the tokenizer cannot be read ({_one_line(error)})", where=str(found.folder)) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BadInput("the tokenizer is not a fast one (tokenizer.json)", where=str(found.folder))
    return tokenizer


def load_config(found: Found) -> PretrainedConfig:
    """Return the model's config."""
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            str(found.folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # as above: a stranger's files
        raise BadInput(f"the model cannot be read ({_one_line(error)})", where=str(found.folder)) from error
    return config


def stop_ids(found: Found) -> list[int]:
    """Return the ids at which the model's own generation settings stop, if it has any."""
    path = found.folder / "generation_config.json"
    ids = read_json_file(path).get("eos_token_id") if path.is_file() else None
    return [value for value in (ids if isinstance(ids, list) else [ids]) if isinstance(value, int)]


def load_model(found: Found, precision: Precision, quantized: QuantizedKind | None = None) -> LoadedModel:
    """Return the model in bfloat16 or float32, frozen and in evaluation mode.

    Args:
        quantized: round the linear layers of the blocks so, one by one as they are read.

    Raises:
        BadInput: weights are missing, not finite (the tensor is named) or fewer than the tokenizer's tokens.
    """
    tokenizer = load_tokenizer(found)
    dtype = _DTYPES[precision]
    model = _read_weights(found, RoundToNearest(quantized, dtype, found.folder) if quantized else None)
    take_over(model, dtype, found.folder)
    model.config.dtype = dtype
    _refuse_non_finite(model, found)
    _refuse_small_embedding(model, tokenizer, found)
    model.to(default_device()).requires_grad_(False).eval()
    if architecture_of(model.config) == "decoder":
        install_packed_attention(model)
    provenance = _provenance(model, found, precision, quantized)
    _LOADED[model] = (provenance, found.folder)
    return LoadedModel(model, tokenizer, provenance, found)


def default_device() -> torch.device:
    """Return where models run: a CUDA GPU, Apple's GPU, or the CPU; `LUTHIER_DEVICE` names another."""
    if named := os.environ.get("LUTHIER_DEVICE"):
        return torch.device(named)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def provenance_of(model: nn.Module) -> Provenance | None:
    """Return the provenance of a model that was loaded here, and None for any other."""
    entry = _LOADED.get(model)
    return entry[0] if entry else None


def folder_of(model: nn.Module) -> Path | None:
    """Return the folder that a model was loaded from, and None for a model that was not loaded here."""
    entry = _LOADED.get(model)
    return entry[1] if entry else None


def _stored(found: Found) -> torch.dtype:
    """Return the precision in which most of the weights lie in the files, so that reading converts nothing."""
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return names.get(stored_dtype(next(iter(sorted(found.folder.glob("*.safetensors"))))), torch.float32)


def _read_weights(found: Found, rounding: RoundToNearest | None) -> PreTrainedModel:
    library = LIBRARY[architecture_of(load_config(found))]
    try:
        with no_progress_bars():
            model, report = library.from_pretrained(
                str(found.folder),
                dtype=_stored(found),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **({"quantization_config": rounding} if rounding else {}),
            )
    except Exception as error:  # as above: a stranger's files
        raise BadInput(f"the model cannot be read ({_one_line(error)})", where=str(found.folder)) from error
    for fault in ("missing_keys", "mismatched_keys"):
        names = sorted(name for name in map(str, report[fault]) if not name.startswith(_UNUSED))
        if names:
            name = names[0]
            raise BadInput(
                f"{len(names)} weights do not fit the config ({fault.removesuffix('_keys')}: {name})",
                where=str(found.folder),
            )
    return model


def _refuse_non_finite(model: PreTrainedModel, found: Found) -> None:
    # A sum is cheap and any NaN or infinity survives in it; only a suspicious sum is looked at closely.
    broken = [
        name
        for name, weight in model.named_parameters()
        if not torch.isfinite(weight.detach().sum()) and not torch.isfinite(weight.detach()).all()
    ]
    layers = ((name, layer) for name, layer in model.named_modules() if isinstance(layer, QuantizedLinear))
    broken += [f"{name}.weight" for name, layer in layers if not layer.quantized.is_finite()]
    if broken:
        raise BadInput(
            f"the weight {broken[0]} holds NaN or infinity", where=str(found.folder), fix="download the model again"
        )


def _refuse_small_embedding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, found: Found) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise BadInput(
            f"the tokenizer has {len(tokenizer):,} tokens and the embedding only {rows:,} rows",
            where=str(found.folder),
            fix="use the model's own tokenizer",
        )


def _provenance(
    model: PreTrainedModel, found: Found, precision: Precision, quantized: QuantizedKind | None
) -> Provenance:
    loaded_as = {"bf16": "bfloat16", "fp32": "float32"}[precision]
    if quantized:
        loaded_as = f"{quantized} with {loaded_as} beside it"
    return Provenance(
        name=found.name,
        source=found.source,
        origin=found.origin,
        format=found.format,
        stored_as=found.stored_as,
        loaded_as=loaded_as,
        sha256=found.sha256,
        parameters=parameter_count(model),
        license=found.license,
        sentence=_sentence(found, loaded_as),
    )


def _sentence(found: Found, loaded_as: str) -> str:
    kind = found.stored_as.split(" (")[0]
    if found.format == "gguf" and kind not in ("F32", "F16", "BF16"):
        return f"{kind} from {found.origin}, dequantised to {loaded_as}"
    same = kind == loaded_as
    return f"{kind} from {found.origin}" + ("" if same else f", loaded as {loaded_as}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
