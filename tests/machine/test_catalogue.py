"""The catalogue: complete, consistent with itself and with physics, and forgiving about how a device is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import luthier.machine
from luthier.ground.errors import BadInput
from luthier.machine.catalogue import PRECISIONS, Device, all_devices, catalogue_match, find_device

WANTED = (
    "T4", "L4", "A10G", "RTX 3090", "RTX 4090", "RTX 5090", "A100 40GB", "A100 80GB", "H100 SXM", "H100 PCIe", "H200",
    "B200", "MI300X", "TPU v5e", "TPU v5p", "TPU v6e", "Xeon Platinum 8480+", "EPYC 9654", "Ryzen 9 7950X",
    "Core i9-14900K", "M1", "M2 Pro", "M3 Max", "M4", "M4 Max", "M2 Ultra",
)  # fmt: skip
DEVICES = pytest.mark.parametrize("device", all_devices(), ids=lambda device: device.name)


def test_every_promised_device_is_there_once() -> None:
    assert [device.name for device in all_devices()] == list(WANTED)


def test_names_and_aliases_mean_one_device_each() -> None:
    plain = [
        re.sub(r"[^a-z0-9+]", "", name.lower()) for device in all_devices() for name in (device.name, *device.aliases)
    ]
    assert len(plain) == len(set(plain))


@DEVICES
def test_a_device_has_a_source_and_numbers_that_can_be(device: Device) -> None:
    assert len(device.source) > 10
    assert set(device.peak_flops_s) <= set(PRECISIONS) and device.peak_flops_s
    assert set(device.native) <= set(PRECISIONS)
    assert 30e9 < device.bandwidth_bytes_s < 20e12
    assert (device.memory_bytes is None) == (device.kind in ("cpu", "apple"))
    assert device.memory_bytes is None or 10 * 2**30 < device.memory_bytes < 300 * 2**30
    assert device.power_w is None or 30 <= device.power_w <= 1200
    assert (device.link_bytes_s is None) == (device.kind in ("cpu", "apple"))
    assert 0 <= device.overhead_bytes < 2e9 and device.node_network_bytes_s >= 1e9
    assert not device.measured


@DEVICES
def test_narrower_numbers_are_never_slower_where_they_are_native(device: Device) -> None:
    peaks = [
        device.peak_flops_s[name] for name in ("fp32", "tf32", "bf16", "fp8", "int4") if name in device.peak_flops_s
    ]
    assert peaks == sorted(peaks)
    ordered = [("fp32", "fp16"), ("bf16", "int8"), ("fp16", "int8"), ("int8", "int4")]
    for wide, narrow in ordered:
        if {wide, narrow} <= set(device.peak_flops_s):
            assert device.peak_flops_s[narrow] >= device.peak_flops_s[wide]


@DEVICES
def test_what_has_a_peak_is_native(device: Device) -> None:
    assert set(device.peak_flops_s) <= set(device.native)


@DEVICES
def test_what_is_missing_is_told_in_the_note(device: Device) -> None:
    if device.power_w is None:
        assert "ower is not published" in device.note or "power are not published" in device.note
    for name in set(device.native) - set(device.peak_flops_s):
        assert name.upper() in device.note


def test_dense_peaks_are_dense() -> None:
    assert find_device("H100").peak_flops_s["bf16"] == pytest.approx(989.4e12)  # 1,979 with sparsity
    assert find_device("A100 80GB").peak_flops_s["bf16"] == pytest.approx(312e12)
    assert find_device("RTX 4090").peak_flops_s["fp16"] == pytest.approx(165.2e12)  # with fp32 accumulation


def test_memory_is_what_programs_can_address() -> None:
    for device in all_devices():
        said = re.search(r"(\d+)GB", " ".join(device.aliases) + device.name)
        if said and device.memory_bytes:
            assert 0.9 * int(said[1]) < device.memory_bytes / 2**30 < int(said[1])


@pytest.mark.parametrize("name", ["rtx-4090", "RTX4090", "GeForce RTX 4090", "NVIDIA GeForce RTX 4090", " rtx_4090 "])
def test_spelling_is_forgiven(name: str) -> None:
    assert find_device(name).name == "RTX 4090"


def test_memory_behind_a_name_sets_what_is_sold_in_several_sizes() -> None:
    device = find_device("M4 Max 64GB")
    assert (device.name, device.model, device.memory_bytes) == ("M4 Max 64GB", "M4 Max", 64 * 2**30)
    assert find_device("EPYC-9654 (768 GB)").memory_bytes == 768 * 2**30
    assert find_device("A100 40GB").memory_bytes != find_device("A100 80GB").memory_bytes
    with pytest.raises(BadInput, match="L4 48GB"):
        find_device("L4 48GB")  # is sold with one size only


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("RTX 4080", "RTX 4090"), ("a100", "A100 40GB or A100 80GB"), ("H10", "H100 SXM"), ("M2", "M2 Pro or M2 Ultra")],
)
def test_an_unknown_device_is_told_in_one_sentence_with_the_nearest_and_the_list(name: str, nearest: str) -> None:
    with pytest.raises(BadInput) as told:
        find_device(name)
    sentence = str(told.value)
    assert f'"{name}"' in sentence and f"did you mean {nearest}" in sentence
    assert all(device.name in sentence for device in all_devices())


@pytest.mark.parametrize("name", ["", "toaster", "—"])
def test_a_name_like_no_other_has_no_nearest(name: str) -> None:
    with pytest.raises(BadInput, match="not in the catalogue; name one of"):
        find_device(name)


def test_arithmetic_that_a_device_lacks_runs_in_what_it_has() -> None:
    t4, v5e, core = find_device("T4"), find_device("TPU v5e"), find_device("Core i9-14900K")
    assert t4.computes_in("bf16") == "fp32" and t4.flops_s("bf16") == t4.peak_flops_s["fp32"]
    assert t4.computes_in("fp8") == "fp16" and t4.flops_s("fp8") == t4.peak_flops_s["fp16"]
    assert v5e.flops_s("fp32") == pytest.approx(v5e.peak_flops_s["bf16"] / 6)
    assert core.computes_in("fp16") == "fp32" and core.flops_s("int8") == core.peak_flops_s["int8"]
    assert all(device.flops_s(name) > 0 for device in all_devices() for name in PRECISIONS)


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 5090", "RTX 5090"),
        ("AMD EPYC 9654 96-Core Processor", "EPYC 9654"),
        ("AMD Ryzen 9 7950X 16-Core Processor", "Ryzen 9 7950X"),
        ("Intel(R) Xeon(R) Platinum 8480+", "Xeon Platinum 8480+"),
        ("Apple M4 Max", "M4 Max"),
        ("Intel(R) Core(TM) i9-14900K", "Core i9-14900K"),
    ],
)
def test_what_drivers_and_systems_report_is_recognised(reported: str, name: str) -> None:
    found = catalogue_match(reported)
    assert found is not None and found.name == name


@pytest.mark.parametrize("reported", ["AMD EPYC", "Intel(R) Xeon(R) CPU @ 2.20GHz", "NVIDIA GeForce RTX 4070", ""])
def test_what_is_not_in_the_catalogue_is_not_guessed(reported: str) -> None:
    assert catalogue_match(reported) is None


def test_the_file_says_what_its_numbers_are() -> None:
    data = json.loads((Path(luthier.machine.__file__).parent / "devices.json").read_text())
    about = " ".join(data["about"])
    assert all(word in about for word in ("Dense", "memory_gib", "link_gb_s", "overhead_gb", "guess"))
    assert all(set(entry["peak_tflops"]) == set(PRECISIONS) for entry in data["devices"])
