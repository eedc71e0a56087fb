"""What operators do: tenants, their keys and budgets, and looking across all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from carrel_client._async.audit import AsyncOversight
from carrel_client._async.budgets import AsyncBudgets
from carrel_client._async.tenants import AsyncTenants
from carrel_client._async.transport import AsyncTransport, pages
from carrel_client.exchange import path_of
from carrel_client.models import Key, NewKey

_PATH = "/v1/admin/keys"


class AsyncAdmin(AsyncOversight):
    """For operator keys only."""

    def __init__(self, transport: AsyncTransport) -> None:
        super().__init__(transport)
        self.tenants = AsyncTenants(transport)
        self.keys = AsyncKeys(transport)
        self.budgets = AsyncBudgets(transport)


class AsyncKeys:
    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        *,
        tenant: str,
        name: str,
        scopes: Sequence[str],
        collections: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        read_only: bool = False,
        expires_at: str | None = None,
        allowed_addresses: Sequence[str] | None = None,
        idempotency_key: str | None = None,
    ) -> NewKey:
        """The answer's `secret` is shown this once. `expires_at` is RFC 3339, as `2027-01-31T00:00:00Z`.

        Example: `key = await operator.admin.keys.create(tenant="acme", name="website", scopes=["query"])`
        """
        body = {
            "tenant": tenant,
            "name": name,
            "scopes": list(scopes),
            "collections": None if collections is None else list(collections),
            "labels": None if labels is None else list(labels),
            "read_only": read_only,
            "expires_at": expires_at,
            "allowed_addresses": None if allowed_addresses is None else list(allowed_addresses),
        }
        return NewKey.parse(await self._transport.call("POST", _PATH, json=body, idempotency_key=idempotency_key))

    async def list(self, *, tenant: str, page_size: int = 100) -> AsyncIterator[Key]:
        """Of a tenant, with those that were revoked.

        Example: `names = [key.name async for key in operator.admin.keys.list(tenant="acme")]`
        """
        async for item in pages(self._transport, _PATH, page_size, tenant=tenant):
            yield Key.parse(item)

    async def get(self, key_id: str) -> Key:
        """What is known of a key; not its secret.

        Example: `print((await operator.admin.keys.get(key.id)).last_used_at)`
        """
        return Key.parse(await self._transport.call("GET", path_of(_PATH, key_id)))

    async def rotate(self, key_id: str, *, overlap_seconds: int = 24 * 3600, idempotency_key: str | None = None) -> NewKey:
        """A key with the same terms in its place; the old one stays valid for the overlap.

        Example: `replacing = await operator.admin.keys.rotate(key.id, overlap_seconds=3600)`
        """
        path, body = path_of(_PATH, key_id, "rotate"), {"overlap_seconds": overlap_seconds}
        return NewKey.parse(await self._transport.call("POST", path, json=body, idempotency_key=idempotency_key))

    async def revoke(self, key_id: str) -> Key:
        """Refused from now on, with all tokens that were made of it.

        Example: `await operator.admin.keys.revoke(key.id)`
        """
        return Key.parse(await self._transport.call("DELETE", path_of(_PATH, key_id), repeatable=True))
