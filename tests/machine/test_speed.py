"""Measured speeds: what is measured, how long it is kept, and that a bad file is never believed."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from luthier.machine import speed
from luthier.machine.catalogue import PRECISIONS
from luthier.machine.here import this_device
from luthier.machine.speed import Speeds, speeds


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own cache, and measurements of a few milliseconds."""
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    monkeypatch.setattr(speed, "_SHAPES", {"cpu": ((64, 64, 64),)})
    monkeypatch.setattr(speed, "_ALL_S", 0.0)
    monkeypatch.setattr(speed, "_TURN_S", 0.0)
    monkeypatch.setattr(speed, "_COPY_BYTES", 1 << 20)
    monkeypatch.setattr(speed, "DISTURBED", 1e9)
    return tmp_path


def kept(folder: Path) -> Path:
    (file,) = (folder / "machine").glob("speed-*.json")
    return file


def changed(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_all_precisions_are_named_and_what_cannot_be_done_is_none() -> None:
    found = speeds()
    assert tuple(found.products_flops_s) == PRECISIONS
    assert found.products_flops_s["tf32"] is None  # a mode of NVIDIA GPUs
    for name in ("fp32", "bf16", "fp16"):
        assert (found.products_flops_s[name] or 0) > 1e6
    assert found.bandwidth_bytes_s > 1e6 and found.threads == torch.get_num_threads()


def test_operations_are_counted_as_two_for_each_product_of_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 × 64 times 64 × 64 in one millisecond is 524 million operations a second; a copy reads and writes."""
    monkeypatch.setattr(speed, "_timed", lambda run, device: (run(), 1e-3)[1])
    found = speeds(fresh=True)
    assert found.products_flops_s["fp32"] == pytest.approx(2 * 64**3 / 1e-3)
    assert found.bandwidth_bytes_s == pytest.approx(2 * 2**20 / 1e-3)


def test_the_best_of_several_runs_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    times: Iterator[float] = iter([5.0, 4.0, 3e-3, 1e-3, 2e-3])
    monkeypatch.setattr(speed, "_TURN_S", 0.02)
    ticks = iter(range(100))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(ticks) * 0.01)
    monkeypatch.setattr(speed, "_timed", lambda run, device: next(times))
    assert speed._best_s(lambda: None, "cpu") == pytest.approx(3e-3)


def test_what_pytorch_refuses_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> speed.Product:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(speed, "_MAKERS", {**speed._MAKERS, "int8": refuse})
    assert speeds(fresh=True).products_flops_s["int8"] is None


def test_a_recent_measurement_is_taken_again_only_on_request(quick: Path) -> None:
    speeds()
    changed(kept(quick), bandwidth_bytes_s=123.0)
    assert speeds().bandwidth_bytes_s == 123.0
    assert speeds(fresh=True).bandwidth_bytes_s != 123.0
    assert speeds().bandwidth_bytes_s != 123.0  # and the fresh one is kept


@pytest.mark.parametrize(("age_s", "disturbed", "again"), [
    (6 * 86400, False, False), (8 * 86400, False, True), (300, True, False), (900, True, True), (-3600, False, True),
])  # fmt: skip
def test_a_measurement_is_kept_for_a_week_or_ten_minutes_if_others_disturbed_it(
    quick: Path, age_s: float, disturbed: bool, again: bool
) -> None:
    speeds()
    date = datetime.datetime.now().astimezone() - datetime.timedelta(seconds=age_s)
    changed(kept(quick), bandwidth_bytes_s=123.0, date=date.isoformat(), disturbed=disturbed)
    assert (speeds().bandwidth_bytes_s != 123.0) is again


def test_of_disturbed_measurements_the_best_counts(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds()
    products = {**json.loads(kept(quick).read_text())["products_flops_s"], "bf16": 9e20, "fp16": 1.0, "int4": None}
    changed(kept(quick), bandwidth_bytes_s=9e20, products_flops_s=products)
    monkeypatch.setattr(speed, "DISTURBED", -1.0)
    again = speeds(fresh=True)
    assert again.disturbed and again.bandwidth_bytes_s == 9e20 and again.products_flops_s["bf16"] == 9e20
    assert (again.products_flops_s["fp16"] or 0) > 1e6 and again.products_flops_s["tf32"] is None
    monkeypatch.setattr(speed, "DISTURBED", 1e9)
    assert (speeds(fresh=True).products_flops_s["bf16"] or 0) < 9e20  # an undisturbed one stands for itself


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"products_flops_s": {}}', '{"key": 1}', "\x00\xff", '{"products_flops_s": 3, "threads": 1}'],
)
def test_a_damaged_file_is_measured_again(quick: Path, content: str) -> None:
    first = speeds()
    kept(quick).write_text(content)
    assert speeds().key == first.key
    assert json.loads(kept(quick).read_text())["key"] == first.key


def test_a_file_of_another_machine_or_without_fp32_is_not_believed(quick: Path) -> None:
    speeds()
    changed(kept(quick), bandwidth_bytes_s=123.0, key="another")
    assert speeds().bandwidth_bytes_s != 123.0
    changed(kept(quick), bandwidth_bytes_s=123.0, products_flops_s={"fp32": None})
    assert speeds().bandwidth_bytes_s != 123.0


def test_threads_and_version_have_their_own_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {speed._key("cpu")}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    keys.add(speed._key("cpu"))
    monkeypatch.setattr(torch, "__version__", "9.9")
    keys.add(speed._key("cpu"))
    assert len(keys) == 3


def test_a_cache_that_cannot_be_written_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", "/proc/nowhere")
    assert speeds().bandwidth_bytes_s > 0


@pytest.mark.parametrize(
    ("others_s", "cores", "threads", "share"),
    [(0.0, 2, 2, 0.0), (1.0, 2, 2, 0.5), (1.0, 2, 1, 0.0), (2.0, 2, 1, 1.0), (9.0, 64, 32, 0.0)],
)
def test_neighbours_disturb_only_when_no_core_is_left(
    monkeypatch: pytest.MonkeyPatch, others_s: float, cores: int, threads: int, share: float
) -> None:
    """Within one second of wall time, others used `others_s` core-seconds."""
    neighbours = speed._Neighbours()
    neighbours._began = (0.0, 0.0, 0.0)
    monkeypatch.setattr(neighbours, "_times", lambda: (1.0, others_s + 0.5, 0.5))
    monkeypatch.setattr(psutil, "cpu_count", lambda: cores)
    assert neighbours.took(threads) == pytest.approx(share)


def test_this_device_is_what_was_measured() -> None:
    device, found = this_device(), speeds()
    assert device.measured and device.kind == "cpu"
    assert device.bandwidth_bytes_s == found.bandwidth_bytes_s
    assert device.peak_flops_s == {name: value for name, value in found.products_flops_s.items() if value}
    assert device.memory_bytes is not None and device.memory_bytes <= psutil.virtual_memory().total
    assert "measured on this machine" in device.source


def test_this_device_can_be_asked_without_measuring(quick: Path) -> None:
    began = time.perf_counter()
    device = this_device(measure=False)
    assert time.perf_counter() - began < 0.5 and not device.measured
    assert not list(quick.rglob("speed-*")) and device.flops_s("bf16") > 0


def test_the_file_holds_nothing_but_the_speeds(quick: Path) -> None:
    found = speeds()
    assert Speeds(**json.loads(kept(quick).read_text())) == found
