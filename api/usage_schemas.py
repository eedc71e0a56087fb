"""Tokens and money on the wire: what was used, and what a document would cost."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from config.money import micro_usd
from ingestion.estimates import DocumentEstimate
from rag.embedding.cache import CacheStats
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


class CacheOut(BaseModel):
    vectors: int = Field(description="Of the tenant, in the cache of the API's machine.")
    bytes: int


class UsageOut(BaseModel):
    month: str
    limit: int | None
    used: int
    held: int
    remaining: int | None
    cost_micro_usd: int = Field(description="Of what is used. Exact sums are rounded once: rounded days may add up to another.")
    total: UsageAmounts = Field(description="Of the days.")
    days: list[UsageDayOut]
    cache: CacheOut

    @classmethod
    def of(cls, usage: Usage, cached: CacheStats) -> UsageOut:
        fields = {name: getattr(usage, name) for name in ("month", "limit", "used", "held", "remaining")}
        return cls(
            **fields,
            cost_micro_usd=micro_usd(usage.cost),
            total=UsageAmounts(**UsageAmounts.fields_of(usage.total)),
            days=[UsageDayOut(day=row.day, operation=row.operation, **UsageAmounts.fields_of(row)) for row in usage.days],
            cache=CacheOut(vectors=cached.vectors, bytes=cached.bytes),
        )


class EstimateOut(BaseModel):
    """What bringing a document now would charge; `tokens` = `cached_tokens` + `deduplicated_tokens` + `tokens_to_embed`."""

    media_type: str
    characters: int
    pages: int
    chunks: int
    tokens: int
    cached_tokens: int = Field(description="Their vectors are known: from the tenant's cache, or in the document already.")
    deduplicated_tokens: int = Field(description="Of texts that occur more than once.")
    tokens_to_embed: int = Field(description="What would be charged.")
    price: int = Field(description="Micro-dollars for a million tokens.")
    cost_micro_usd: int
    remaining_tokens: int | None = Field(description="Of the month's budget; null without a limit.")
    within_budget: bool

    @classmethod
    def of(cls, estimate: DocumentEstimate) -> EstimateOut:
        return cls(
            media_type=estimate.media_type,
            characters=estimate.chars,
            pages=estimate.pages,
            chunks=estimate.chunks,
            tokens=estimate.tokens.total,
            cached_tokens=estimate.tokens.cached,
            deduplicated_tokens=estimate.tokens.deduplicated,
            tokens_to_embed=estimate.tokens.to_embed,
            price=estimate.price,
            cost_micro_usd=micro_usd(estimate.cost),
            remaining_tokens=estimate.remaining,
            within_budget=estimate.within_budget,
        )
