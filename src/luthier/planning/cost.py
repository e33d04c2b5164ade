"""What a run costs in hours, energy and money, and after how many requests shorter prompts have repaid it.

Prices come from `luthier.machine.prices`, which people replace by their own; no currency is converted, no rate guessed.

    >>> break_even(900, 100, 0.5, 2.0).requests
    5000.0
"""

from __future__ import annotations

from luthier.ground.errors import BadInput
from luthier.ground.plan_result import BreakEven, Cost
from luthier.ground.words import count, seconds
from luthier.machine.catalogue import Device
from luthier.machine.prices import Electricity, Price

# Share of a device's power limit that training draws on the average: an assumption, between idle and the limit, that
# errs to the dear side.
UTILISATION = 0.8
# Of a data centre: what it draws over what its machines draw. The average of the Uptime Institute's yearly surveys has
# stayed between 1.55 and 1.59 since 2020, and was 1.58 in 2023.
PUE = 1.58


def cost_of(
    total_s: float,
    device: Device,
    devices: int = 1,
    price: Price | None = None,
    electricity: Electricity | None = None,
    *,
    utilisation: float = UTILISATION,
    pue: float | None = None,
) -> Cost:
    """Return hours, energy and price of a run of `total_s` seconds on `devices` devices.

    energy = power limit × utilisation × hours × devices × PUE. The price is the rent if there is one, which includes
    the energy; otherwise the energy's, if its price is known. Both are of devices alone: storage is not counted.

    Args:
        price: rent of one device for an hour.
        electricity: taken where there is no rent.
        pue: power usage effectiveness; None: `PUE` for what is rented, 1 for one's own machine.
    """
    hours = total_s / 3600
    factor = pue if pue is not None else (PUE if price is not None else 1.0)
    energy_kwh = None
    if device.power_w is not None:
        energy_kwh = device.power_w * utilisation * hours * devices * factor / 1000
    if price is not None:
        per_hour: float | None = price.per_hour * devices
        currency, source = price.currency, price.source
    elif electricity is not None and device.power_w is not None:
        per_hour = device.power_w * utilisation * devices * factor / 1000 * electricity.per_kwh
        currency = electricity.currency
        source = f"electricity alone, {electricity.per_kwh:g} {currency} a kWh ({electricity.source})"
    else:
        per_hour, currency, source = None, "", "no price known"
    if energy_kwh is not None:
        source += f"; energy: {device.power_w:g} W × {utilisation:.0%}" + (f" × PUE {factor:g}" if factor != 1 else "")
    return Cost(
        hours=hours,
        energy_kwh=energy_kwh,
        price=None if per_hour is None else per_hour * hours,
        currency=currency,
        per_hour=per_hour,
        source=source,
    )


def break_even(
    prompt_tokens_before: float,
    prompt_tokens_after: float,
    price_per_million_tokens: float,
    training_price: float,
    *,
    currency: str = "USD",
    prompt_tokens_per_s: float | None = None,
    training_s: float | None = None,
) -> BreakEven:
    """Return after how many requests the saved prompt tokens have repaid the training.

    requests = training price / (saved tokens × price of a token). Only prompts are compared: answers, and what else
    the finetuned model is better or worse at, are not.

    Args:
        price_per_million_tokens: of prompt tokens; 0 where they are not paid by the token.
        prompt_tokens_per_s: how fast this device reads prompts; with `training_s` the sentence says after how many
            requests the time is saved again.

    Raises:
        BadInput: a number is negative.
    """
    if min(prompt_tokens_before, prompt_tokens_after, price_per_million_tokens, training_price) < 0:
        raise BadInput("tokens and prices of a break-even cannot be negative", fix="give 0 or more")
    saved = prompt_tokens_before - prompt_tokens_after
    saving = saved * price_per_million_tokens / 1e6
    requests = training_price / saving if saving > 0 else None
    return BreakEven(
        prompt_tokens_before=prompt_tokens_before,
        prompt_tokens_after=prompt_tokens_after,
        price_per_million_tokens=price_per_million_tokens,
        training_price=training_price,
        requests=requests,
        sentence=_sentence(saved, saving, requests, training_price, currency)
        + _time_sentence(saved, prompt_tokens_per_s, training_s),
    )


def _sentence(saved: float, saving: float, requests: float | None, training_price: float, currency: str) -> str:
    if saved <= 0:
        return "Never by shorter prompts: the finetuned model's are not shorter."
    if requests is None:
        return f"Each request saves {count(saved)} prompt tokens, which cost nothing here."
    return (
        f"{training_price:.2f} {currency} of training are repaid after {count(requests)} requests, "
        f"each saving {count(saved)} prompt tokens ({saving * 1000:.3g} {currency} per thousand requests)."
    )


def _time_sentence(saved: float, prompt_tokens_per_s: float | None, training_s: float | None) -> str:
    """Return what the saved tokens are in time on this device, if its speed is known."""
    if saved <= 0 or not prompt_tokens_per_s:
        return ""
    saved_s = saved / prompt_tokens_per_s
    said = f" Each request is {seconds(saved_s)} shorter on this device"
    if training_s:
        said += f", so the {seconds(training_s)} of training are made up after {count(training_s / saved_s)} requests"
    return said + "."
