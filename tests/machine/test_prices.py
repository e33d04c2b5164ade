"""Prices: the built-in examples, a person's own list over them, and one sentence for a list that is not usable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.ground.errors import BadInput
from luthier.machine.catalogue import all_devices, find_device
from luthier.machine.prices import BUILT_IN, electricity, price_of


@pytest.fixture(autouse=True)
def nobodys_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("LUTHIER_PRICES", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def own(folder: Path, value: object) -> Path:
    file = folder / "own.json"
    file.write_text(value if isinstance(value, str) else json.dumps(value))
    return file


def test_every_gpu_and_tpu_has_an_example_price_with_source_and_date() -> None:
    for device in all_devices():
        price = price_of(device)
        if device.kind in ("gpu", "tpu", "cpu"):
            assert price is not None and 0.05 < price.per_hour < 20 and price.currency == "USD"
            assert price.source[-7:-3].isdigit(), price.source
        else:
            assert price is None  # Apple machines are bought
    assert 0.05 < electricity().per_kwh < 0.5
    assert "examples" in " ".join(json.loads(BUILT_IN.read_text())["about"])


def test_an_own_list_is_laid_over_the_built_in_one(tmp_path: Path) -> None:
    file = own(tmp_path, {"currency": "EUR", "per_hour": {"h100": {"price": 1.5}, "m4 max": {"price": 0.2}}})
    mine = price_of(find_device("H100 SXM"), file)
    assert mine is not None and (mine.per_hour, mine.currency, mine.source) == (1.5, "EUR", "your own price list")
    other = price_of(find_device("L4"), file)
    assert other is not None and other.currency == "USD" and other == price_of(find_device("L4"))
    bought = price_of(find_device("M4 Max 64GB"), file)
    assert bought is not None and bought.per_hour == 0.2
    assert electricity(file) == electricity()
    dear = own(tmp_path, {"currency": "EUR", "electricity": {"per_kwh": 0.3}})
    assert (electricity(dear).per_kwh, electricity(dear).currency) == (0.3, "EUR")


def test_the_list_is_found_by_argument_then_environment_then_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(argument: Path | None = None) -> float:
        price = price_of(find_device("L4"), argument)
        assert price is not None
        return price.per_hour

    home = tmp_path / ".config" / "luthier" / "prices.json"
    home.parent.mkdir(parents=True)
    home.write_text('{"per_hour": {"L4": {"price": 1}}}')
    assert asked() == 1
    (tmp_path / "env.json").write_text('{"per_hour": {"L4": {"price": 2}}}')
    monkeypatch.setenv("LUTHIER_PRICES", "~/env.json")
    assert asked() == 2
    assert asked(own(tmp_path, {"per_hour": {"L4": {"price": 3}}})) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "column"),
        ('{"per_hour": {"H100": {"price": -1}}}', "per_hour.H100.price"),
        ('{"per_hour": {"H100": 2}}', "per_hour.H100"),
        ('{"per_hour": {"H100": {"price": NaN}}}', "NaN"),
        ('{"perhour": {}}', "perhour"),
        ('{"per_hour": {"H300 SXM": {"price": 1}}}', 'names "H300 SXM".*H100 SXM'),
    ],
)
def test_a_list_that_is_not_usable_is_told_in_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    file = own(tmp_path, content)
    with pytest.raises(BadInput, match=said) as told:
        price_of(find_device("H100"), file)
    assert str(told.value).startswith(str(file)) and "\n" not in str(told.value)


def test_a_named_list_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        price_of(find_device("H100"), tmp_path / "none.json")
