"""What operators may see across tenants: a search with a reason, sums of all, and who is noisiest."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request

from api.middleware import event_of
from api.routing import Services, in_thread, router, scope
from api.schemas.audit import AdminSearchIn, AdminSearchOut, LookedOut, NoisiestOut, NoisyOut, StatisticsOut
from ingestion.statistics import Measure
from tenants.context import Scope

routes = router("Administration")

Hours = Annotated[int, Query(ge=1, le=24 * 90, description="How far back, in hours.")]


@routes.post(
    "/v1/admin/search",
    operation_id="search_tenants",
    summary="Ask several tenants, for a reason that each of them can read",
    **scope(Scope.OPERATE, retrieval=True),
)
async def search_tenants(body: AdminSearchIn, services: Services, request: Request) -> AdminSearchOut:
    question, search = body.question(), services.oversight.search
    tenants = await in_thread(search.find, body.tenants)
    request.state.audit = {"tenants": [tenant.id for tenant in tenants], "reason": body.reason}
    event = event_of(request.scope, 200, {})
    looked, tokens = await in_thread(lambda: search.ask(tenants, question, reason=body.reason, event=event))
    request.state.audit |= {"tokens": tokens}
    return AdminSearchOut(results=[LookedOut.of(one) for one in looked], tokens=tokens)


@routes.get(
    "/v1/admin/statistics",
    operation_id="get_statistics",
    summary="Sums over all tenants",
    **scope(Scope.OPERATE),
)
async def get_statistics(services: Services, hours: Hours = 24) -> StatisticsOut:
    return StatisticsOut.of(await in_thread(services.oversight.statistics.of_all, hours))


@routes.get(
    "/v1/admin/noisiest",
    operation_id="list_noisiest",
    summary="The tenants with the most requests, tokens or failures lately",
    **scope(Scope.OPERATE),
)
async def list_noisiest(
    services: Services,
    by: Annotated[Measure, Query(description="What is compared.")] = "requests",
    hours: Hours = 24,
    top: Annotated[int, Query(ge=1, le=100, description="How many tenants.")] = 10,
) -> NoisiestOut:
    found = await in_thread(lambda: services.oversight.statistics.noisiest(by, hours, top))
    return NoisiestOut(by=by, hours=hours, data=[NoisyOut.of(noisy) for noisy in found])
