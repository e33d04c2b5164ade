"""The device of this machine on made-up ones: CUDA and Apple GPUs, processors in and out of the catalogue."""

from __future__ import annotations

import types
from collections.abc import Callable

import pytest
import torch

from luthier.machine import here
from luthier.machine.catalogue import PRECISIONS, find_device
from luthier.machine.here import this_device
from luthier.machine.speed import Speeds

FOUND = Speeds({**dict.fromkeys(PRECISIONS), "fp32": 4e12, "bf16": 8e12}, 5e10, 8, "2026-01-01T00:00:00+00:00", "key")


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend to be a machine with this best device, processor and GPU."""

    def pretend(kind: str, processor: str = "Some CPU", gpu: str = "", memory_bytes: int = 0) -> None:
        monkeypatch.setattr(here, "best_device", lambda: kind)
        monkeypatch.setattr(here, "processor_name", lambda: processor)
        monkeypatch.setattr(here, "memory_total_bytes", lambda: 32 * 2**30)
        monkeypatch.setattr(here, "native_precisions", lambda device: ("fp32", "bf16"))
        monkeypatch.setattr(here, "speeds", lambda: FOUND)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: gpu)
        properties = types.SimpleNamespace(total_memory=memory_bytes)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)

    return pretend


@pytest.mark.parametrize(
    ("gpu", "memory_gib", "name"),
    [
        ("NVIDIA H100 80GB HBM3", 79.2, "H100 SXM"),
        ("NVIDIA A100-SXM4-40GB", 39.4, "A100 40GB"),
        ("NVIDIA A100-PCIE-40GB", 39.4, "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", 79.2, "A100 80GB"),
        ("Tesla T4", 14.6, "T4"),
    ],
)
def test_a_known_gpu_has_the_catalogues_peaks_and_its_own_memory(
    made_up: Callable[..., None], gpu: str, memory_gib: float, name: str
) -> None:
    made_up("cuda", gpu=gpu, memory_bytes=int(memory_gib * 2**30))
    device, known = this_device(), find_device(name)
    assert (device.name, device.kind, device.memory_bytes) == (name, "gpu", int(memory_gib * 2**30))
    assert device.peak_flops_s == known.peak_flops_s and device.source == known.source and not device.measured
    assert device.speeds["bf16"] == 8e12 and this_device(measure=False).speeds == {}


def test_an_unknown_gpu_has_what_was_measured(made_up: Callable[..., None]) -> None:
    made_up("cuda", gpu="NVIDIA GeForce RTX 4070", memory_bytes=12 * 10**9)
    device = this_device()
    assert (device.name, device.measured) == ("NVIDIA GeForce RTX 4070", True)
    assert device.peak_flops_s == {"fp32": 4e12, "bf16": 8e12} and device.overhead_bytes == here.CONTEXT_BYTES


def test_an_apple_chip_has_its_memory_and_what_was_measured(made_up: Callable[..., None]) -> None:
    made_up("mps", processor="Apple M4 Max")
    device = this_device()
    assert (device.kind, device.memory_bytes, device.measured) == ("apple", 32 * 2**30, True)
    assert device.bandwidth_bytes_s == 5e10 and device.flops_s("fp32") == 4e12
    unmeasured = this_device(measure=False)
    assert unmeasured.peak_flops_s == find_device("M4 Max").peak_flops_s and not unmeasured.measured


def test_a_processor_unmeasured_is_the_catalogues_or_a_guess(made_up: Callable[..., None]) -> None:
    made_up("cpu", processor="AMD EPYC 9654 96-Core Processor")
    known = this_device(measure=False)
    assert known.flops_s("bf16") == find_device("EPYC 9654").flops_s("bf16") and known.memory_bytes == 32 * 2**30
    made_up("cpu", processor="Some CPU")
    guess = this_device(measure=False)
    assert guess.name == "Some CPU" and "a guess" in guess.source and guess.flops_s("int4") > 0
    assert this_device().flops_s("bf16") == 8e12 and "8 threads" in this_device().source
