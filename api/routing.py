"""Routes that cannot forget their permission: a scope is part of declaring one, and is checked before the body is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from api.entries import does_leave_entry
from api.idempotency import Handler, once
from api.middleware import event_of
from api.problems import unexpected
from api.wiring.api import ApiServices
from config.errors import CarrelError, Forbidden, Unavailable
from tenants.context import Principal, Scope, TenantContext
from tenants.identity.authenticator import Identity
from tenants.ledger.budget import TenantMeter

SCOPE_KEY, RETRIEVAL_KEY, DRY_RUN_KEY = "x-carrel-scope", "x-carrel-retrieval", "x-carrel-dry-run"
STREAMED_KEY = "x-carrel-streamed"
DRY_RUN = "dry_run"
_BOOLEAN = TypeAdapter(bool)


def scope(needed: Scope, *, retrieval: bool = False, dry_run: bool = False, streamed: bool = False) -> dict[str, Any]:
    """Declare a route's scope: `@router.post("/v1/collections", **scope(Scope.INGEST))`. Shown in the OpenAPI document.

    `retrieval` is for a POST that changes nothing: its answer is not kept for repetitions with the same `Idempotency-Key`.
    `dry_run` is for one that changes nothing if its parameter of that name says so. `streamed` is for one whose body is read
    piece by piece, each of which can be sent again: it takes no `Idempotency-Key`. Its path must be in `middleware.STREAMED`.
    """
    marks = {RETRIEVAL_KEY: retrieval, DRY_RUN_KEY: dry_run, STREAMED_KEY: streamed}
    return {"openapi_extra": {SCOPE_KEY: str(needed)} | {key: True for key, marked in marks.items() if marked}}


def public() -> dict[str, Any]:
    """Declare that a route needs no key. Its path must be in `middleware.PUBLIC` as well."""
    return {"openapi_extra": {SCOPE_KEY: "none", "security": []}}


class ScopedRoute(APIRoute):
    def get_route_handler(self) -> Handler:
        extra = self.openapi_extra or {}
        needed = extra[SCOPE_KEY]
        inner = _answered(super().get_route_handler())
        unkept = extra.get(RETRIEVAL_KEY) or extra.get(STREAMED_KEY)
        noted = not unkept and not {"GET", "HEAD"} & set(self.methods or ()) and not does_leave_entry(self.endpoint)
        if "POST" in (self.methods or ()) and needed != "none" and not unkept:
            kept = _answered(once(inner))
            inner = _unless_dry(inner, kept) if extra.get(DRY_RUN_KEY) else kept

        async def handler(request: Request) -> Response:
            if needed != "none":
                reads = request.method in ("GET", "HEAD") or extra.get(RETRIEVAL_KEY)
                reads = reads or (extra.get(DRY_RUN_KEY) and is_dry_run(request))
                require(request.state.identity, Scope(needed), reads=bool(reads))
                if noted:  # what dies with its process leaves an entry too; a stream leaves its own as it goes
                    event = event_of(request.scope, 0, {})
                    request.state.audit_intent = await in_thread(request.app.state.services.audit.begin, event)
            return await inner(request)

        return handler


def _unless_dry(dry: Handler, kept: Handler) -> Handler:
    """A key that a dry run brings is left for the call that it tries out."""

    async def handler(request: Request) -> Response:
        return await (dry if is_dry_run(request) else kept)(request)

    return handler


def is_dry_run(request: Request) -> bool:
    """As the framework reads the parameter; what it would refuse is none."""
    try:
        return _BOOLEAN.validate_python(request.query_params.get(DRY_RUN, False))
    except ValidationError:
        return False


def _answered(inner: Handler) -> Handler:
    async def handler(request: Request) -> Response:
        try:
            return await inner(request)
        except (CarrelError, RequestValidationError, HTTPException, ClientDisconnect):
            raise
        except (OperationalError, PoolTimeout) as error:
            raise Unavailable("The database does not answer.", retry_after_s=2) from error
        except Exception as error:  # noqa: BLE001  answered here, so that audit and request id still see it
            return unexpected(error)

    return handler


def require(identity: Identity, needed: Scope, *, reads: bool = False) -> None:
    """`reads`: whether the request only reads, as a suspended tenant may be left to, and a read-only key always is."""
    identity.standing.require(reads=reads)
    if needed not in identity.principal.scopes:
        raise Forbidden(f"This needs the scope `{needed}`.")
    if identity.principal.read_only and not reads:
        raise Forbidden("The key is read-only.")


def router(tag: str) -> APIRouter:
    return APIRouter(route_class=ScopedRoute, tags=[tag])


# Coroutines, although nothing is awaited: a plain function would be sent to a thread and back, 0.1 ms each.
async def _services(request: Request) -> ApiServices:
    services: ApiServices = request.app.state.services
    return services


async def _context(request: Request) -> TenantContext:
    identity: Identity = request.state.identity
    if identity.tenant is None:
        raise Forbidden("An operator key opens /v1/admin only; use a tenant's key.")
    return identity.tenant


async def _principal(request: Request) -> Principal:
    identity: Identity = request.state.identity
    return identity.principal


Services = Annotated[ApiServices, Depends(_services)]
Tenant = Annotated[TenantContext, Depends(_context)]
Caller = Annotated[Principal, Depends(_principal)]

in_thread = to_thread.run_sync


def meter_of(services: ApiServices, tenant: TenantContext, collections: Sequence[str]) -> TenantMeter:
    """Who pays for a question: its key, and its collection if it is one."""
    collection = collections[0] if len(collections) == 1 else ""
    return services.core.ledger.for_tenant(tenant, "query", key=tenant.principal.key_id, collection=collection)
