"""Limits of containers, the list of what is ready, and free disk space."""

from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path

import psutil
import pytest

from luthier.machine import features as features_module
from luthier.machine import instructions as instructions_module
from luthier.machine import limits
from luthier.machine.features import features
from luthier.machine.instructions import instructions
from luthier.machine.limits import memory_free_bytes, memory_total_bytes
from luthier.machine.storage import storage


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content + "\n")


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Set what /proc/self/cgroup says, and what the machine has."""
    said = types.SimpleNamespace(text="0::/box/mine")
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, **kw: said.text if str(path) == "/proc/self/cgroup" else read(path, **kw)
    )
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(total=64 * 10**9, available=50 * 10**9))
    return said


def test_the_smallest_limit_on_the_way_up_counts(tmp_path: Path, inside: types.SimpleNamespace) -> None:
    group(tmp_path / "box" / "mine", memory__max="max", memory__current="1000")
    group(
        tmp_path / "box",
        memory__max="8000000000",
        memory__current="5000000000",
        memory__stat="inactive_file 1000000000",
    )
    assert memory_total_bytes(tmp_path) == 8 * 10**9
    assert memory_free_bytes(tmp_path) == 4 * 10**9  # pages of files can be dropped
    group(tmp_path / "box" / "mine", memory__max="2000000000", memory__current="3000000000")
    assert memory_total_bytes(tmp_path) == 2 * 10**9 and memory_free_bytes(tmp_path) == 0


def test_version_one_of_cgroups(tmp_path: Path, inside: types.SimpleNamespace) -> None:
    inside.text = "5:cpu,cpuacct:/x\n4:memory:/box"
    group(tmp_path / "memory" / "box", memory__limit_in_bytes="3000000000", memory__usage_in_bytes="1000000000")
    group(tmp_path / "memory", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="5")
    assert memory_total_bytes(tmp_path) == 3 * 10**9 and memory_free_bytes(tmp_path) == 2 * 10**9


def test_without_limits_it_is_the_machine(tmp_path: Path, inside: types.SimpleNamespace) -> None:
    assert memory_total_bytes(tmp_path) == 64 * 10**9 and memory_free_bytes(tmp_path) == 50 * 10**9
    inside.text = ""
    assert memory_total_bytes(tmp_path) == 64 * 10**9


def test_here_and_now() -> None:
    assert 0 < memory_free_bytes() <= memory_total_bytes() <= psutil.virtual_memory().total
    assert limits._number(Path("/nowhere")) is None


def by_name(gpu: bool = False) -> dict[str, tuple[bool, str]]:
    return {feature.name: (feature.ready, feature.needs) for feature in features(gpu=gpu)}


def test_features_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CXX", "LUTHIER_KERNELS", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert by_name()["models of the hub"] == (True, "") and by_name()["retrieval"] == (True, "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert by_name()["models of the hub"] == (False, "unset HF_HUB_OFFLINE")
    monkeypatch.setenv("CXX", "no-such-compiler")
    ready, needs = by_name()["native kernels"]
    assert not ready and "g++" in needs
    monkeypatch.setenv("CXX", sys.executable)
    assert by_name()["native kernels"] == (True, "")
    monkeypatch.setenv("LUTHIER_KERNELS", "plain")
    assert by_name()["native kernels"] == (False, "unset LUTHIER_KERNELS")


def test_liger_is_asked_for_only_where_it_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "_installed", lambda module: False)
    assert by_name(gpu=False)["liger kernels"] == (False, "")
    assert by_name(gpu=True)["liger kernels"] == (False, "pip install 'luthier[liger]'")
    assert by_name()["retrieval"] == (False, "pip install lancedb")


def test_native_attention_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, ready in ((("avx2",), False), (("avx2", "avx512_bf16"), True)):
        monkeypatch.setattr(features_module, "instructions", lambda flags=flags: flags)
        assert by_name()["native attention"][0] is ready


def test_instructions_are_read_from_either_kind_of_cpuinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    for content, wanted in (
        ("model name: x\nflags\t\t: fpu sse avx2 avx512f avx512_bf16 smap\n", ("avx2", "avx512f", "avx512_bf16")),
        ("Features\t: fp asimd asimdhp asimddp sve bf16 i8mm\n", ("neon", "asimdhp", "asimddp", "bf16", "i8mm", "sve")),
        ("nothing\n", ()),
    ):
        instructions.cache_clear()
        monkeypatch.setattr(Path, "is_file", lambda path: True)
        monkeypatch.setattr(Path, "read_text", lambda path, content=content, **kw: content)
        monkeypatch.setattr(instructions_module.platform, "system", lambda: "Linux")
        assert instructions() == wanted
    instructions.cache_clear()


def test_storage_is_asked_at_the_nearest_folder_and_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    places = {"cache": tmp_path / "home" / ".cache" / "luthier", "runs": tmp_path / "runs", "far": Path("/")}
    monkeypatch.chdir(tmp_path.parent)
    cache, runs, far = storage(places)
    assert cache.path == f"{tmp_path.name}/home/.cache/luthier" and runs.path == f"{tmp_path.name}/runs"
    assert far.path == "/" and not places["cache"].exists()
    assert abs(cache.free_bytes - shutil.disk_usage(tmp_path).free) < 10**9
    monkeypatch.chdir("/")
    monkeypatch.setattr(Path, "cwd", lambda: Path("/elsewhere"))
    assert storage(places)[0].path == "~/.cache/luthier"
