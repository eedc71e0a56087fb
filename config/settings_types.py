"""The shapes of values that several groups of settings share, and how they are read from text."""

from __future__ import annotations

import ipaddress
import json
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from config.money import MAX_PRICE

MIB = 1024 * 1024
MAX_TOKENS = 10**12  # of a month's budget: 400,000 a second, and at the highest price what a database column holds
Price = Annotated[int, Field(ge=0, le=MAX_PRICE)]


def _from_json(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


class _Prices(dict[str, int]):
    """Never changed once it is read, so settings that are equal hash alike."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


#: Read here and not by pydantic-settings, which answers broken JSON with an error of its own.
Prices = Annotated[dict[str, Price], NoDecode, BeforeValidator(_from_json), AfterValidator(_Prices)]


def from_list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class _ClassRates(dict[str, float]):
    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


#: Requests a second by class of operation, as a JSON object.
ClassRates = Annotated[
    dict[Annotated[str, Field(pattern="^(admin|query|read|ingest)$")], Annotated[float, Field(gt=0, le=1e6)]],
    NoDecode,
    BeforeValidator(_from_json),
    AfterValidator(_ClassRates),
]


#: Written as text between commas.
Ports = Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], NoDecode, BeforeValidator(from_list)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(from_list)]


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(ipaddress.ip_network(network, strict=False)) for network in value)


Networks = Annotated[tuple[str, ...], NoDecode, AfterValidator(_networks), BeforeValidator(from_list)]
