"""What an hour of a device costs to rent, and a kilowatt-hour: examples with source and date, for people to replace.

The built-in list lies in `prices.json` beside this file. A person's own file is laid over it, entry by entry: the one
that is named, else `$LUTHIER_PRICES`, else `~/.config/luthier/prices.json` if it is there. Converts no currencies.

    >>> price_of(find_device("H100")).currency
    'USD'
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from luthier.ground.errors import BadInput, nearest
from luthier.ground.files import expanded
from luthier.ground.strict_json import parse_json
from luthier.machine.catalogue import Device, all_devices, catalogue_match, find_device

BUILT_IN = Path(__file__).with_name("prices.json")
_CPU = "cpu"
_FORM = 'write {"per_hour": {"H100": {"price": 2.5}}, "electricity": {"per_kwh": 0.3}}'


@dataclass(frozen=True)
class Price:
    """A price and where it comes from."""

    per_hour: float
    currency: str
    source: str


@dataclass(frozen=True)
class Electricity:
    """The price of energy and where it comes from."""

    per_kwh: float
    currency: str
    source: str


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str = "your own price list"
    date: str = ""

    def said(self) -> str:
        return f"{self.source}, {self.date}" if self.date else self.source


class _Rent(_Entry):
    price: float = Field(ge=0, allow_inf_nan=False)


class _Energy(_Entry):
    per_kwh: float = Field(ge=0, allow_inf_nan=False)


class _PriceList(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    about: list[str] = Field(default_factory=list)
    currency: str = "USD"
    electricity: _Energy | None = None
    per_hour: dict[str, _Rent] = Field(default_factory=dict)


def price_of(device: Device, prices: str | Path | None = None) -> Price | None:
    """Return what an hour of this device costs, or None if no list names it. A processor costs what `cpu` costs.

    Args:
        prices: a price list of one's own.

    Raises:
        BadInput: the list cannot be read, or names a device that is not in the catalogue.
    """
    for own in _lists(prices):
        entry = next((own.per_hour[name] for name in _names(device) if name in own.per_hour), None)
        if entry is not None:
            return Price(entry.price, own.currency, entry.said())
    return None


def electricity(prices: str | Path | None = None) -> Electricity:
    """Return the price of a kilowatt-hour; arguments and errors as in `price_of`."""
    energy = [(own.electricity, own.currency) for own in _lists(prices) if own.electricity is not None]
    found, currency = energy[0]
    return Electricity(found.per_kwh, currency, found.said())


def _lists(prices: str | Path | None) -> list[_PriceList]:
    """Return the person's own list, if there is one, and the built-in one behind it."""
    own = _own_file(prices)
    return [*([_read(own)] if own else []), _read(BUILT_IN)]


def _own_file(prices: str | Path | None) -> Path | None:
    named = prices or os.environ.get("LUTHIER_PRICES")
    if named:
        return expanded(named)
    usual = Path.home() / ".config" / "luthier" / "prices.json"
    return usual if usual.is_file() else None


def _read(file: Path) -> _PriceList:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise BadInput(f"the price list cannot be read ({why})", where=str(file), fix=_FORM) from None
    value = parse_json(text, where=str(file))
    try:
        found = _PriceList.model_validate(value)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"]) or "the whole"
        raise BadInput(f"the price list is not usable: {place}: {fault['msg']}", where=str(file), fix=_FORM) from None
    return found.model_copy(update={"per_hour": _by_device(found.per_hour, file)})


def _by_device(entries: Mapping[str, _Rent], file: Path) -> dict[str, _Rent]:
    """Return the entries under the catalogue's names."""
    named = {}
    for name, entry in entries.items():
        try:
            named[name if name == _CPU else find_device(name).name] = entry
        except BadInput:
            hint = nearest(name, [_CPU, *(device.name for device in all_devices())])
            raise BadInput(
                f'the price list names "{name}", which is not in the catalogue{hint}', where=str(file), fix="rename it"
            ) from None
    return named


def _names(device: Device) -> list[str]:
    """Return what a list may call the device, nearest first: its name, the catalogue's, and `cpu`."""
    known = catalogue_match(device.name) or next((each for each in all_devices() if each.name == device.model), None)
    return [device.name, *([known.name] if known else []), *([_CPU] if device.kind == "cpu" else [])]
