"""Money and energy by hand, and when shorter prompts have repaid a training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from luthier.ground.errors import BadInput
from luthier.machine.catalogue import find_device
from luthier.machine.prices import Electricity, Price
from luthier.planning.cost import PUE, UTILISATION, break_even, cost_of

RENT = Price(2.5, "USD", "an example")
ENERGY = Electricity(0.3, "EUR", "an example")


def test_rent_is_by_hour_and_device_and_includes_the_energy() -> None:
    cost = cost_of(7200, find_device("H100"), 8, RENT, ENERGY)
    assert cost.hours == 2
    assert cost.per_hour == 20
    assert cost.price == 40
    assert cost.currency == "USD"
    assert cost.energy_kwh == pytest.approx(0.7 * UTILISATION * 2 * 8 * PUE)
    assert cost.source == "an example; energy: 700 W × 80% × PUE 1.58"


def test_ones_own_device_costs_its_electricity() -> None:
    cost = cost_of(3600, find_device("RTX 4090"), 1, None, ENERGY)
    assert cost.energy_kwh == pytest.approx(0.45 * UTILISATION)
    assert cost.price == pytest.approx(0.45 * UTILISATION * 0.3)
    assert cost.currency == "EUR"
    assert cost.source.startswith("electricity alone, 0.3 EUR a kWh")


def test_without_power_or_price_nothing_is_made_up() -> None:
    cost = cost_of(3600, replace(find_device("H100"), power_w=None), 1, None, ENERGY)
    assert (cost.energy_kwh, cost.price, cost.per_hour, cost.source) == (None, None, None, "no price known")


def test_requests_until_the_training_is_repaid() -> None:
    found = break_even(1100, 100, 0.5, 3.0)
    assert found.requests == pytest.approx(6000)  # each saves 1,000 tokens, 0.0005
    assert found.sentence == (
        "3.00 USD of training are repaid after 6,000 requests, each saving 1,000 prompt tokens "
        "(0.5 USD per thousand requests)."
    )


@pytest.mark.parametrize(("before", "after", "price"), [(100, 100, 0.5), (100, 300, 0.5), (300, 100, 0.0)])
def test_nothing_saved_is_never_repaid(before: float, after: float, price: float) -> None:
    found = break_even(before, after, price, 3.0)
    assert found.requests is None
    assert ("Never" in found.sentence) == (after >= before)


def test_the_sentence_tells_the_time_where_the_speed_is_known() -> None:
    said = break_even(1100, 100, 0.0, 0.0, prompt_tokens_per_s=2000, training_s=600).sentence
    assert said == (
        "Each request saves 1,000 prompt tokens, which cost nothing here. "
        "Each request is 0.5 s shorter on this device, so the 10 min 00 s of training are made up after 1,200 requests."
    )


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(BadInput, match="cannot be negative"):
        break_even(100, 10, -1, 1)
