"""What a collection is tuned to: shown, applied, and taken back."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request

from api.routing import Services, Tenant, in_thread, router, scope
from api.schemas.documents import Text
from api.schemas.evaluation import TuningIn, TuningsOut
from tenants.context import Scope

routes = router("Evaluation")
PATH = "/v1/collections/{name}/tuning"


@routes.get(PATH, operation_id="get_tuning", summary="What a collection is and was tuned to", **scope(Scope.QUERY))
async def get_tuning(name: Text, services: Services, tenant: Tenant) -> TuningsOut:
    handle = services.evaluation.tunings.for_tenant(tenant)
    return TuningsOut.of(await in_thread(lambda: handle.get(name)))


@routes.put(PATH, operation_id="apply_tuning", summary="Tune a collection from now on", **scope(Scope.INGEST))
async def apply_tuning(name: Text, body: TuningIn, request: Request, services: Services, tenant: Tenant) -> TuningsOut:
    handle, parameters = services.evaluation.tunings.for_tenant(tenant), body.parameters.parameters()
    figures = body.figures.model_dump() if body.figures else {}
    tunings = await in_thread(lambda: handle.apply(name, parameters, figures, replaces=body.replaces))
    request.state.audit = {"tuning": tunings.active}
    return TuningsOut.of(tunings)


@routes.delete(
    PATH, operation_id="roll_back_tuning", summary="Go back to what was active before this version", **scope(Scope.INGEST)
)
async def roll_back_tuning(
    name: Text,
    version: Annotated[int, Query(ge=1, description="The active version; if it is another one by now, 409.")],
    request: Request,
    services: Services,
    tenant: Tenant,
) -> TuningsOut:
    handle = services.evaluation.tunings.for_tenant(tenant)
    tunings = await in_thread(lambda: handle.roll_back(name, version))
    request.state.audit = {"tuning": tunings.active}
    return TuningsOut.of(tunings)
