"""Starting processes: how they end together, whose words are told, what they are given; and how rows are shared."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.ground.errors import BadInput, Refused
from luthier.training.parallel.group import SOLO, joined
from luthier.training.parallel.launch import LOST, _Workers, launch, worker_environment
from luthier.training.parallel.share import share_rows


def _outcome(folder: Path, codes: list[int], words: list[str], ended: list[int], asked: int = 0) -> Any:
    for rank, text in enumerate(words):
        (folder / f"err-{rank}").write_text(text)
        (folder / f"out-{rank}").write_text(f"output {rank}")
    workers = _Workers(folder, len(codes), lambda _: None, ended=ended, asked=asked)
    workers.running = [SimpleNamespace(returncode=code) for code in codes]  # type: ignore[misc]
    return workers._outcome()


def test_all_well_is_the_output_of_rank_0(tmp_path: Path) -> None:
    ended = _outcome(tmp_path, [0, 0], ["warnings", ""], [1, 0])
    assert (ended.exit_code, ended.output, ended.words) == (0, "output 0", "")


def test_rank_0_speaks_for_all(tmp_path: Path) -> None:
    words = ["noise\nluthier: step 3: the loss is not finite.\n", "luthier: step 3: the loss is not finite.\n"]
    ended = _outcome(tmp_path, [1, 1], words, [1, 0])
    assert (ended.exit_code, ended.words) == (1, "step 3: the loss is not finite.")


def test_a_killed_rank_is_named_in_the_words_of_the_one_that_lost_it(tmp_path: Path) -> None:
    lost = f"luthier: runs/1: {LOST} after step 7; what was saved before is kept; continue with: luthier train.\n"
    for codes, who in (([2, -9], 1), ([-9, 2], 0)):
        words = ["" if code < 0 else lost for code in codes]
        ended = _outcome(tmp_path, codes, words, [who, 1 - who])
        assert ended.exit_code == 2
        assert ended.words.startswith(f"runs/1: process {who} of 2 was killed (SIGKILL) after step 7; what was saved")


def test_the_own_words_of_a_failed_rank_come_before_those_of_the_ones_that_lost_it(tmp_path: Path) -> None:
    ended = _outcome(tmp_path, [2, 2], [f"luthier: {LOST}.", "Traceback\nluthier: this disk is read-only."], [1, 0])
    assert (ended.exit_code, ended.words) == (2, "this disk is read-only.")
    ended = _outcome(tmp_path, [2, 1], [f"luthier: {LOST}.", "MemoryError: too much"], [1, 0])
    assert "process 1 failed: MemoryError: too much" in ended.words


def test_killed_after_being_asked_to_stop_is_an_interruption(tmp_path: Path) -> None:
    assert _outcome(tmp_path, [-15, -15], ["", ""], [0, 1], asked=15).exit_code == 143


def test_processes_of_the_real_program() -> None:
    ended = launch(["--version"], 2)
    assert ended.exit_code == 0 and ended.output.startswith("luthier ")
    ended = launch(["check", "no-such-task.yaml"], 2)
    assert ended.exit_code == 2 and "no-such-task.yaml" in ended.words and "\n" not in ended.words


def test_each_process_gets_its_place_its_cores_and_the_loopback() -> None:
    one = worker_environment(64, 3, Path("store"), {"PATH": "here"})
    assert (one["RANK"], one["WORLD_SIZE"], one["OMP_NUM_THREADS"], one["PATH"]) == ("3", "64", "1", "here")
    assert one["GLOO_SOCKET_IFNAME"] == ("lo" if sys.platform == "linux" else "lo0")
    assert worker_environment(64, 3, Path("store"), {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"


def test_without_variables_the_group_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as group:
        assert group == SOLO and group.first(lambda: 5) == 5 and group.gather("x") == ["x"]
        with pytest.raises(Refused), group.in_turn():
            group.together(_refuse)


def _refuse() -> None:
    raise Refused("no")


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("x", "2"), ("0", "many")])
def test_variables_that_make_no_sense_are_told(monkeypatch: pytest.MonkeyPatch, rank: str, size: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(BadInput, match="environment: "), joined():
        pass


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(1, 9))
def test_every_row_is_shared_out_once_and_evenly(lengths: list[int], size: int) -> None:
    rows = list(np.random.default_rng(0).permutation(len(lengths)))
    shares = share_rows(lengths, rows, size)
    assert sorted(itertools.chain(*shares)) == sorted(rows) and len(shares) == size
    assert all(list(share) == [row for row in rows if row in share] for share in shares), "in the order of the step"
    most = max(sum(lengths[row] for row in share) for share in shares)
    assert most <= sum(lengths) / size + max(lengths)
    assert shares == share_rows(lengths, rows, size)
