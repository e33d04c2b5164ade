"""Sizes and durations, as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.ground.errors import BadInput
from luthier.ground.spec import BudgetSpec
from luthier.ground.units import bytes_of, seconds_of

BYTES = {"MB": 1000**2, "GB": 1000**3, "TB": 1000**4, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
SECONDS = {"s": 1, "min": 60, "h": 3600}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("6GB", 6_000_000_000),
        ("512MB", 512_000_000),
        ("1 GiB", 1_073_741_824),
        ("1.5GB", 1_500_000_000),
        ("0.5 MiB", 524_288),
        (" 2TB ", 2_000_000_000_000),
        ("0.1MB", 100_000),
        ("0GB", 0),
    ],
)
def test_sizes(text: str, wanted: int) -> None:
    assert bytes_of(text) == wanted
    assert isinstance(bytes_of(text), int)


@pytest.mark.parametrize(("text", "wanted"), [("20min", 1200.0), ("90s", 90.0), ("2 h", 7200.0), ("0.5h", 1800.0)])
def test_durations(text: str, wanted: float) -> None:
    assert seconds_of(text) == wanted


@given(number=st.integers(0, 10**6), unit=st.sampled_from(sorted(BYTES)), space=st.sampled_from(["", " "]))
def test_a_size_means_number_times_unit(number: int, unit: str, space: str) -> None:
    assert bytes_of(f"{number}{space}{unit}") == number * BYTES[unit]


@given(thousandths=st.integers(0, 10**7), unit=st.sampled_from(sorted(SECONDS)))
def test_a_duration_means_number_times_unit(thousandths: int, unit: str) -> None:
    text = f"{thousandths / 1000:.3f}{unit}"
    assert seconds_of(text) == pytest.approx(thousandths * SECONDS[unit] / 1000)


@pytest.mark.parametrize("text", ["", "6", "GB", "6 gb", "6KB", "-6GB", "6,5GB", "1e3MB", "6GB 2MB", "infGB", "6GBB"])
def test_faults_of_sizes_are_one_sentence(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        bytes_of(text)
    said = str(caught.value)
    assert f'"{text}" is no size of memory' in said and "write it as 6GB, 512MB or 8GiB" in said
    assert "\n" not in said


@pytest.mark.parametrize("text", ["", "20", "min", "20 minutes", "-1h", "1h30min", "nans", "1 d"])
def test_faults_of_durations_are_one_sentence(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        seconds_of(text)
    said = str(caught.value)
    assert f'"{text}" is no duration' in said and "write it as 90s, 20min or 2h" in said
    assert "\n" not in said


@given(number=st.floats(0, 1e6).map(lambda x: f"{x:.2f}"), unit=st.sampled_from(["MB", "GB", "MiB", "GiB"]))
def test_whatever_a_task_file_takes_as_a_budget_has_a_size(number: str, unit: str) -> None:
    budget = BudgetSpec(memory=f"{number}{unit}", time=f"{number}min")
    assert budget.memory is not None and budget.time is not None
    assert bytes_of(budget.memory) == pytest.approx(float(number) * BYTES[unit], abs=1)
    assert seconds_of(budget.time) == pytest.approx(float(number) * 60)
