"""Who did what: a tenant's audit record, and what operators see of all tenants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from carrel_client.answers import Passage
from carrel_client.models import Model
from carrel_client.transport import Transport, pages


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


class Audit:
    """Of the key's own tenant. The key needs the scope `manage` and no bounds."""

    path = "/v1/audit"

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        principal: str | None = None,
        action: str | None = None,
        decision: str | None = None,
        target: str | None = None,
        since: str | None = None,
        until: str | None = None,
        page_size: int = 100,
    ) -> Iterator[AuditEntry]:
        """Newest first. `target` is a path or its beginning, `since` and `until` are ISO 8601 with a zone."""
        return self._list(page_size, _filters(principal, action, decision, target, since, until))

    def export(self, *, from_position: int = 1) -> Iterator[str]:
        """The chain line by line, with its checkpoints: what `carrel audit verify FILE` reads."""
        return self._transport.download(f"{self.path}/export", {"from_position": from_position})

    def _list(self, page_size: int, filters: Mapping[str, str | None]) -> Iterator[AuditEntry]:
        for item in pages(self._transport, self.path, page_size, **filters):
            yield AuditEntry.parse(item)


class AdminAudit(Audit):
    """Of any tenant, by name or id, or of operators (None). For operator keys only."""

    path = "/v1/admin/audit"

    def list(
        self,
        tenant: str | None = None,
        *,
        principal: str | None = None,
        action: str | None = None,
        decision: str | None = None,
        target: str | None = None,
        since: str | None = None,
        until: str | None = None,
        page_size: int = 100,
    ) -> Iterator[AuditEntry]:
        filters = _filters(principal, action, decision, target, since, until)
        return self._list(page_size, {**filters, "tenant": tenant})

    def export(self, tenant: str | None = None, *, from_position: int = 1) -> Iterator[str]:
        return self._transport.download(f"{self.path}/export", {"tenant": tenant, "from_position": from_position})


def _filters(*values: str | None) -> dict[str, str | None]:
    return dict(zip(("principal", "action", "decision", "target", "since", "until"), values, strict=True))


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


class Oversight:
    """What operators do across tenants. Each search is told in the audit record of each tenant, with its reason."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.audit = AdminAudit(transport)

    def search(
        self,
        query: str,
        *,
        tenants: Sequence[str],
        reason: str,
        collections: Sequence[str] = ("default",),
        filter: Mapping[str, Any] | None = None,
        top_k: int = 10,
    ) -> list[TenantPassages]:
        body: dict[str, Any] = {"query": query, "tenants": list(tenants), "reason": reason, "collections": list(collections)}
        body |= {"filter": filter, "top_k": top_k}
        answer = self._transport.call("POST", "/v1/admin/search", json=body).json()
        return [TenantPassages.parse(item) for item in answer["results"]]

    def statistics(self, *, hours: int = 24) -> Statistics:
        return Statistics.parse(self._transport.call("GET", "/v1/admin/statistics", params={"hours": hours}).json())

    def noisiest(self, *, by: str = "requests", hours: int = 24, top: int = 10) -> list[NoisyTenant]:
        """`by` is requests, queries, denied, failed or tokens."""
        params = {"by": by, "hours": hours, "top": top}
        answer = self._transport.call("GET", "/v1/admin/noisiest", params=params).json()
        return [NoisyTenant.parse(item) for item in answer["data"]]
