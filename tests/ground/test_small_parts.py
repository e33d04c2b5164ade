"""Errors, locks, events, seeds, hashes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.ground.errors import BadInput, Interrupted, Refused, nearest
from luthier.ground.events import both, event_log
from luthier.ground.hashes import key_of, sha256_file, sha256_text
from luthier.ground.locks import folder_lock
from luthier.ground.seeds import derived_seed


def test_an_error_is_one_sentence_with_place_and_fix() -> None:
    assert str(BadInput("it is wrong", where="a:1", fix="mend it")) == "a:1: it is wrong; mend it."
    assert [BadInput("x").exit_code, Refused("x").exit_code] == [2, 1]
    assert [Interrupted("x").exit_code, Interrupted("x", signal_number=15).exit_code] == [130, 143]


def test_the_nearest_word_is_offered_only_when_near() -> None:
    assert nearest("epocs", ["epochs", "rank"]) == ' (did you mean "epochs"?)'
    assert nearest("zzz", ["epochs", "rank"]) == ""


HOLDER = """
import sys, time
from pathlib import Path
from luthier.ground.locks import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_with_the_owner_and_a_dead_owner_is_not_waited_for(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"held\n"
    with pytest.raises(BadInput, match=f"in use by pid {child.pid} on"), folder_lock(tmp_path):
        pass
    child.kill()
    child.wait()
    with folder_lock(tmp_path):
        pass


def test_the_holder_may_lock_again_and_another_thread_may_not(tmp_path: Path) -> None:
    refused: list[BaseException] = []

    def intrude() -> None:
        try:
            with folder_lock(tmp_path):
                pass
        except BadInput as error:
            refused.append(error)

    with folder_lock(tmp_path):
        with folder_lock(tmp_path):
            pass
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
    assert len(refused) == 1


def test_events_are_lines_in_order(tmp_path: Path) -> None:
    seen: list[object] = []
    tell = both(seen.append, event_log(tmp_path / "events.jsonl"))
    for step in range(3):
        tell({"kind": "step", "step": step})
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert len(seen) == 3
    assert all(line["time"] > 1e9 for line in lines)


@given(st.integers(0, 2**40), st.lists(st.text(max_size=5) | st.integers(0, 9), max_size=4))
def test_derived_seeds_are_stable_and_in_range(seed: int, names: list[str | int]) -> None:
    assert derived_seed(seed, *names) == derived_seed(seed, *names)
    assert 0 <= derived_seed(seed, *names) < 2**63


def test_derived_seeds_differ_by_purpose() -> None:
    seeds = {derived_seed(0, purpose, epoch) for purpose in ("order", "dropout") for epoch in range(500)}
    assert len(seeds) == 1000


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("abc")
    assert sha256_file(tmp_path / "a") == sha256_text("abc")
    assert sha256_text("abc").startswith("ba7816bf8f01cfea")  # FIPS 180-2 test vector
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1}) != key_of({"a": 1, "b": [3]})
