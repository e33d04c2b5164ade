"""Is this folder a model that may be read? Pickles, code of its own, and links or names that lead outside are refused.

Only safetensors and JSON are read. Looks at names, links, small JSON files and safetensors headers; loads no weights:
what they hold is checked by `luthier.models.load`.

    check_folder(Path("my-model"))
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from luthier.ground.errors import BadInput, Refused
from luthier.ground.strict_json import parse_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_MOST_JSON_BYTES = 64 << 20


def check_folder(folder: Path, *, links_into: Path | None = None) -> list[Path]:
    """Return the safetensors files of a model folder after looking at everything that could be harmful.

    Args:
        links_into: links may lead here as well (the hub's cache is made of links); otherwise only inside `folder`.

    Raises:
        BadInput: no model, or a damaged one. Refused: pickles, code of its own, links or names that lead outside.
    """
    _refuse_stray_links(folder, links_into)
    config = _read_config(folder)
    _refuse_own_code(folder)
    _refuse_unusable(config, folder)
    weights = _weight_files(folder)
    for file in weights:
        tensor_shapes(file)
    _require_tokenizer(folder)
    return weights


def read_json_file(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; BadInput if it is none, or too large to be one of a model's."""
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise BadInput(f"the file has more than {_MOST_JSON_BYTES:,} bytes", where=str(path))
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the file cannot be read ({type(error).__name__})", where=str(path)) from error
    value = parse_json(text, where=str(path))
    if not isinstance(value, dict):
        raise BadInput("a JSON object was wanted", where=str(path))
    return value


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return name and shape of each tensor of a safetensors file, read from its header.

    Raises:
        BadInput: it is not a safetensors file (a renamed pickle is not opened in any other way).
    """
    return {name: shape for name, (_, shape) in tensor_headers(file).items()}


def tensor_headers(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return element type (as safetensors writes it, such as BF16) and shape of each tensor of a file."""
    try:
        with safe_open(file, framework="np") as content:
            slices = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118
            return {name: (str(part.get_dtype()), tuple(part.get_shape())) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise BadInput(
            f"this is not a sound safetensors file ({reason})", where=str(file), fix="download or save it again"
        ) from error


def _refuse_stray_links(folder: Path, links_into: Path | None) -> None:
    allowed = [folder.resolve(), *([links_into.resolve()] if links_into else [])]
    for entry in (*folder.iterdir(), *folder.glob("*/*")):
        real = entry.resolve()
        if not any(real.is_relative_to(home) for home in allowed):
            raise Refused(
                f"the link leads out of the model's folder, to {real}", where=str(entry), fix="copy the file instead"
            )


def _read_config(folder: Path) -> dict[str, Any]:
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise BadInput(
            "this folder holds an adapter, not a model", where=str(folder), fix="name the base model's folder"
        )
    if not (folder / "config.json").is_file():
        raise BadInput("there is no config.json here, so this is not a model folder", where=str(folder))
    return read_json_file(folder / "config.json")


def _refuse_own_code(folder: Path) -> None:
    for name in ("config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json"):
        file = folder / name
        if file.is_file() and read_json_file(file).get("auto_map"):
            raise Refused(
                "the model wants to run code of its own (auto_map), which Luthier never does",
                where=str(file),
                fix="choose a model that transformers supports by itself",
            )


def _refuse_unusable(config: dict[str, Any], folder: Path) -> None:
    place = str(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise BadInput("the key model_type is missing", where=place)
    method = config.get("quantization_config")
    if method:
        name = method.get("quant_method", "an unnamed method") if isinstance(method, dict) else method
        raise BadInput(
            f"the weights are quantised ({name}), which is not read here",
            where=place,
            fix="name the unquantised model, or a GGUF file",
        )


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _sharded_files(folder)
    pickles = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in _PICKLES)
    if pickles:
        raise Refused(
            f"the weights are there only as a pickle ({pickles[0]}), which can run code and is never opened",
            where=str(folder),
            fix="convert them to safetensors, or choose a model that has them",
        )
    raise BadInput(f"there is no {WEIGHTS} here", where=str(folder))


def _sharded_files(folder: Path) -> list[Path]:
    place = str(folder / INDEX)
    table = read_json_file(folder / INDEX).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise BadInput("the key weight_map is missing or empty", where=place)
    names = sorted({str(name) for name in table.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise Refused(f'the index names "{name}", which is not a safetensors file of this folder', where=place)
        if not (folder / name).is_file():
            raise BadInput(f'the index names "{name}", which is missing', where=place, fix="download the model again")
    return [folder / name for name in names]


def _require_tokenizer(folder: Path) -> None:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt")):
        raise BadInput(
            "there is no tokenizer.json here", where=str(folder), fix="copy the tokenizer's files into the folder"
        )


_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


def stored_dtype(file: Path) -> str:
    """Return the element type of most of a file's numbers, such as `float32`."""
    sizes: Counter[str] = Counter()
    for kind, shape in tensor_headers(file).values():
        sizes[kind] += math.prod(shape)
    most = sizes.most_common(1)[0][0] if sizes else "nothing"
    return _NAMES.get(most, most)
