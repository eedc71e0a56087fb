"""Tokens and money on the wire: what was used."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from config.money import micro_usd
from tenants.counters import Amounts
from tenants.tables import UsageDay
from tenants.usage import Usage


class UsageAmounts(BaseModel):
    charged: int = Field(description="Tokens that the model read.")
    cached: int = Field(description="Tokens whose vectors were known.")
    deduplicated: int = Field(description="Tokens of texts that came more than once in a batch.")
    hits: int = Field(description="Texts whose vectors were known.")
    cost_micro_usd: int = Field(description="Of what was charged, at the price of that time; a half is rounded up.")
    saved_micro_usd: int = Field(description="What `cached` and `deduplicated` would have cost.")

    @classmethod
    def fields_of(cls, counted: Amounts | UsageDay) -> dict[str, Any]:
        tokens = {name: getattr(counted, name) for name in ("charged", "cached", "deduplicated", "hits")}
        return {**tokens, "cost_micro_usd": micro_usd(counted.cost), "saved_micro_usd": micro_usd(counted.saved_cost)}


class UsageDayOut(UsageAmounts):
    day: str
    operation: str


class UsageOut(BaseModel):
    month: str
    limit: int | None
    used: int
    held: int
    remaining: int | None
    cost_micro_usd: int = Field(description="Of what is used. Exact sums are rounded once: rounded days may add up to another.")
    total: UsageAmounts = Field(description="Of the days.")
    days: list[UsageDayOut]

    @classmethod
    def of(cls, usage: Usage) -> UsageOut:
        fields = {name: getattr(usage, name) for name in ("month", "limit", "used", "held", "remaining")}
        return cls(
            **fields,
            cost_micro_usd=micro_usd(usage.cost),
            total=UsageAmounts(**UsageAmounts.fields_of(usage.total)),
            days=[UsageDayOut(day=row.day, operation=row.operation, **UsageAmounts.fields_of(row)) for row in usage.days],
        )
