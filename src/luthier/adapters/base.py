"""What every kind of adapter can do, and the registry of kinds.

An adapter kind injects itself into a model, lists what it trains, saves, loads, and removes itself so that the base is
bit for bit what it was. Built-in kinds (`lora`, `full`) and plug-ins (entry-point group `luthier.adapters`) stand in
one registry. A model carries at most one adapter. How adapters are trained is not known here.

    kind = get_kind("lora"); kind.inject(model, spec, seed=0); kind.save(model, Path("adapter"), spec, None)
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from torch import nn
from transformers import PreTrainedModel

from luthier.ground.errors import BadInput
from luthier.ground.files import whole_folder
from luthier.ground.registry import Registry
from luthier.ground.results import Provenance
from luthier.ground.spec import AdapterSpec
from luthier.models.folder import read_json_file

FACTS = "luthier.json"


class AdapterKind(Protocol):
    """One way of changing a model."""

    def inject(self, model: PreTrainedModel, spec: AdapterSpec, *, seed: int) -> None:
        """Put a fresh adapter into the model: its output does not change yet. Same seed, same values."""

    def trainable(self, model: PreTrainedModel) -> dict[str, nn.Parameter]:
        """Return what is trained, float32, by name; the names are stable across processes."""

    def save(
        self,
        model: PreTrainedModel,
        folder: Path,
        spec: AdapterSpec,
        provenance: Provenance | None,
        *,
        template_key: str | None = None,
    ) -> None:
        """Write the adapter into `folder`: into it if it exists (a draft), otherwise whole or not at all."""

    def load(self, model: PreTrainedModel, folder: Path) -> None:
        """Inject the adapter that lies in `folder`; refuse it unless every tensor fits this very base model."""

    def remove(self, model: PreTrainedModel) -> None:
        """Take the adapter out: the model is bit for bit the base again."""

    def switch(self, model: PreTrainedModel, on: bool) -> None:
        """Switch the adapter's effect off or on again without removing it."""


_METHODS = ("inject", "trainable", "save", "load", "remove", "switch")


def _missing(kind: object) -> str | None:
    lacking = [name for name in _METHODS if not callable(getattr(kind, name, None))]
    return f"it has no method {lacking[0]}" if lacking else None


ADAPTERS: Registry[AdapterKind] = Registry(
    group="luthier.adapters",
    kind="adapter kind",
    modules=("luthier.adapters.lora", "luthier.adapters.full"),
    missing=_missing,
)
_ACTIVE: weakref.WeakKeyDictionary[nn.Module, tuple[AdapterKind, bool]] = weakref.WeakKeyDictionary()


def get_kind(name: str) -> AdapterKind:
    """Return the adapter kind called `name`; BadInput lists the known ones."""
    return ADAPTERS.get(name)


def kind_of_folder(folder: Path) -> str:
    """Return the kind of the adapter in `folder` (a PEFT folder without Luthier's own file is a LoRA).

    Raises:
        BadInput: there is no adapter here.
    """
    if (folder / FACTS).is_file():
        kind = read_json_file(folder / FACTS).get("adapter_kind")
        if isinstance(kind, str):
            return kind
    if (folder / "adapter_config.json").is_file():
        return "lora"
    raise BadInput("there is no adapter here", where=str(folder), fix="name the folder that holds adapter_config.json")


def load_adapter(model: PreTrainedModel, folder: Path) -> str:
    """Put the adapter that lies in `folder` into the model and return the name of its kind."""
    name = kind_of_folder(folder)
    get_kind(name).load(model, folder)
    return name


def remove_adapter(model: PreTrainedModel) -> None:
    """Take the adapter, if there is one, out of the model."""
    active = _ACTIVE.get(model)
    if active is not None:
        active[0].remove(model)


@contextlib.contextmanager
def adapter_off(model: PreTrainedModel) -> Iterator[None]:
    """Switch the adapter, if there is one, off for the length of the block: the model answers as the base."""
    active = _ACTIVE.get(model)
    if active is None or not active[1]:
        yield
        return
    kind = active[0]
    kind.switch(model, False)
    _ACTIVE[model] = (kind, False)
    try:
        yield
    finally:
        kind.switch(model, True)
        _ACTIVE[model] = (kind, True)


def mark_injected(model: PreTrainedModel, kind: AdapterKind) -> None:
    """Note that the model carries an adapter of this kind; BadInput if it carries one already."""
    if model in _ACTIVE:
        raise BadInput("the model carries an adapter already", fix="remove it first")
    _ACTIVE[model] = (kind, True)


def mark_removed(model: PreTrainedModel) -> None:
    """Note that the model carries no adapter."""
    _ACTIVE.pop(model, None)


@contextlib.contextmanager
def adapter_folder(folder: Path) -> Iterator[Path]:
    """Yield where to write an adapter: `folder` itself if it exists, otherwise a draft that becomes it."""
    if folder.is_dir():
        yield folder
        return
    with whole_folder(folder) as draft:
        yield draft


def facts_of(kind: str, spec: AdapterSpec, provenance: Provenance | None, template_key: str | None) -> dict[str, Any]:
    """Return what is written beside an adapter: what it is, and which base and template it belongs to."""
    return {
        "adapter_kind": kind,
        "spec": spec.model_dump(mode="json"),
        "base": provenance.model_dump(mode="json") if provenance else None,
        "template_key": template_key,
    }
