"""The operator's routes about keys, tokens and placements. No tenant's key opens them, whatever its scopes."""

from __future__ import annotations

from fastapi import Request

from api.cursors import Cursor, Limit
from api.idempotency import Once
from api.routing import Caller, Services, in_thread, router, scope
from api.schemas.collections import PlacementIn, PlacementOut
from api.schemas.documents import KeyIn, KeyOut, KeyRotateIn, NewKeyOut, Page, Text, TokenIn, TokenOut
from config.clock import isoformat
from tenants.context import Scope, TenantContext
from tenants.identity.keys import NewKey
from tenants.identity.tokens import Wish

routes = router("Administration")


@routes.post(
    "/v1/admin/tenants/{tenant}/tokens",
    operation_id="create_tenant_token",
    summary="Get a short-lived credential of a tenant",
    status_code=201,
    **scope(Scope.OPERATE),
)
async def create_tenant_token(tenant: Text, body: TokenIn, services: Services, caller: Caller, request: Request) -> TokenOut:
    found = await in_thread(services.core.registry.get, tenant)
    wish = Wish(body.scopes, body.lifetime_seconds)
    token, claims = services.tokens.issue(found.id, key_id=caller.key_id, wish=wish)
    request.state.audit = {"tenant": found.id, "token": claims.id, "scopes": sorted(claims.scopes)}
    return TokenOut(token=token, expires_at=isoformat(claims.expires_at), scopes=sorted(claims.scopes))


@routes.get(
    "/v1/admin/tenants/{tenant}/collections/{name}/placement",
    operation_id="get_placement",
    summary="Show where a collection's vectors lie",
    **scope(Scope.OPERATE),
)
async def get_placement(tenant: Text, name: Text, services: Services, request: Request) -> PlacementOut:
    context = await _acting_for(tenant, services, request)
    return PlacementOut.of(await in_thread(services.placements.show, context, name))


@routes.put(
    "/v1/admin/tenants/{tenant}/collections/{name}/placement",
    operation_id="place_collection",
    summary="Choose where a collection's vectors lie; they are moved while it is used",
    **scope(Scope.OPERATE),
)
async def place_collection(tenant: Text, name: Text, body: PlacementIn, services: Services, request: Request) -> PlacementOut:
    context = await _acting_for(tenant, services, request)
    return PlacementOut.of(await in_thread(services.placements.choose, context, name, body.placement))


async def _acting_for(tenant: str, services: Services, request: Request) -> TenantContext:
    found = await in_thread(services.core.registry.get, tenant)
    request.state.audit = {"tenant": found.id}
    return services.core.registry.context_of_job(found.id, "operator")


@routes.post(
    "/v1/admin/keys",
    operation_id="create_key",
    summary="Make a key for a tenant; its secret is shown this once",
    status_code=201,
    **scope(Scope.OPERATE),
)
async def create_key(body: KeyIn, services: Services, request: Request, once: Once) -> NewKeyOut:
    tenant = await in_thread(services.core.registry.get, body.tenant)
    new = await in_thread(
        lambda: services.keys.create(
            tenant.id,
            name=body.name,
            scopes=body.scopes,
            collections=body.collections,
            labels=body.labels,
            read_only=body.read_only,
            allowed_addresses=body.allowed_addresses,
            expires_at=None if body.expires_at is None else int(body.expires_at.timestamp() * 1000),
            record=once.records(_new_key, status=201),
        )
    )
    request.state.audit = {"tenant": tenant.id, "key": new.row.id, "scopes": new.row.scopes}
    return _new_key(new)


def _new_key(new: NewKey) -> NewKeyOut:
    return NewKeyOut(**KeyOut.fields_of(new.row), secret=new.secret)


@routes.get("/v1/admin/keys", operation_id="list_keys", summary="List a tenant's keys", **scope(Scope.OPERATE))
async def list_keys(services: Services, tenant: Text, cursor: Cursor, limit: Limit = 20) -> Page[KeyOut]:
    found = await in_thread(services.core.registry.get, tenant)
    rows = await in_thread(lambda: services.keys.list(found.id, after=cursor.position, limit=limit))
    return Page(data=[KeyOut.of(row) for row in rows], next=cursor.next(rows[-1].id if len(rows) == limit else None))


@routes.get("/v1/admin/keys/{key_id}", operation_id="get_key", summary="Show a key", **scope(Scope.OPERATE))
async def get_key(key_id: Text, services: Services) -> KeyOut:
    return KeyOut.of(await in_thread(services.keys.get, key_id))


@routes.post(
    "/v1/admin/keys/{key_id}/rotate",
    operation_id="rotate_key",
    summary="Replace a key by one with the same terms; the old one stays valid for a while",
    status_code=201,
    **scope(Scope.OPERATE),
)
async def rotate_key(key_id: Text, body: KeyRotateIn, services: Services, request: Request, once: Once) -> NewKeyOut:
    record = once.records(_new_key, status=201)
    new = await in_thread(lambda: services.keys.rotate(key_id, overlap_s=body.overlap_seconds, record=record))
    request.state.audit = {"tenant": new.row.tenant_id, "key": new.row.id, "replaces": key_id}
    return _new_key(new)


@routes.delete(
    "/v1/admin/keys/{key_id}",
    operation_id="revoke_key",
    summary="Revoke a key and the tokens made with it: refused within a second",
    **scope(Scope.OPERATE),
)
async def revoke_key(key_id: Text, services: Services) -> KeyOut:
    return KeyOut.of(await in_thread(services.keys.revoke, key_id))
