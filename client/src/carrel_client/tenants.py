"""Tenants as their operator handles them: plans, limits, suspension, tables of tenants, and deletion with its receipt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeAlias

from carrel_client.models import Model, Placement, Tenant, Token
from carrel_client.transport import Transport
from carrel_client.transport import pages as _pages
from carrel_client.transport import path_of as _path

TENANTS = "/v1/admin/tenants"


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


class Tenants:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        name: str,
        monthly_tokens: int | None = None,
        plan: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Tenant:
        """`monthly_tokens` None leaves it to the service's default; `update` can lift a limit."""
        given = {"monthly_tokens": monthly_tokens, "plan": plan, "metadata": metadata and dict(metadata)}
        body = {"name": name} | {key: value for key, value in given.items() if value is not None}
        return Tenant.parse(self._transport.call("POST", TENANTS, json=body, idempotency_key=idempotency_key).json())

    def get(self, tenant: str) -> Tenant:
        """By id or name."""
        return Tenant.parse(self._transport.call("GET", _path(TENANTS, tenant)).json())

    def list(self, *, page_size: int = 100) -> Iterator[Tenant]:
        for item in _pages(self._transport, TENANTS, page_size):
            yield Tenant.parse(item)

    def update(
        self,
        tenant: str,
        *,
        monthly_tokens: int | Kept | None = KEPT,
        plan: str | Kept | None = KEPT,
        metadata: Mapping[str, str] | Kept = KEPT,
    ) -> Tenant:
        """What is left out stays. None: the plan's monthly tokens; the default plan. `metadata` is all keys."""
        given = {"monthly_tokens": monthly_tokens, "plan": plan, "metadata": metadata}
        body = {key: value for key, value in given.items() if value is not KEPT}
        return Tenant.parse(self._transport.call("PATCH", _path(TENANTS, tenant), json=body).json())

    def suspend(self, tenant: str, *, reads: bool = False) -> Tenant:
        """Refused within a second. With `reads` it may still ask and read."""
        answer = self._transport.call("PUT", _path(TENANTS, tenant, "suspension"), json={"reads": reads}, repeatable=True)
        return Tenant.parse(answer.json())

    def resume(self, tenant: str) -> Tenant:
        answer = self._transport.call("DELETE", _path(TENANTS, tenant, "suspension"), repeatable=True)
        return Tenant.parse(answer.json())

    def plans(self) -> Sequence[Plan]:
        return [Plan.parse(plan) for plan in self._transport.call("GET", "/v1/admin/plans").json()["data"]]

    def limits(self, tenant: str) -> Limits:
        """What holds, where it comes from, and what is used."""
        return Limits.parse(self._transport.call("GET", _path(TENANTS, tenant, "limits")).json())

    def override(self, tenant: str, limit: str, value: Any, *, expires_at: str | None = None, reason: str = "") -> Limit:
        """`value` None is no limit; `expires_at` a time with its zone, as "2026-12-31T00:00:00Z"."""
        body = {"value": value, "expires_at": expires_at, "reason": reason}
        path = _path(TENANTS, tenant, "limits", limit)
        return Limit.parse(self._transport.call("PUT", path, json=body, repeatable=True).json())

    def restore(self, tenant: str, limit: str) -> Limit:
        """The plan's limit holds again."""
        path = _path(TENANTS, tenant, "limits", limit)
        return Limit.parse(self._transport.call("DELETE", path, repeatable=True).json())

    def import_csv(self, table: str) -> Sequence[ImportedTenant]:
        """Columns name, plan, monthly_tokens, metadata.KEY; up to 1,000 lines. Sent again, it changes nothing."""
        answer = self._transport.call("PUT", TENANTS, json={"csv": table}, repeatable=True)
        return [ImportedTenant.parse(one) for one in answer.json()["data"]]

    def delete(self, tenant: str) -> TenantDeletion:
        """Everything the tenant has. It cannot be taken back; `deletion` says how far it is."""
        return TenantDeletion.parse(self._transport.call("DELETE", _path(TENANTS, tenant)).json())

    def deletion(self, deletion_id: str) -> TenantDeletion:
        return TenantDeletion.parse(self._transport.call("GET", _path("/v1/admin/deletions", deletion_id)).json())

    def deletions(self, *, page_size: int = 100) -> Iterator[TenantDeletion]:
        for item in _pages(self._transport, "/v1/admin/deletions", page_size):
            yield TenantDeletion.parse(item)

    def token(
        self, tenant: str, *, scopes: Sequence[str], lifetime_seconds: int = 900, idempotency_key: str | None = None
    ) -> Token:
        """A short-lived credential to act as this tenant; the exchange is audited."""
        body = {"scopes": [*scopes], "lifetime_seconds": lifetime_seconds}
        path = _path(TENANTS, tenant, "tokens")
        return Token.parse(self._transport.call("POST", path, json=body, idempotency_key=idempotency_key).json())

    def placement(self, tenant: str, collection: str) -> Placement:
        """Where a collection's vectors are to lie, and whether they do."""
        return Placement.parse(self._transport.call("GET", _placement(tenant, collection)).json())

    def place(self, tenant: str, collection: str, *, placement: str) -> Placement:
        """`shared`, `dedicated`, or `auto` to go by the number of points. They are moved while the collection is used."""
        body = {"placement": placement}
        return Placement.parse(self._transport.call("PUT", _placement(tenant, collection), json=body).json())


def _placement(tenant: str, collection: str) -> str:
    return _path(TENANTS, tenant, "collections", collection, "placement")
