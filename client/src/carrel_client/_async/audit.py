"""Who did what: a tenant's audit record, and what operators see of all tenants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from carrel_client._async.transport import AsyncTransport, pages
from carrel_client.audit import AuditEntry, NoisyTenant, Statistics, TenantPassages


class AsyncAudit:
    """Of the key's own tenant. The key needs the scope `manage` and no bounds."""

    path = "/v1/audit"

    def __init__(self, transport: AsyncTransport) -> None:
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
    ) -> AsyncIterator[AuditEntry]:
        """Newest first. `target` is a path or its beginning, `since` and `until` are ISO 8601 with a zone.

        Example: `entries = [entry async for entry in carrel.audit.list(action="POST /v1/query")]`
        """
        return self._list(page_size, _filters(principal, action, decision, target, since, until))

    def export(self, *, from_position: int = 1) -> AsyncIterator[str]:
        """The chain line by line, with its checkpoints: what `carrel audit verify FILE` reads.

        Example: `async for line in carrel.audit.export(): print(line)`
        """
        return self._transport.lines("GET", f"{self.path}/export", params={"from_position": from_position})

    async def _list(self, page_size: int, filters: Mapping[str, str | None]) -> AsyncIterator[AuditEntry]:
        async for item in pages(self._transport, self.path, page_size, **filters):
            yield AuditEntry.parse(item)


class AsyncAdminAudit(AsyncAudit):
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
    ) -> AsyncIterator[AuditEntry]:
        """Newest first, as of a tenant's own.

        Example: `entries = [entry async for entry in operator.admin.audit.list("acme", decision="denied")]`
        """
        filters = _filters(principal, action, decision, target, since, until)
        return self._list(page_size, {**filters, "tenant": tenant})

    def export(self, tenant: str | None = None, *, from_position: int = 1) -> AsyncIterator[str]:
        """The chain of a tenant, or of operators, line by line.

        Example: `async for line in operator.admin.audit.export("acme"): print(line)`
        """
        return self._transport.lines("GET", f"{self.path}/export", params={"tenant": tenant, "from_position": from_position})


def _filters(*values: str | None) -> dict[str, str | None]:
    return dict(zip(("principal", "action", "decision", "target", "since", "until"), values, strict=True))


class AsyncOversight:
    """What operators do across tenants. Each search is told in the audit record of each tenant, with its reason."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self.audit = AsyncAdminAudit(transport)

    async def search(
        self,
        query: str,
        *,
        tenants: Sequence[str],
        reason: str,
        collections: Sequence[str] = ("default",),
        filter: Mapping[str, Any] | None = None,
        top_k: int = 10,
    ) -> list[TenantPassages]:
        """The passages of each tenant that answer `query`; told in the audit record of each.

        Example: `found = await operator.admin.search("leaked password", tenants=["acme"], reason="incident 2211")`
        """
        body: dict[str, Any] = {"query": query, "tenants": list(tenants), "reason": reason, "collections": list(collections)}
        body |= {"filter": filter, "top_k": top_k}
        answer = await self._transport.call("POST", "/v1/admin/search", json=body)
        return [TenantPassages.parse(item) for item in answer["results"]]

    async def statistics(self, *, hours: int = 24) -> Statistics:
        """Sums over all tenants; `recent` of the last `hours`.

        Example: `print((await operator.admin.statistics()).documents)`
        """
        return Statistics.parse(await self._transport.call("GET", "/v1/admin/statistics", params={"hours": hours}))

    async def noisiest(self, *, by: str = "requests", hours: int = 24, top: int = 10) -> list[NoisyTenant]:
        """`by` is requests, queries, denied, failed or tokens.

        Example: `noisy = await operator.admin.noisiest(by="tokens")`
        """
        params = {"by": by, "hours": hours, "top": top}
        answer = await self._transport.call("GET", "/v1/admin/noisiest", params=params)
        return [NoisyTenant.parse(item) for item in answer["data"]]
