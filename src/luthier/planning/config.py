"""Read a model's config.json, and nothing else of the model, by the name that a person gives.

A preset, a hub id, a folder, a config.json (any .json file) or a GGUF file; of the hub only config.json is fetched, and
what was fetched once is used offline. A config that wraps a language model beside an image or sound encoder gives its
text part. Code of the model's own has no path. Weights are not looked at (a GGUF file and a preset's wheel excepted,
which hold the config).

    config, source = read_config("meta-llama/Llama-3.1-405B")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from luthier.ground.cache import cache_root
from luthier.ground.errors import BadInput, nearest
from luthier.ground.events import Tell, silent
from luthier.ground.files import expanded
from luthier.models.architecture import architecture_of
from luthier.models.find import find_model
from luthier.models.folder import read_json_file
from luthier.models.hub import fetch_config, looks_like_hub_id
from luthier.models.presets import PRESETS
from luthier.models.quiet import no_progress_bars

_NOT_FACTS = ("auto_map", "quantization_config", "dtype", "torch_dtype", "transformers_version", "_name_or_path")


def read_config(
    name: str, folder: Path | None = None, tell: Tell = silent, *, encoders: bool = False
) -> tuple[PretrainedConfig, str]:
    """Return the config of a causal or encoder-decoder language model, and where it came from in a few words.

    Args:
        name: a preset, a folder, a .json file, a GGUF file, or a hub id.
        folder: what a relative path is relative to (default: the working directory).
        encoders: take models that only read, too.

    Raises:
        BadInput: there is no such model, the file is no config, or its architecture is not a language model's or not
            known to transformers.
    """
    path, source = _config_file(name, ((folder or Path()) / expanded(name)).absolute(), tell)
    return config_from(read_json_file(path), where=name, tell=tell, encoders=encoders), source


def config_from(facts: dict[str, Any], *, where: str, tell: Tell = silent, encoders: bool = False) -> PretrainedConfig:
    """Return the config that the content of a config.json stands for; errors as those of `read_config`."""
    model_type = facts.get("model_type")
    if not isinstance(model_type, str):
        raise BadInput("the key model_type is missing, so this is not a model's config", where=where)
    if model_type not in CONFIG_MAPPING_NAMES:
        _refuse_unknown(model_type, bool(facts.get("auto_map")), where)
    if facts.get("quantization_config"):
        tell({"kind": "model", "text": f"{where}: stored quantised; planned as the precision that is asked for"})
    config = _built(model_type, {key: value for key, value in facts.items() if key not in _NOT_FACTS}, where)
    if encoders and architecture_of(config) == "encoder":
        return config
    return _language_part(config, where, tell)


def is_encoder_decoder(config: PretrainedConfig) -> bool:
    """Say whether the model has an encoder beside its decoder."""
    return bool(getattr(config, "is_encoder_decoder", False))


def _config_file(name: str, path: Path, tell: Tell) -> tuple[Path, str]:
    """Return the config.json, and where it came from."""
    if name in PRESETS:
        return _preset_config(name, tell), f"preset {name}"
    if name.lower().endswith(".json"):
        if not path.is_file():
            raise BadInput("there is no such file", where=name, fix="name a model's config.json")
        return path, f"file {path.name}"
    if path.is_file() or (path.is_dir() and not (path / "config.json").is_file() and list(path.glob("*.gguf"))):
        return find_model(str(path), tell=tell).folder / "config.json", f"GGUF {path.name}"
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BadInput("there is no config.json here, so this is not a model folder", where=name)
        return path / "config.json", f"folder {path.name}"
    if looks_like_hub_id(name):
        return fetch_config(name, tell=tell), f"hub {name}"
    raise BadInput(
        f'there is no model "{name}"{nearest(name, PRESETS)}',
        fix=f"name a preset ({', '.join(sorted(PRESETS))}), a hub id, a folder, a config.json or a GGUF file",
    )


def _preset_config(name: str, tell: Tell) -> Path:
    """Return it from the cache, from the hub, or from the preset's wheel."""
    cached = cache_root() / "models" / name / "config.json"
    if cached.is_file():
        return cached
    try:
        return fetch_config(PRESETS[name].hub_id, tell=tell)
    except BadInput:
        return find_model(name, tell=tell).folder / "config.json"


def _refuse_unknown(model_type: str, own_code: bool, where: str) -> None:
    because = ", and the code that the model brings along is never run" if own_code else ""
    raise BadInput(
        f'the architecture "{model_type}" is unknown to transformers{because}{nearest(model_type, _language_types())}',
        where=where,
        fix="choose a model that transformers supports by itself",
    )


def _language_types() -> list[str]:
    return [*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES]


def _built(model_type: str, facts: dict[str, Any], where: str) -> PretrainedConfig:
    try:
        with no_progress_bars():  # no advice about token ids either
            return CONFIG_MAPPING[model_type].from_dict(facts)
    except Exception as error:  # whatever the library meets in a stranger's file, it is what is wrong
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise BadInput(f"the config of a {model_type} cannot be read ({reason})", where=where) from error


def _language_part(config: PretrainedConfig, where: str, tell: Tell) -> PretrainedConfig:
    """Return the config itself or its text part; refuse what is no language model."""
    if "text_config" in config.sub_configs and not is_encoder_decoder(config):
        text = config.get_text_config()
        tell({"kind": "model", "text": f"{where}: only the text part ({text.model_type}) of {config.model_type}"})
        config = text
    kind = str(config.model_type)
    if is_encoder_decoder(config):
        fits = kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    else:
        reads_both_ways = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
        fits = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not reads_both_ways
    if not fits:
        raise BadInput(
            f'the architecture "{kind}" is neither a causal nor an encoder-decoder language model',
            where=where,
            fix="name a model that writes text",
        )
    return config
