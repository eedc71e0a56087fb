"""Who did what: a tenant's audit record, and what operators see of all tenants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from carrel_client.answers import Passage
from carrel_client.models import Model


@dataclass(frozen=True)
class AuditEntry(Model):
    """One request: who did what, on what, and how it ended."""

    id: str
    at: str
    request_id: str
    principal_kind: str
    principal_id: str
    action: str  #: method and route
    target: str
    decision: str  #: allowed or denied
    status: int  #: 0: no answer left
    detail: dict[str, Any] = field(default_factory=dict)
    position: int | None = None  #: in the chain; None: not sealed yet


@dataclass(frozen=True)
class TenantPassages(Model):
    tenant_id: str
    tenant: str
    passages: list[Passage]
    problem: str | None = None  #: why nothing was asked of this tenant

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> TenantPassages:
        return super().parse({**data, "passages": [Passage.parse(item) for item in data["passages"]]})


@dataclass(frozen=True)
class RecentSums(Model):
    requests: int = 0
    queries: int = 0
    denied: int = 0
    failed: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class NoisyTenant(RecentSums):
    tenant_id: str = ""
    tenant: str = ""


@dataclass(frozen=True)
class Statistics(Model):
    """Sums over all tenants."""

    tenants: int
    documents: int
    chunks: int
    bytes: int
    hours: int
    recent: RecentSums

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Statistics:
        return super().parse({**data, "recent": RecentSums.parse(data["recent"])})
