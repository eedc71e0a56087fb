"""Tokens and money on the wire: what was used, budgets as they stand, and what a document would cost."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from api.schemas.documents import Input, Text
from api.schemas.times import Moment
from config.clock import isoformat
from config.money import micro_usd
from config.plans import MAX_MICRO_USD, MAX_TOKENS
from ingestion.pipeline.estimates import DocumentEstimate
from rag.embedding.cache import CacheStats
from tenants.counters import Amounts
from tenants.ledger.bounds import Bound, limit_name
from tenants.ledger.ladder import reached
from tenants.ledger.usage import Budget, Usage, UsageRow


class UsageAmounts(BaseModel):
    charged: int = Field(description="Tokens that the model read.")
    cached: int = Field(description="Tokens whose vectors were known.")
    deduplicated: int = Field(description="Tokens of texts that came more than once in a batch.")
    hits: int = Field(description="Texts whose vectors were known.")
    cost_micro_usd: int = Field(description="Of what was charged, at the price of that time; a half is rounded up.")
    saved_micro_usd: int = Field(description="What `cached` and `deduplicated` would have cost.")

    @classmethod
    def fields_of(cls, counted: Amounts) -> dict[str, Any]:
        tokens = {name: getattr(counted, name) for name in ("charged", "cached", "deduplicated", "hits")}
        return {**tokens, "cost_micro_usd": micro_usd(counted.cost), "saved_micro_usd": micro_usd(counted.saved_cost)}


class UsageDayOut(UsageAmounts):
    day: str
    operation: str


class UsageGroupOut(UsageAmounts):
    """What is not grouped by is null."""

    day: str | None
    operation: str | None
    key: str | None = Field(description="Id of the key that asked; empty for what the service did by itself.")
    collection: str | None = Field(description="Empty for questions to several collections.")

    @classmethod
    def of(cls, row: UsageRow) -> UsageGroupOut:
        groups = {name: getattr(row, name) for name in ("day", "operation", "key", "collection")}
        return cls(**groups, **UsageAmounts.fields_of(row))


class BoundOut(BaseModel):
    limit: int | None
    soft: bool = Field(description="Passing it is told and refuses nothing.")
    used: int
    held: int
    remaining: int | None
    per_hour: int = Field(description="Burn rate: of the day since midnight, of the month in the last seven days.")
    override_until: str | None = Field(description="Until when the limit is an override.")


class BudgetOut(BaseModel):
    """One kind of tokens in the present month or day, in UTC."""

    kind: str
    span: str
    period: str
    tokens: BoundOut
    micro_usd: BoundOut
    step: int = Field(description="The last of 50, 75, 90 and 100 percent that the nearer limit has reached, or 0.")
    exhausted_at: str | None = Field(
        description="The hour in which a limit is reached if it goes on like this; null if not before the period's end."
    )

    @classmethod
    def of(cls, budget: Budget, overrides: dict[str, int]) -> BudgetOut:
        window, forecast = budget.window, budget.forecast
        span = "month" if len(window.period) == len("2026-11") else "day"

        def limit(unit: str, bound: Bound, used: int, held: int, rate: int) -> BoundOut:
            until = overrides.get(limit_name(window.kind, unit, span))
            money = unit == "micro_usd"
            shown = {"limit": bound.value, "used": used, "held": held, "per_hour": rate}
            shown["remaining"] = None if bound.value is None else max(0, bound.value - used - held)
            amounts = {name: micro_usd(value) if money and value is not None else value for name, value in shown.items()}
            return BoundOut.model_validate(
                {**amounts, "soft": bound.soft, "override_until": None if until is None else isoformat(until)}
            )

        return cls(
            kind=window.kind,
            span=span,
            period=window.period,
            tokens=limit("tokens", window.ceiling.tokens, window.used, window.held, forecast.tokens_per_hour),
            micro_usd=limit("micro_usd", window.ceiling.cost, window.cost, window.held_cost, forecast.cost_per_hour),
            step=reached(window).step,
            exhausted_at=None if forecast.exhausted_at is None else isoformat(forecast.exhausted_at),
        )


class BudgetsOut(BaseModel):
    data: list[BudgetOut]


class BudgetIn(Input):
    """What is given is changed; null is no limit."""

    tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    micro_usd: Annotated[int, Field(ge=0, le=MAX_MICRO_USD)] | None = None
    soft: bool | None = Field(None, description="Whether the limits of this budget tell, and refuse nothing.")
    until: Moment | None = Field(None, description="Makes it an override: from then on what was set before holds again.")
    reason: Text = Field("", max_length=500)

    def values(self) -> dict[str, int | None]:
        return {name: getattr(self, name) for name in ("tokens", "micro_usd") if name in self.model_fields_set}

    def until_ms(self) -> int | None:
        moment: datetime | None = self.until
        return None if moment is None else int(moment.timestamp() * 1000)


Kind: TypeAlias = Literal["embedding", "llm"]
Span: TypeAlias = Literal["day", "month"]
Group: TypeAlias = Literal["day", "operation", "key", "collection"]


class CacheOut(BaseModel):
    vectors: int = Field(description="Of the tenant, in the cache of the API's machine.")
    bytes: int


class UsageOut(BaseModel):
    month: str = Field(description="The present one. It and what follows to `cost_micro_usd` are of embedding tokens.")
    limit: int | None
    used: int
    held: int
    remaining: int | None
    cost_micro_usd: int = Field(description="Of what is used. Exact sums are rounded once: rounded days may add up to another.")
    budgets: list[BudgetOut] = Field(description="Of each kind of tokens, this month and this day.")
    total: UsageAmounts = Field(description="Of the days.")
    days: list[UsageDayOut] = Field(description="From `from` to `to`, or of this month.")
    groups: list[UsageGroupOut] = Field(description="The same days by what `group_by` names.")
    cache: CacheOut

    @classmethod
    def of(cls, usage: Usage, overrides: dict[str, int], cached: CacheStats) -> UsageOut:
        fields = {name: getattr(usage, name) for name in ("month", "limit", "used", "held", "remaining")}
        days = [UsageDayOut(day=row.day, operation=row.operation, **UsageAmounts.fields_of(row)) for row in usage.days]
        return cls(
            **fields,
            cost_micro_usd=micro_usd(usage.cost),
            budgets=[BudgetOut.of(budget, overrides) for budget in usage.budgets],
            total=UsageAmounts(**UsageAmounts.fields_of(usage.total)),
            days=days,
            groups=[UsageGroupOut.of(row) for row in usage.groups],
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
    remaining_tokens: int | None = Field(description="That the day's and the month's budgets leave; null without a limit.")
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
