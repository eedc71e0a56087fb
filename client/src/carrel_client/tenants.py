"""Tenants as their operator handles them: plans, limits, suspension, tables of tenants, and deletion with its receipt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias

from carrel_client.models import Model


class _Kept(Enum):
    KEPT = "kept"


KEPT = _Kept.KEPT


Kept: TypeAlias = Literal[_Kept.KEPT]  #: of an argument that is left out


@dataclass(frozen=True)
class Plan(Model):
    """None is no limit."""

    name: str
    default: bool
    documents: int | None
    chunks: int | None
    bytes: int | None
    collections: int | None
    sessions: int | None
    document_bytes: int | None
    requests_per_second: float | None
    burst: int | None
    concurrent_requests: int | None
    embedding_tokens_day: int | None
    embedding_tokens_month: int | None
    embedding_micro_usd_day: int | None
    embedding_micro_usd_month: int | None
    llm_tokens_day: int | None
    llm_tokens_month: int | None
    llm_micro_usd_day: int | None
    llm_micro_usd_month: int | None
    profiles: list[str] | None
    dedicated: bool
    retention_days: int | None
    trace_sample: float = 1.0
    trace_contents: str = "full"  #: full, ids or none
    trace_retention_days: int = 30
    soft_budgets: list[str] = field(default_factory=list)  #: names of the budgets that tell, and refuse nothing


@dataclass(frozen=True)
class Limit(Model):
    name: str
    value: Any  #: what holds; None is no limit
    source: str  #: plan, monthly_tokens or override
    of_plan: Any
    used: int | None  #: of what is counted
    expires_at: str | None
    reason: str | None


@dataclass(frozen=True)
class Limits(Model):
    plan: str
    limits: list[Limit]

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Limits:
        return cls(data["plan"], [Limit.parse(limit) for limit in data["limits"]])


@dataclass(frozen=True)
class ImportedTenant(Model):
    line: int  #: of the table, whose first is the header
    name: str
    status: str  #: created, updated, unchanged or refused
    tenant_id: str | None
    problem: dict[str, Any] | None


@dataclass(frozen=True)
class TenantDeletion(Model):
    """The receipt, once `state` is done: rows by table, points, files and cached vectors, before and after."""

    id: str
    tenant_id: str
    name: str
    state: str  #: running or done
    step: str
    before: dict[str, int]
    after: dict[str, int]
    requested_at: str
    finished_at: str | None
