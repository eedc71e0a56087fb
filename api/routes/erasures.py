"""A session or a subject as a whole: taken along as lines, or forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from fastapi import Request
from starlette.responses import StreamingResponse

from api.bulk import MEDIA_TYPE
from api.routing import Services, Tenant, in_thread, router, scope
from api.schemas.documents import Text
from api.schemas.erasures import ErasureIn, ErasureOut
from tenants.context import Scope

routes = router("Sessions")


class Lines(StreamingResponse):
    media_type = MEDIA_TYPE


_LINES: dict[int | str, dict[str, Any]] = {
    200: {"description": "One JSON object a line, the last of them an end.", "content": {MEDIA_TYPE: {}}}
}


@routes.get(
    "/v1/sessions/{session_id}/export",
    operation_id="export_session",
    summary="Export a session with its turns and documents",
    response_class=Lines,
    responses=_LINES,
    **scope(Scope.QUERY),
)
async def export_session(session_id: Text, services: Services, tenant: Tenant) -> Lines:
    return Lines(_written(await in_thread(services.conversations.belongings.exports.for_tenant(tenant).of_session, session_id)))


@routes.get(
    "/v1/subjects/{subject}/export",
    operation_id="export_subject",
    summary="Export every session of a subject",
    response_class=Lines,
    responses=_LINES,
    **scope(Scope.QUERY),
)
async def export_subject(subject: Text, services: Services, tenant: Tenant) -> Lines:
    return Lines(_written(await in_thread(services.conversations.belongings.exports.for_tenant(tenant).of_subject, subject)))


@routes.delete(
    "/v1/sessions/{session_id}",
    operation_id="erase_session",
    summary="Erase a session with everything of it: gone from every answer when this returns",
    status_code=202,
    **scope(Scope.CONVERSE),
)
async def erase_session(session_id: Text, request: Request, services: Services, tenant: Tenant) -> ErasureOut:
    row = await in_thread(services.conversations.belongings.erasures.for_tenant(tenant).of_session, session_id)
    request.state.audit = {"session": session_id, "erasure": row.id}
    return ErasureOut.of(row)


@routes.delete(
    "/v1/subjects/{subject}",
    operation_id="erase_subject",
    summary="Erase everything of a subject: sessions, memories, traces, feedback",
    status_code=202,
    **scope(Scope.CONVERSE),
)
async def erase_subject(subject: Text, request: Request, services: Services, tenant: Tenant) -> ErasureOut:
    row = await in_thread(services.conversations.belongings.erasures.for_tenant(tenant).of_subject, subject)
    request.state.audit = {"erasure": row.id}
    return ErasureOut.of(row)


@routes.post(
    "/v1/erasures",
    operation_id="create_erasure",
    summary="Erase everything of a subject whatever its name is: one with a slash fits into no path",
    status_code=202,
    **scope(Scope.CONVERSE),
)
async def create_erasure(body: ErasureIn, request: Request, services: Services, tenant: Tenant) -> ErasureOut:
    return await erase_subject(body.subject, request, services, tenant)


@routes.get(
    "/v1/erasures/{erasure_id}",
    operation_id="get_erasure",
    summary="How far an erasure is, and its receipt",
    **scope(Scope.QUERY),
)
async def get_erasure(erasure_id: Text, services: Services, tenant: Tenant) -> ErasureOut:
    return ErasureOut.of(await in_thread(services.conversations.belongings.erasures.for_tenant(tenant).get, erasure_id))


def _written(lines: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    for line in lines:
        yield orjson.dumps(line) + b"\n"
