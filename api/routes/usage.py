"""What tenants used, and their budgets: shown to them, and set by the operator."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request
from starlette.responses import Response, StreamingResponse

from api.invoices import Format, Invoice
from api.routing import Services, Tenant, in_thread, router, scope
from api.schemas.documents import Text
from api.schemas.usage import BudgetIn, BudgetOut, BudgetsOut, Group, Kind, Span, UsageOut
from api.wiring.api import ApiServices
from config.errors import Forbidden
from tenants.context import Scope, TenantContext
from tenants.ledger.usage import Range

routes = router("Usage")
MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
DAY = "A day in UTC, as `2026-11-21`."


@routes.get("/v1/usage", operation_id="get_usage", summary="Tokens, money and budgets", **scope(Scope.MANAGE))
async def get_usage(
    services: Services,
    tenant: Tenant,
    first: Annotated[Text | None, Query(alias="from", description=DAY)] = None,
    last: Annotated[Text | None, Query(alias="to", description=f"{DAY} The last one counts.")] = None,
    group_by: Annotated[list[Group] | None, Query(description="Give it again for each.", max_length=4)] = None,
) -> UsageOut:
    if {"key", "collection"} & {*(group_by or ())}:
        _unconfined(tenant)
    wanted = None if first is None and last is None else Range(first or last or "", last or first or "")

    def look() -> UsageOut:
        usage = services.tenancy.usage.of(tenant, wanted, group_by or ())
        overrides = services.tenancy.budgets.overrides(tenant.tenant_id)
        return UsageOut.of(usage, overrides, services.embedding.holdings(tenant))

    return await in_thread(look)


@routes.get(
    "/v1/usage/export",
    operation_id="export_usage",
    summary="A month's usage line by line, for an invoice",
    response_class=Response,
    responses={
        200: {
            "content": {
                MEDIA_TYPES["csv"]: {"schema": {"type": "string"}},
                MEDIA_TYPES["json"]: {"schema": {"type": "object"}},
            },
            "description": "Lines as they are read, then their sum; with `format=json` the same as one object.",
        }
    },
    **scope(Scope.MANAGE),
)
async def export_usage(
    services: Services,
    tenant: Tenant,
    month: Annotated[Text, Query(description="In UTC, as `2026-11`.")],
    format: Annotated[Format, Query(description="`csv` or `json`.")] = "csv",
) -> StreamingResponse:
    _unconfined(tenant)
    invoice = Invoice(Range.of_month(month).first[:7], services.tenancy.usage.lines(tenant, month))
    named = {"content-disposition": f'attachment; filename="usage-{month}.{format}"'}
    pieces = invoice.csv() if format == "csv" else invoice.json()
    return StreamingResponse(pieces, media_type=MEDIA_TYPES[format], headers=named)


def _unconfined(tenant: TenantContext) -> None:
    if tenant.collections is not None or tenant.labels is not None:
        raise Forbidden("This names all of a tenant's collections and keys; use a key that is not confined to some.")


@routes.get(
    "/v1/admin/tenants/{tenant}/budgets",
    operation_id="list_budgets",
    summary="Show a tenant's budgets as they stand",
    **scope(Scope.OPERATE),
)
async def list_budgets(tenant: Text, services: Services, request: Request) -> BudgetsOut:
    context = await _of(tenant, services, request)
    return await in_thread(lambda: _budgets(services, context))


@routes.put(
    "/v1/admin/tenants/{tenant}/budgets/{kind}/{span}",
    operation_id="set_budget",
    summary="Set a tenant's budget, or override it until a time",
    **scope(Scope.OPERATE),
)
async def set_budget(tenant: Text, kind: Kind, span: Span, body: BudgetIn, services: Services, request: Request) -> BudgetsOut:
    context, values = await _of(tenant, services, request), body.values()
    request.state.audit = {"tenant": context.tenant_id, "kind": kind, "span": span, "soft": body.soft, **values}

    def change() -> BudgetsOut:
        until, reason = body.until_ms(), body.reason
        services.tenancy.budgets.change(context.tenant_id, kind, span, values, soft=body.soft, until=until, reason=reason)
        return _budgets(services, context)

    return await in_thread(change)


async def _of(tenant: str, services: ApiServices, request: Request) -> TenantContext:
    found = await in_thread(services.core.registry.get, tenant)
    request.state.audit = {"tenant": found.id}
    return services.core.registry.context_of_job(found.id, "operator")


def _budgets(services: ApiServices, context: TenantContext) -> BudgetsOut:
    overrides = services.tenancy.budgets.overrides(context.tenant_id)
    return BudgetsOut(data=[BudgetOut.of(budget, overrides) for budget in services.tenancy.usage.of(context).budgets])
