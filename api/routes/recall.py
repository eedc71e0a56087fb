"""Finding turns again: of one session, and of all sessions of a subject."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request, Response

from api.entries import Entry, OwnEntry
from api.idempotency import ChargeId
from api.recall_schemas import RecallIn, RecallOut, SubjectRecallIn
from api.routing import Services, Tenant, in_thread, meter_of, router, scope
from api.schemas import Text
from api.session_meters import SessionMeters
from rag.recall.recall import Recalled
from tenants.context import Scope

routes = router("Sessions")


@routes.post(
    "/v1/sessions/{session_id}/recall",
    operation_id="recall_session",
    summary="Find the turns of a session that answer a question",
    response_model=RecallOut,
    **scope(Scope.QUERY, retrieval=True),
)
async def recall_session(
    session_id: Text,
    body: RecallIn,
    request: Request,
    services: Services,
    tenant: Tenant,
    charge_id: ChargeId,
    entry: Entry,
) -> Response:
    handle = services.conversations.recall.for_tenant(tenant, SessionMeters(services, tenant, session_id).question())
    return await _answer(request, body, entry, lambda: handle.in_session(session_id, body.question(), charge_id=charge_id))


@routes.post(
    "/v1/recall",
    operation_id="recall",
    summary="Find the turns of a subject's sessions that answer a question",
    response_model=RecallOut,
    **scope(Scope.QUERY, retrieval=True),
)
async def recall(
    body: SubjectRecallIn, request: Request, services: Services, tenant: Tenant, charge_id: ChargeId, entry: Entry
) -> Response:
    handle = services.conversations.recall.for_tenant(tenant, meter_of(services, tenant, ()))
    question = body.question(tuple(body.tags))
    return await _answer(request, body, entry, lambda: handle.of_subject(body.subject, question, charge_id=charge_id))


async def _answer(request: Request, body: RecallIn, entry: OwnEntry, ask: Callable[[], Recalled]) -> Response:
    """Rendered and put on record in the thread."""

    def work() -> tuple[str, int]:
        found = ask()
        rendered = RecallOut.of(found, explain=body.explain).model_dump_json()
        entry.write(200, {"turns": [each.turn.id for each in found.turns]})
        return rendered, found.charged

    rendered, request.state.tokens = await in_thread(work)
    return Response(rendered, media_type="application/json")
