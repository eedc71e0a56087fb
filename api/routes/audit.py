"""Who did what: a tenant's own record, and for operators that of any tenant and their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Query, Request
from starlette.responses import StreamingResponse

from api.bulk import MEDIA_TYPE
from api.cursors import Cursor, Limit, PageCursor
from api.routing import Services, Tenant, in_thread, router, scope
from api.schemas.audit import AuditEntryOut, AuditFilter
from api.schemas.documents import Page, Text
from api.wiring.api import ApiServices
from config.errors import Forbidden
from tenants.audit.record import Wanted
from tenants.context import Scope, TenantContext

routes = router("Audit")
LAST_POSITION = 2**63 - 1  #: that databases can be asked about


class Lines(StreamingResponse):
    media_type = MEDIA_TYPE


FromPosition = Annotated[
    int, Query(ge=1, description="Begin at the checkpoint that covers this position; 1 is all that is kept.")
]
OfTenant = Annotated[
    Text | None, Query(description="A tenant, by name or id, a deleted one by its id; left out, the record of operators.")
]
_LINES: dict[int | str, dict[str, Any]] = {
    200: {"description": "A header, entries with checkpoints among them, and an end; one a line.", "content": {MEDIA_TYPE: {}}}
}


@routes.get("/v1/audit", operation_id="list_audit", summary="List audit entries, newest first", **scope(Scope.MANAGE))
async def list_audit(
    services: Services, tenant: Tenant, cursor: Cursor, wanted: AuditFilter, limit: Limit = 20
) -> Page[AuditEntryOut]:
    return await _page(services, _whole(tenant).tenant_id, wanted, cursor, limit)


@routes.get(
    "/v1/audit/export",
    operation_id="export_audit",
    summary="Export the audit chain with its checkpoints, to be verified anywhere",
    response_class=Lines,
    responses=_LINES,
    **scope(Scope.MANAGE),
)
async def export_audit(services: Services, tenant: Tenant, from_position: FromPosition = 1) -> Lines:
    return _export(services, _whole(tenant).tenant_id, from_position)


@routes.get(
    "/v1/admin/audit",
    operation_id="list_any_audit",
    summary="List audit entries of a tenant, or of operators",
    **scope(Scope.OPERATE),
)
async def list_any_audit(
    services: Services, cursor: Cursor, wanted: AuditFilter, tenant: OfTenant = None, limit: Limit = 20
) -> Page[AuditEntryOut]:
    return await _page(services, await _named(services, tenant), wanted, cursor, limit)


@routes.get(
    "/v1/admin/audit/export",
    operation_id="export_any_audit",
    summary="Export the audit chain of a tenant, or of operators",
    response_class=Lines,
    responses=_LINES,
    **scope(Scope.OPERATE),
)
async def export_any_audit(
    services: Services, request: Request, tenant: OfTenant = None, from_position: FromPosition = 1
) -> Lines:
    tenant_id = await _named(services, tenant)
    request.state.audit = {"tenant": tenant_id}
    return _export(services, tenant_id, from_position)


def _whole(tenant: TenantContext) -> TenantContext:
    if tenant.collections is not None or tenant.labels is not None:
        raise Forbidden("The record tells of all of a tenant's requests; use a key without bounds of collections or labels.")
    return tenant


async def _named(services: ApiServices, tenant: str | None) -> str | None:
    if tenant is None:
        return None
    deletion = await in_thread(services.tenancy.deletions.of, tenant)  # by its id: its record is the operator's now
    return deletion.tenant_id if deletion is not None else (await in_thread(services.core.registry.get, tenant)).id


async def _page(
    services: ApiServices, tenant_id: str | None, wanted: Wanted, cursor: PageCursor, limit: int
) -> Page[AuditEntryOut]:
    rows, following = await in_thread(lambda: services.audit.page(tenant_id, wanted, after=cursor.position, limit=limit))
    return Page(data=[AuditEntryOut.of(row) for row in rows], next=cursor.next(following))


def _export(services: ApiServices, tenant_id: str | None, from_position: int) -> Lines:
    position = min(from_position, LAST_POSITION)
    lines: Iterator[bytes] = services.oversight.export.lines(tenant_id, from_position=position)
    return Lines(lines)
