"""Tenants as their operator handles them: plans, limits, suspension, tables of tenants, and deletion with its receipt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from carrel_client._sync.transport import Transport
from carrel_client._sync.transport import pages as _pages
from carrel_client.exchange import path_of as _path
from carrel_client.models import Placement, Tenant, Token
from carrel_client.tenants import KEPT, ImportedTenant, Kept, Limit, Limits, Plan, TenantDeletion

TENANTS = "/v1/admin/tenants"


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
        """`monthly_tokens` None leaves it to the service's default; `update` can lift a limit.

        Example: `operator.admin.tenants.create(name="acme", plan="starter")`
        """
        given = {"monthly_tokens": monthly_tokens, "plan": plan, "metadata": metadata and dict(metadata)}
        body = {"name": name} | {key: value for key, value in given.items() if value is not None}
        return Tenant.parse(self._transport.call("POST", TENANTS, json=body, idempotency_key=idempotency_key))

    def get(self, tenant: str) -> Tenant:
        """By id or name.

        Example: `tenant = operator.admin.tenants.get("acme")`
        """
        return Tenant.parse(self._transport.call("GET", _path(TENANTS, tenant)))

    def list(self, *, page_size: int = 100) -> Iterator[Tenant]:
        """All of them, fetched page by page.

        Example: `names = [tenant.name for tenant in operator.admin.tenants.list()]`
        """
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
        """What is left out stays. None: the plan's monthly tokens; the default plan. `metadata` is all keys.

        Example: `operator.admin.tenants.update("acme", monthly_tokens=8_000_000)`
        """
        given = {"monthly_tokens": monthly_tokens, "plan": plan, "metadata": metadata}
        body = {key: value for key, value in given.items() if value is not KEPT}
        return Tenant.parse(self._transport.call("PATCH", _path(TENANTS, tenant), json=body))

    def suspend(self, tenant: str, *, reads: bool = False) -> Tenant:
        """Refused within a second. With `reads` it may still ask and read.

        Example: `operator.admin.tenants.suspend("acme", reads=True)`
        """
        answer = self._transport.call("PUT", _path(TENANTS, tenant, "suspension"), json={"reads": reads}, repeatable=True)
        return Tenant.parse(answer)

    def resume(self, tenant: str) -> Tenant:
        """Everything is as before its suspension.

        Example: `operator.admin.tenants.resume("acme")`
        """
        answer = self._transport.call("DELETE", _path(TENANTS, tenant, "suspension"), repeatable=True)
        return Tenant.parse(answer)

    def plans(self) -> Sequence[Plan]:
        """What tenants can be on.

        Example: `names = [plan.name for plan in operator.admin.tenants.plans()]`
        """
        return [Plan.parse(plan) for plan in self._transport.call("GET", "/v1/admin/plans")["data"]]

    def limits(self, tenant: str) -> Limits:
        """What holds, where it comes from, and what is used.

        Example: `limits = operator.admin.tenants.limits("acme").limits`
        """
        return Limits.parse(self._transport.call("GET", _path(TENANTS, tenant, "limits")))

    def override(self, tenant: str, limit: str, value: Any, *, expires_at: str | None = None, reason: str = "") -> Limit:
        """`value` None is no limit; `expires_at` a time with its zone, as "2026-12-31T00:00:00Z".

        Example: `operator.admin.tenants.override("acme", "documents", 5_000, reason="migration")`
        """
        body = {"value": value, "expires_at": expires_at, "reason": reason}
        path = _path(TENANTS, tenant, "limits", limit)
        return Limit.parse(self._transport.call("PUT", path, json=body, repeatable=True))

    def restore(self, tenant: str, limit: str) -> Limit:
        """The plan's limit holds again.

        Example: `operator.admin.tenants.restore("acme", "documents")`
        """
        path = _path(TENANTS, tenant, "limits", limit)
        return Limit.parse(self._transport.call("DELETE", path, repeatable=True))

    def import_csv(self, table: str) -> Sequence[ImportedTenant]:
        """Columns name, plan, monthly_tokens, metadata.KEY; up to 1,000 lines. Sent again, it changes nothing.

        Example: `lines = operator.admin.tenants.import_csv("name,plan\\nacme,starter\\n")`
        """
        answer = self._transport.call("PUT", TENANTS, json={"csv": table}, repeatable=True)
        return [ImportedTenant.parse(one) for one in answer["data"]]

    def delete(self, tenant: str) -> TenantDeletion:
        """Everything the tenant has. It cannot be taken back; `deletion` says how far it is.

        Example: `deletion = operator.admin.tenants.delete("acme")`
        """
        return TenantDeletion.parse(self._transport.call("DELETE", _path(TENANTS, tenant)))

    def deletion(self, deletion_id: str) -> TenantDeletion:
        """How far a deletion is; once it is done, its receipt.

        Example: `print(operator.admin.tenants.deletion(deletion.id).state)`
        """
        return TenantDeletion.parse(self._transport.call("GET", _path("/v1/admin/deletions", deletion_id)))

    def deletions(self, *, page_size: int = 100) -> Iterator[TenantDeletion]:
        """All of them, fetched page by page.

        Example: `names = [deletion.name for deletion in operator.admin.tenants.deletions()]`
        """
        for item in _pages(self._transport, "/v1/admin/deletions", page_size):
            yield TenantDeletion.parse(item)

    def token(
        self, tenant: str, *, scopes: Sequence[str], lifetime_seconds: int = 900, idempotency_key: str | None = None
    ) -> Token:
        """A short-lived credential to act as this tenant; the exchange is audited.

        Example: `token = operator.admin.tenants.token("acme", scopes=["query"])`
        """
        body = {"scopes": [*scopes], "lifetime_seconds": lifetime_seconds}
        path = _path(TENANTS, tenant, "tokens")
        return Token.parse(self._transport.call("POST", path, json=body, idempotency_key=idempotency_key))

    def placement(self, tenant: str, collection: str) -> Placement:
        """Where a collection's vectors are to lie, and whether they do.

        Example: `print(operator.admin.tenants.placement("acme", "default").settled)`
        """
        return Placement.parse(self._transport.call("GET", _placement(tenant, collection)))

    def place(self, tenant: str, collection: str, *, placement: str) -> Placement:
        """`shared`, `dedicated`, or `auto` to go by the number of points. They are moved while the collection is used.

        Example: `operator.admin.tenants.place("acme", "default", placement="dedicated")`
        """
        body = {"placement": placement}
        return Placement.parse(self._transport.call("PUT", _placement(tenant, collection), json=body))


def _placement(tenant: str, collection: str) -> str:
    return _path(TENANTS, tenant, "collections", collection, "placement")
