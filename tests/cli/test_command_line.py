"""The command as people meet it: help at once, one JSON object, one sentence per error, the right exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.verbs.conftest import task_folder, tiny_model

__all__ = ["task_folder", "tiny_model"]


def luthier(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "luthier", *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=120
    )


def test_help_answers_at_once_and_imports_nothing_heavy() -> None:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        done = luthier("--help")
        times.append(time.perf_counter() - began)
        assert done.returncode == 0 and "compare" in done.stdout
    assert min(times) < 0.3
    code = (
        "import sys, luthier.cli.main; print(sorted({'torch', 'transformers', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_every_verb_has_help_that_names_its_options() -> None:
    for verb in (
        "doctor",
        "start",
        "schema",
        "check",
        "index",
        "search",
        "prompt",
        "train",
        "compare",
        "advise",
        "report",
    ):
        done = luthier(verb, "--help")
        assert done.returncode == 0, verb
        if verb not in ("schema", "start"):
            assert "--set" in done.stdout and "--json" in done.stdout, verb


def test_the_schema_is_one_json_object() -> None:
    done = luthier("schema")
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["properties"]["train"]


def test_check_prints_one_json_object_and_words_go_to_standard_error(task_folder: Path) -> None:
    done = luthier("check", task_folder / "task.yaml", "--json")
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    assert plain["ok"] is True
    assert set(plain["rows"]["train"]) == {"read", "refused", "kept", "cut", "dropped", "without_target"}
    assert set(plain["tokens"]["train"]) >= {"total", "target", "quantiles"}
    assert {"faults", "duplicates", "overlap"} <= set(plain)
    assert "checking" in done.stderr


def test_a_broken_line_exits_1_and_loses_nothing(task_folder: Path) -> None:
    before = (task_folder / "dev.jsonl").read_bytes()
    text = (task_folder / "train.jsonl").read_text().splitlines(keepends=True)
    text[4] = text[4][:30] + "\n"
    (task_folder / "train.jsonl").write_text("".join(text))
    done = luthier("check", task_folder / "task.yaml")
    assert done.returncode == 1
    assert "train.jsonl:5" in done.stdout
    assert "31" in done.stdout  # the other rows are still counted
    assert (task_folder / "dev.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "nowhere.yaml"], "nowhere.yaml: there is no such task file"),
        (["check", "task.yaml", "--set", "train.epocs=1"], 'there is no key train.epocs (did you mean "epochs"?)'),
        (["index", "task.yaml", "--set", "documents=gone"], "there is no folder gone (documents)"),
        (["compare", "task.yaml", "--set", "metric=jason_match"], "jason_match"),
        (["train", "task.yaml", "--set", "train.adapter.targets=[q_prj]"], "q_prj"),
        (["check", "task.yaml", "--set", "model=no-such-model"], "no-such-model"),
        (["report", "task.yaml"], "nothing has been compared yet"),
        (["advise", "task.yaml", "--run", "runs"], "not an ended `compare` run"),
        (["search", "task.yaml", ""], "the query is empty"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(task_folder: Path, words: list[str], said: str) -> None:
    done = luthier(*words, cwd=task_folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    told = [line for line in done.stderr.splitlines() if not line.startswith("·")]
    assert len(told) == 1 and told[0].startswith("luthier: ")


def test_debug_shows_the_traceback(task_folder: Path) -> None:
    done = luthier("check", task_folder / "gone.yaml", "--debug")
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_saves_says_how_to_go_on_and_goes_on(
    task_folder: Path, number: signal.Signals, code: int
) -> None:
    run = task_folder / "run"
    words = ["train", str(task_folder / "task.yaml"), "--out", str(run), "--set", "train.epochs=40"]
    child = subprocess.Popen(
        [sys.executable, "-m", "luthier", *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 90
    events = run / "events.jsonl"
    while time.monotonic() < deadline and not (events.exists() and '"step"' in events.read_text()):
        time.sleep(0.05)
    os.kill(child.pid, number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == code, said
    assert "--resume" in said and "saved" in said and "--set train.epochs=40" in said
    assert list(run.glob("step-*")) and not (run / "report.json").exists()
    done = luthier(*words, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["steps"] == result["history"][-1]["step"] and result["epochs"] == 40


def test_a_second_process_is_refused(task_folder: Path) -> None:
    run = task_folder / "run"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from luthier.ground.locks import folder_lock\n"
            "with folder_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)",
            str(run),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdout.readline()
    done = luthier("train", task_folder / "task.yaml", "--out", run)
    holder.kill()
    assert done.returncode == 2
    assert f"in use by pid {holder.pid}" in done.stderr
