"""What questions left behind, and asking them again of the index as it is."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import AwareDatetime
from starlette.responses import StreamingResponse

from api.bulk import MEDIA_TYPE
from api.cursors import Cursor, Limit
from api.idempotency import ChargeId
from api.routing import Services, Tenant, in_thread, meter_of, router, scope
from api.schemas.documents import Page, Text
from api.schemas.traces import FullTraceOut, OtherwiseIn, ReplayOut, ReplaysIn, TraceOut
from rag.traces.left import Kind
from rag.traces.reading import Wanted, position
from tenants.context import Scope

routes = router("Traces")


class Lines(StreamingResponse):
    media_type = MEDIA_TYPE


_LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One `replay` or `skipped` a line, oldest first, and a `report` of all at the end.",
        "content": {MEDIA_TYPE: {}},
    }
}
Since = Annotated[AwareDatetime | None, Query(description="Left then or later, ISO 8601 with its zone.")]
Until = Annotated[AwareDatetime | None, Query(description="Left before then.")]


@routes.get("/v1/traces", operation_id="list_traces", summary="List traces, newest first", **scope(Scope.QUERY))
async def list_traces(
    services: Services,
    tenant: Tenant,
    cursor: Cursor,
    kind: Kind | None = None,
    subject: Text | None = None,
    session_id: Text | None = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
) -> Page[TraceOut]:
    times = (None if moment is None else round(moment.timestamp() * 1000) for moment in (since, until))
    wanted = Wanted(kind, tenant.speaking_for(subject), session_id, *times)
    handle = services.traces.traces.for_tenant(tenant)
    rows = await in_thread(lambda: handle.page(wanted, after=cursor.position, limit=limit))
    return Page(data=[*map(TraceOut.of, rows)], next=cursor.next(position(rows[-1]) if len(rows) == limit else None))


@routes.get("/v1/traces/{trace_id}", operation_id="get_trace", summary="How a question was answered", **scope(Scope.QUERY))
async def get_trace(trace_id: Text, services: Services, tenant: Tenant) -> FullTraceOut:
    return FullTraceOut.of(await in_thread(services.traces.get, tenant, trace_id))


@routes.post(
    "/v1/traces/{trace_id}/replay",
    operation_id="replay_trace",
    summary="Ask a question again, and compare both answers",
    **scope(Scope.QUERY, retrieval=True),
)
async def replay_trace(
    trace_id: Text, body: OtherwiseIn, request: Request, services: Services, tenant: Tenant, charge_id: ChargeId
) -> ReplayOut:
    meter, otherwise = meter_of(services, tenant, ()), body.otherwise()
    found = await in_thread(lambda: services.traces.replay(tenant, meter, trace_id, otherwise, charge_id=charge_id))
    request.state.tokens, request.state.audit = found.tokens, {"trace": found.trace_id}
    return found


@routes.post(
    "/v1/traces/replay",
    operation_id="replay_traces",
    summary="Ask many questions again, and report what changed",
    response_class=Lines,
    response_model=None,
    responses=_LINES,
    **scope(Scope.QUERY, retrieval=True),
)
async def replay_traces(body: ReplaysIn, request: Request, services: Services, tenant: Tenant, charge_id: ChargeId) -> Lines:
    wanted = Wanted(body.kind, tenant.speaking_for(body.subject), body.session_id)
    meter, otherwise, handle = meter_of(services, tenant, ()), body.otherwise(), services.traces.traces.for_tenant(tenant)
    await in_thread(services.traces.replayer.for_tenant(tenant, meter).require, otherwise)
    traces = await in_thread(handle.last, wanted, body.last)
    request.state.audit = {"traces": len(traces)}
    return Lines(services.traces.replays(tenant, meter, traces, otherwise, charge_id=charge_id))
