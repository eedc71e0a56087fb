"""The operator's routes about tenants: making, changing, limiting, suspending, importing and deleting them."""

from __future__ import annotations

from fastapi import Request

from api.cursors import Cursor, Limit
from api.idempotency import Once
from api.routing import Services, in_thread, router, scope
from api.schemas.documents import Page, Text
from api.schemas.tenants import (
    DeletionOut,
    ImportedOut,
    ImportIn,
    ImportOut,
    LimitOut,
    LimitsOut,
    OverrideIn,
    PlanOut,
    PlansOut,
    SuspensionIn,
    TenantIn,
    TenantOut,
    TenantPatch,
)
from api.wiring.api import ApiServices
from config.errors import NotFound
from tenants.context import Scope
from tenants.tables import Tenant

routes = router("Administration")


@routes.post(
    "/v1/admin/tenants",
    operation_id="create_tenant",
    summary="Make a tenant",
    status_code=201,
    **scope(Scope.OPERATE),
)
async def create_tenant(body: TenantIn, services: Services, once: Once) -> TenantOut:
    core, given = services.core, body.model_dump()
    if "monthly_tokens" not in body.model_fields_set:
        given["monthly_tokens"] = core.settings.monthly_tokens
    if body.plan is not None:
        core.limits.plans.require(body.plan)
    record = once.records(TenantOut.of, status=201)
    return TenantOut.of(await in_thread(lambda: core.registry.create(**given, record=record)))


@routes.put(
    "/v1/admin/tenants",
    operation_id="import_tenants",
    summary="Make many tenants from a table, or bring them up to date; sent again, it changes nothing",
    **scope(Scope.OPERATE),
)
async def import_tenants(body: ImportIn, services: Services, request: Request) -> ImportOut:
    done = [ImportedOut.of(one) for one in await in_thread(services.tenancy.imports.run, body.csv)]
    request.state.audit = {"tenants": [one.tenant_id for one in done if one.status in ("created", "updated")]}
    return ImportOut(data=done)


@routes.get("/v1/admin/tenants", operation_id="list_tenants", summary="List tenants", **scope(Scope.OPERATE))
async def list_tenants(services: Services, cursor: Cursor, limit: Limit = 20) -> Page[TenantOut]:
    rows = await in_thread(lambda: services.core.registry.list(after=cursor.position, limit=limit))
    return Page(data=[TenantOut.of(row) for row in rows], next=cursor.next(rows[-1].id if len(rows) == limit else None))


@routes.get(
    "/v1/admin/tenants/{tenant}",
    operation_id="get_tenant",
    summary="Show a tenant, by id or name",
    **scope(Scope.OPERATE),
)
async def get_tenant(tenant: Text, services: Services) -> TenantOut:
    return TenantOut.of(await in_thread(services.core.registry.get, tenant))


@routes.patch(
    "/v1/admin/tenants/{tenant}",
    operation_id="update_tenant",
    summary="Change a tenant's plan, monthly tokens or metadata",
    **scope(Scope.OPERATE),
)
async def update_tenant(tenant: Text, body: TenantPatch, services: Services, request: Request) -> TenantOut:
    core, given = services.core, body.model_dump(exclude_unset=True)
    if body.plan is not None:
        core.limits.plans.require(body.plan)
    found = await _found(tenant, services, request)
    changed = await in_thread(core.registry.update, found.id, given)
    core.limits.forget(found.id)
    return TenantOut.of(changed)


@routes.put(
    "/v1/admin/tenants/{tenant}/suspension",
    operation_id="suspend_tenant",
    summary="Suspend a tenant: refused within a second, everywhere",
    **scope(Scope.OPERATE),
)
async def suspend_tenant(tenant: Text, body: SuspensionIn, services: Services, request: Request) -> TenantOut:
    found = await _found(tenant, services, request)
    return TenantOut.of(await in_thread(lambda: services.core.registry.suspend(found.id, reads=body.reads)))


@routes.delete(
    "/v1/admin/tenants/{tenant}/suspension",
    operation_id="resume_tenant",
    summary="Resume a tenant that was suspended",
    **scope(Scope.OPERATE),
)
async def resume_tenant(tenant: Text, services: Services, request: Request) -> TenantOut:
    found = await _found(tenant, services, request)
    return TenantOut.of(await in_thread(services.core.registry.resume, found.id))


@routes.get(
    "/v1/admin/tenants/{tenant}/limits",
    operation_id="list_limits",
    summary="Show the limits that hold for a tenant, where they come from, and what is used",
    **scope(Scope.OPERATE),
)
async def list_limits(tenant: Text, services: Services) -> LimitsOut:
    found = await in_thread(services.core.registry.get, tenant)
    return LimitsOut.of(await in_thread(services.tenancy.overrides.show, found))


@routes.put(
    "/v1/admin/tenants/{tenant}/limits/{limit}",
    operation_id="override_limit",
    summary="Let another limit hold for a tenant than its plan's, for ever or for a while",
    **scope(Scope.OPERATE),
)
async def override_limit(tenant: Text, limit: Text, body: OverrideIn, services: Services, request: Request) -> LimitOut:
    found = await _found(tenant, services, request)
    until = None if body.expires_at is None else int(body.expires_at.timestamp() * 1000)
    request.state.audit |= {"limit": limit[:64], "value": body.value}
    await in_thread(lambda: services.tenancy.overrides.put(found.id, limit, body.value, until=until, reason=body.reason))
    return await _limit(found, limit, services)


@routes.delete(
    "/v1/admin/tenants/{tenant}/limits/{limit}",
    operation_id="restore_limit",
    summary="Let the plan's limit hold again",
    **scope(Scope.OPERATE),
)
async def restore_limit(tenant: Text, limit: Text, services: Services, request: Request) -> LimitOut:
    found = await _found(tenant, services, request)
    request.state.audit |= {"limit": limit[:64]}
    await in_thread(services.tenancy.overrides.remove, found.id, limit)
    return await _limit(found, limit, services)


@routes.delete(
    "/v1/admin/tenants/{tenant}",
    operation_id="delete_tenant",
    summary="Delete a tenant and everything it has: it cannot be taken back",
    status_code=202,
    **scope(Scope.OPERATE),
)
async def delete_tenant(tenant: Text, services: Services, request: Request) -> DeletionOut:
    found = await _found(tenant, services, request)
    deletion = await in_thread(services.tenancy.deletions.request, found.id)
    request.state.audit |= {"deletion": deletion.id}
    return DeletionOut.of(deletion)


@routes.get("/v1/admin/deletions", operation_id="list_deletions", summary="List deletions of tenants", **scope(Scope.OPERATE))
async def list_deletions(services: Services, cursor: Cursor, limit: Limit = 20) -> Page[DeletionOut]:
    rows = await in_thread(lambda: services.tenancy.deletions.list(after=cursor.position, limit=limit))
    return Page(data=[*map(DeletionOut.of, rows)], next=cursor.next(rows[-1].id if len(rows) == limit else None))


@routes.get(
    "/v1/admin/deletions/{deletion_id}",
    operation_id="get_deletion",
    summary="Show how far a tenant's deletion is, and its receipt",
    **scope(Scope.OPERATE),
)
async def get_deletion(deletion_id: Text, services: Services) -> DeletionOut:
    return DeletionOut.of(await in_thread(services.tenancy.deletions.get, deletion_id))


@routes.get("/v1/admin/plans", operation_id="list_plans", summary="List the plans of this service", **scope(Scope.OPERATE))
async def list_plans(services: Services) -> PlansOut:
    plans = services.core.limits.plans
    return PlansOut(data=[PlanOut.of(name, plan, plans.default) for name, plan in plans.known.items()])


async def _found(tenant: str, services: ApiServices, request: Request) -> Tenant:
    found = await in_thread(services.core.registry.get, tenant)
    request.state.audit = {"tenant": found.id}
    return found


async def _limit(tenant: Tenant, name: str, services: ApiServices) -> LimitOut:
    shown = await in_thread(services.tenancy.overrides.show, tenant)
    for limit in shown.limits:
        if limit.name == name:
            return LimitOut.of(limit)
    raise NotFound("There is no such limit.")
