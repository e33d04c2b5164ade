"""The training benchmark's own arithmetic: which rows, which ratios, which curves are off, what the README gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.train import README, _fitting, _resolve, main
from benchmarks.training import rounds
from benchmarks.training.compare import TOLERANCE, best_of, deviation, speed, summarise
from benchmarks.training.envs import ENVS, holds_cuda, one_line
from benchmarks.training.peers import DEFAULT, SEARCH, TOOLS, Peer, parse_peer
from benchmarks.training.plot import loss_plot
from benchmarks.training.rounds import RUNNERS
from benchmarks.training.tables import markdown_table, section, terminal_table, write_results
from benchmarks.training.workloads import WORKLOADS, choose_mix, within


def step(loss: float, seconds: float, tokens: int = 100) -> dict[str, Any]:
    return {"loss": loss, "grad_norm": 1.5, "seconds": seconds, "tokens": tokens, "targets": 20}


def run(peer: str, losses: list[float], seconds: float, gigabytes: float, **more: Any) -> dict[str, Any]:
    return {
        "peer": peer,
        "steps": [step(losses[0], 10 * seconds), *(step(loss, seconds) for loss in losses[1:])],
        "load_s": 1.0,
        "rss_before_bytes": 5e8,
        "peak_rss_bytes": gigabytes * 1e9,
        "dtype": "bf16",
        "versions": {"torch": "2.13.0"},
        **more,
    }


CEILING = {
    "tokens": 200,
    "step_s": 2.0,
    "gemm_s": 1.5,
    "share": 0.75,
    "products": 900,
    "distinct": 30,
    "gemm_gflop": 500.0,
    "gemm_gflops": 333.0,
    "profiled_gflop": 510.0,
    "plain_gflops": 400.0,
    "plain_share": 0.62,
    "plain": "bf16 1024x576x3072",
    "tokens_per_s": 100.0,
}


@pytest.fixture
def result() -> dict[str, Any]:
    return {
        "workload": "lora",
        "command": "python benchmarks/train.py --workload lora --rounds 3",
        "date": "2026-11-24",
        "machine": {"cpu": "A CPU", "cores": 2, "memory_gib": 23.5, "system": "Linux"},
        "rounds": 3,
        "model_is": "smollm2-135m-instruct",
        "totals": {"rows": 96, "tokens": 14361, "targets": 2872, "shortest": 60, "longest": 447},
        "steps": [[0], [1], [2]],
        "runs": [
            run("luthier", [2.0, 1.5, 1.0], 0.2, 1.5, ceiling=CEILING),
            run("trl", [2.0, 1.5, 1.01], 1.0, 6.0),
            {"peer": "torchtune", "failed": "does not install: No matching distribution"},
            run("luthier", [2.0, 1.5, 1.0], 0.1, 1.5, ceiling=CEILING),
            run("trl", [2.0, 1.5, 1.01], 2.0, 6.0),
            run("hf", [2.0, 1.55, 1.0], 0.5, 3.0),
            run("luthier", [2.0, 1.5, 1.0], 0.4, 1.5, ceiling=CEILING),
            run("trl", [2.0, 1.5, 1.01], 4.0, 6.0),
        ],
    }


def test_the_mix_meets_both_totals_and_is_the_same_every_time() -> None:
    sizes = [(60 + 7 * index % 380, 5 + 11 * index % 70) for index in range(400)]
    wanted = {"count": 96, "tokens": 19_000, "targets": 3_600, "seed": 0}
    chosen = choose_mix(sizes, **wanted)
    assert chosen == choose_mix(sizes, **wanted)
    assert len(set(chosen)) == 96
    assert within(sum(sizes[index][0] for index in chosen), 19_000, 0.01)
    assert within(sum(sizes[index][1] for index in chosen), 3_600, 0.01)


def test_too_few_rows_are_no_mix() -> None:
    with pytest.raises(ValueError, match="too few"):
        choose_mix([(100, 20)], count=2, tokens=200, targets=40, seed=0)


def test_every_workload_has_whole_steps() -> None:
    assert all(workload.count % workload.rows_per_step == 0 for workload in WORKLOADS.values())


def test_the_first_step_is_not_in_the_speed_but_may_be_the_only_one() -> None:
    assert speed([step(1.0, 10.0), step(1.0, 1.0), step(1.0, 3.0)]) == 50.0
    assert speed([step(1.0, 10.0)]) == 10.0


def test_rows_hold_medians_ranges_and_ratios(result: dict[str, Any]) -> None:
    rows = {row["peer"]: row for row in summarise(result)}
    assert list(rows) == ["luthier", "trl", "torchtune", "hf"]
    assert rows["luthier"]["tokens_per_s"] == pytest.approx(500)
    assert (rows["luthier"]["slowest"], rows["luthier"]["fastest"]) == pytest.approx((250, 1000))
    assert rows["trl"]["tokens_per_s"] == pytest.approx(50)
    assert rows["trl"]["faster"] == pytest.approx(10)
    assert rows["trl"]["memory"] == pytest.approx(0.25)
    assert rows["luthier"]["ceiling"]["share"] == 0.75
    assert rows["torchtune"] == {"peer": "torchtune", "failed": "does not install: No matching distribution"}


def test_a_curve_that_is_off_in_one_step_is_flagged(result: dict[str, Any]) -> None:
    rows = {row["peer"]: row for row in summarise(result)}
    assert rows["trl"]["deviation"] == pytest.approx(0.01)
    assert not rows["trl"]["beyond"]
    assert rows["hf"]["deviation"] == pytest.approx(0.05 / 1.5)
    assert rows["hf"]["beyond"]
    assert "⚠" in markdown_table(summarise(result)).split("| hf |")[1]
    assert "⚠" not in markdown_table(summarise(result)).split("| hf |")[0]


def test_a_third_curve_tells_who_is_right(result: dict[str, Any]) -> None:
    result["reference"] = "hf"
    rows = {row["peer"]: row for row in summarise(result)}
    assert rows["luthier"]["exact_deviation"] == pytest.approx(0.05 / 1.55)
    assert rows["trl"]["exact_deviation"] == pytest.approx(0.05 / 1.55)
    assert "exact_deviation" not in rows["hf"] and "exact_deviation" not in rows["torchtune"]
    assert rows["trl"]["exact_beyond"]
    assert "The fp32 curve is that of hf" in section(result)


def test_a_reference_that_did_not_run_is_no_reference(result: dict[str, Any]) -> None:
    result["reference"] = "torchtune"
    assert all("exact_deviation" not in row for row in summarise(result))
    assert "fp32 curve is" not in section(result)


def test_curves_of_different_length_are_not_compared() -> None:
    with pytest.raises(ValueError):
        deviation([1.0, 2.0], [1.0])
    assert deviation([2.0], [2.0 * (1 + TOLERANCE)]) == pytest.approx(TOLERANCE)


def test_without_luthier_there_are_speeds_but_no_ratios(result: dict[str, Any]) -> None:
    result["runs"] = [one for one in result["runs"] if one["peer"] != "luthier"]
    rows = summarise(result)
    assert all("faster" not in row for row in rows)
    assert "trl" in terminal_table(rows)


def test_the_best_variants_are_trls_fastest() -> None:
    rows = [
        {"peer": "hf", "tokens_per_s": 900},
        {"peer": "trl", "tokens_per_s": 90},
        {"peer": "trl-bf16-grouped", "tokens_per_s": 160},
        {"peer": "trl-bf16-patched", "tokens_per_s": 235},
        {"peer": "trl-fp32", "failed": "does not run"},
    ]
    assert best_of(rows, patched=False) == "trl-bf16-grouped"
    assert best_of(rows, patched=True) == "trl-bf16-patched"
    assert best_of(rows[:1], patched=True) is None


def test_best_is_replaced_by_what_was_found_and_falls_away_otherwise() -> None:
    found = ["trl-bf16-grouped", "trl-bf16-patched"]
    assert [peer.name for peer in _resolve(["luthier", "best", "best-patched"], found)] == ["luthier", *found]
    assert [peer.name for peer in _resolve(["luthier", "best"], [])] == ["luthier"]
    assert [peer.name for peer in _resolve(["trl", "best"], ["trl"])] == ["trl"]


def test_every_name_of_the_lists_is_a_peer_with_a_runner() -> None:
    for name in (*SEARCH, *(name for name in DEFAULT if not name.startswith("best"))):
        assert (RUNNERS / parse_peer(name).tool.runner).is_file()
    assert {tool.env for tool in TOOLS.values()} - {None} == set(ENVS)


def test_the_rounds_are_interleaved_and_a_peer_that_failed_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def fake(job: Any, work: Any, peer: Peer, python: Any) -> dict[str, Any]:
        ran.append(peer.name)
        return {"failed": "does not run"} if peer.name == "hf" else {"steps": []}

    monkeypatch.setattr(rounds, "_run", fake)
    monkeypatch.setattr(rounds, "_python", lambda peer, envs: tmp_path)
    kept: list[int] = []
    peers = [parse_peer(name) for name in ("luthier", "hf", "trl", "hf-fp32")]
    rounds.run_rounds({}, tmp_path, peers, 3, tmp_path, lambda runs: kept.append(len(runs)), ["hf-fp32"])
    assert ran == ["luthier", "hf", "trl", "hf-fp32", "luthier", "trl", "luthier", "trl"]
    assert kept == list(range(1, 9))


def test_variants_that_cannot_differ_are_not_searched() -> None:
    assert not any("micro" in name or "grouped" in name for name in _fitting(SEARCH, 1))
    assert len(_fitting(SEARCH, 8)) == len(SEARCH)


@pytest.mark.parametrize("name", ["nobody", "trl-quick", "luthier-micro4", "hf-patched", "trl-micro0"])
def test_an_unknown_peer_is_told(name: str) -> None:
    with pytest.raises(ValueError):
        parse_peer(name)


def test_a_bad_peer_and_missing_data_are_one_sentence(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--peers", "trl-quick", "--data", str(tmp_path)]) == 2
    assert 'no option "quick"' in capsys.readouterr().err
    assert main(["--data", str(tmp_path / "nowhere")]) == 2
    assert "--data FOLDER" in capsys.readouterr().err


def test_reasons_are_one_line_and_cuda_is_seen() -> None:
    assert one_line("x\nERROR: No matching distribution found for torchtune\n") == (
        "No matching distribution found for torchtune"
    )
    assert one_line("") == "no output"
    assert holds_cuda(["torch", "triton", "nvidia-cudnn-cu13"]) == ["triton", "nvidia-cudnn-cu13"]


def test_the_readme_gets_the_results_between_its_marks(result: dict[str, Any]) -> None:
    page = "# Page\n\n<!-- results: lora -->\nold\n<!-- end -->\n\n<!-- results: full -->\n<!-- end -->\nrest\n"
    written = write_results(page, [result])
    assert "old" not in written and written.endswith("<!-- results: full -->\n<!-- end -->\nrest\n")
    assert "| trl | 50 (25–100) | 10.00 × | 6.00 GB | 25% |" in written
    for said in ("2026-11-24", "A CPU, 2 cores, 24 GiB", "torch 2.13.0", "75% of a step", "14,361 tokens"):
        assert said in written
    assert write_results(written, [result]) == written


def test_a_readme_without_the_place_is_refused(result: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="results: lora"):
        write_results("# Page", [result])


def test_the_real_readme_has_a_place_for_every_workload(result: dict[str, Any]) -> None:
    page = README.read_text(encoding="utf-8")
    for name in WORKLOADS:
        assert section(result | {"workload": name}) in write_results(page, [result | {"workload": name}])


def test_the_plot_draws_every_curve(result: dict[str, Any]) -> None:
    picture = loss_plot(summarise(result), "lora")
    assert picture.count("<polyline") == 3 and "hf (3.3% off)" in picture


def test_the_summary_can_be_kept_as_json(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(summarise(result)))[0]["peer"] == "luthier"
