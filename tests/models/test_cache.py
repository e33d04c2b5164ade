"""The cache: whole or absent, damage is found out, one maker at a time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from luthier.models import cache
from luthier.models.cache import cached_folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    """Counts how often it made the folder."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, draft: Path) -> None:
        self.times += 1
        (draft / "weights").write_bytes(b"12345")


def test_it_is_made_once(own_cache: Path) -> None:
    make = Maker()
    folder, was_there = cached_folder("m", make)
    assert (folder, was_there) == (own_cache / "models" / "m", False)
    assert cached_folder("m", make) == (folder, True) and make.times == 1


@pytest.mark.parametrize("fully_hashed", [True, False])
@pytest.mark.parametrize("damage", ["missing", "shorter", "no manifest", "changed"])
def test_damage_is_found_out_and_mended_with_a_word(
    damage: str, fully_hashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fully_hashed:
        monkeypatch.setattr(cache, "_FULLY_HASHED_BYTES", 0)
    make, told = Maker(), list[Any]()
    folder, _ = cached_folder("m", make)
    if damage == "missing":
        (folder / "weights").unlink()
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        (folder / "weights").write_bytes(b"123" if damage == "shorter" else b"12346")
    _, was_there = cached_folder("m", make, tell=told.append)
    if damage == "changed" and not fully_hashed:  # of very large folders only the sizes are compared
        assert was_there
        return
    assert not was_there and make.times == 2 and "damaged" in told[0]["text"]
    assert (folder / "weights").read_bytes() == b"12345"


def test_a_failed_making_leaves_nothing_and_a_later_one_sweeps(own_cache: Path) -> None:
    def fail(draft: Path) -> None:
        (draft / "half").write_text("half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        cached_folder("m", fail)
    assert not (own_cache / "models" / "m").exists()
    left = own_cache / "models" / ".draft-m-0123abcd"  # as a kill would leave it
    left.mkdir()
    other = own_cache / "models" / ".draft-n-0123abcd"
    other.mkdir()
    cached_folder("m", Maker())
    assert not left.exists() and other.exists()


def test_a_second_maker_waits_and_finds_it_made() -> None:
    make, answers, told = Maker(), list[tuple[Path, bool]](), list[Any]()
    started = threading.Event()

    def slow(draft: Path) -> None:
        started.set()
        time.sleep(0.5)
        make(draft)

    first = threading.Thread(target=lambda: answers.append(cached_folder("m", slow)))
    first.start()
    started.wait(5)
    answers.append(cached_folder("m", make, tell=told.append))
    first.join()
    assert make.times == 1 and sorted(was_there for _, was_there in answers) == [False, True]
    assert "another process" in told[0]["text"]
